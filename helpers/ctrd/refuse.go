//go:build linux

package ctrd

import (
	"strings"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/lab"
)

// Refused runs a command of ctr that has to fail, and returns its result. The error of the pinned versions has to contain
// the words. Another version may say it in its own words: which they are is a fact that the question records.
func (d *Daemon) Refused(words string, args ...string) lab.Result {
	d.q.Helper()
	r := d.TryCtr(args...)
	assert.Check(d.q, r.Code != 0, "this command had to be refused:\n%s", r)
	if d.q.Pinned() {
		assert.Check(d.q, cmp.Contains(r.Stderr, words), "the error of ctr %s", strings.Join(args, " "))
	}
	return r
}

// CtrError returns the last line that ctr wrote to stderr, without its name.
func CtrError(r lab.Result) string { return strings.TrimPrefix(check.LastLine(r.Stderr), "ctr: ") }
