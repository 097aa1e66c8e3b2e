//go:build linux

package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/tools"
)

// The programs lie below the checkout, whose path may have any characters.
func TestWriteWrapper_QuotesThePathsOfThePrograms(t *testing.T) {
	q, _, _ := recordedQuestion(t)
	q.Dir = t.TempDir()
	runc, shim := "/my lab/it's/runc", `/a "b" $HOME/shim`
	q.session.tools = map[string]tools.Program{"runc": {Path: runc}, "containerd-shim-runc-v2": {Path: shim}}
	out, err := exec.Command(q.WriteWrapper("wrapper", `printf '%s|%s' "$RUNC" "$SHIM"`)).Output()
	assert.NilError(t, err)
	assert.Equal(t, string(out), runc+"|"+shim)
}

// With CDB_KEEP the directory of one subtest stays, and another subtest of the same question wants the same name.
func TestMkdir_SkipsWhereAnotherSubtestHasKeptTheName(t *testing.T) {
	q, _, _ := recordedQuestion(t)
	q.Dir, q.session.keep = t.TempDir(), keepAlways
	assert.NilError(t, os.Mkdir(filepath.Join(q.Dir, "bundle"), 0o755))
	t.Run("second", func(t *testing.T) {
		q.TB = t
		q.Mkdir("bundle")
	})
	got := q.session.skips.sorted()
	assert.Assert(t, cmp.Len(got, 1))
	assert.Check(t, cmp.Contains(got[0].reason, "CDB_KEEP keeps the state of another subtest"))
}
