//go:build linux

package host

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// The mark in the file of a transient unit shows whose it is, and the unit's name does not.
func TestMarkedUnits_HaveTheMarkOfTheirQuestion(t *testing.T) {
	dir := t.TempDir()
	question := NewOwner("1", "q3").withID("abc")
	for name, text := range map[string]string{
		"cdb-process-1-q3.service": "[Service]\nType=notify\nEnvironment=\"" + OwnerEnv + "=" + question.Mark() + "\"\nWorkingDirectory=/\n",
		"cdb-by-systemd.scope":     "[Unit]\nDescription=" + OwnerEnv + "=" + question.Mark() + "\n\n[Scope]\n",
		"cdb-replica-1-q3.service": "[Service]\nEnvironment=\"A=b\"\n", // a user's
	} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	marks := markedUnits(dir)
	assert.DeepEqual(t, marks, map[string]string{"cdb-process-1-q3.service": question.Mark(), "cdb-by-systemd.scope": question.Mark()})
	change := Change{Kind: "unit", Name: "cdb-by-systemd.scope", Description: marks["cdb-by-systemd.scope"]}
	for owner, owns := range map[Owner]bool{
		question: true, NewOwner("1", "").withID("abc"): true,
		NewOwner("1", "q4").withID("abc"): false, NewOwner("1", "q3").withID("def"): false, NewOwner("1", "q3"): false,
	} {
		assert.Check(t, isOwnedBy(change, owner) == owns, "%s", owner.Mark())
	}
	assert.Equal(t, len(markedUnits(filepath.Join(dir, "without systemd"))), 0)
}
