//go:build linux

package host

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// The random id at the end of its name shows whose an AppArmor profile is.
func TestProfiles_AreOwnedByTheIDOfTheRun(t *testing.T) {
	dir := t.TempDir()
	question := NewOwner("1", "q3").withID("abc")
	name := question.ProfileName("locked")
	assert.Equal(t, name, "cdb-locked-1-q3-abc")
	text := name + " (enforce)\ncdb-locked-1-q3 (complain)\n/usr/bin/man (unconfined)\nfoo (bar) (enforce)\n"
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "profiles"), []byte(text), 0o644))
	loaded := profiles(dir)
	assert.DeepEqual(t, loaded, map[string]string{
		name: "enforce", "cdb-locked-1-q3": "complain", "/usr/bin/man": "unconfined", "foo (bar)": "enforce"})
	for owner, owns := range map[Owner]bool{
		question: true, NewOwner("1", "").withID("abc"): true,
		NewOwner("1", "q4").withID("abc"): false, NewOwner("1", "q3").withID("def"): false, NewOwner("1", "q3"): false,
		NewOwner("11", "q3").withID("abc"): false,
	} {
		change := Change{Kind: "AppArmor profile", Name: name}
		assert.Check(t, isOwnedBy(change, owner) == owns, "%s", owner.Mark())
		assert.Check(t, !owner.ownsProfile("cdb-locked-1-q3"), "a profile without an id is a user's")
	}
	assert.Equal(t, len(profiles(filepath.Join(dir, "without AppArmor"))), 0)
}
