//go:build linux

package failure

import (
	"fmt"
	"io/fs"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/proc"
)

// AssertSavedExit asserts that the shim has saved this exit status of the task's process in the bundle ("137"). A shim that does
// not know the file has to save none.
func (v *Victim) AssertSavedExit(status string) {
	v.q.Helper()
	fact := v.String() + ": exit status in the bundle"
	saved, err := v.d.ReadSavedExit(v.ID)
	if !ctrd.SavesExit(v.q) {
		assert.Check(v.q, cmp.ErrorIs(err, fs.ErrNotExist), "%s: a shim that does not know %s has saved %+v", v, ctrd.SavedExitFile, saved)
		v.q.Fact(fact, "none")
		return
	}
	proc.WaitFor(v.q, func(poll.LogT) poll.Result {
		if saved, err = v.d.ReadSavedExit(v.ID); err != nil {
			return poll.Continue("%s: %v", v, err)
		}
		return poll.Success()
	})
	assert.Check(v.q, cmp.Equal(saved.PID, v.Init.PID), "%s: pid in %s", v, ctrd.SavedExitFile)
	assert.Check(v.q, cmp.Equal(fmt.Sprint(saved.Status), status), "%s: status in %s", v, ctrd.SavedExitFile)
	v.q.Fact(fact, saved.Status)
}
