//go:build linux

package ctrd

import (
	"regexp"
	"strings"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/lab"
)

// Refused runs a command of ctr that has to fail, and returns its result. The error has to contain the words, which have been the
// same from containerd 1.7.29 to 2.4.2.
func (d *Daemon) Refused(words string, args ...string) lab.Result {
	d.q.Helper()
	r := d.TryCtr(args...)
	assert.Check(d.q, r.Code != 0, "this command had to be refused:\n%s", r)
	assert.Check(d.q, cmp.Contains(r.Stderr, words), "the error of ctr %s", strings.Join(args, " "))
	return r
}

// CtrError returns the last line that ctr wrote to stderr, without its name.
func CtrError(r lab.Result) string { return strings.TrimPrefix(check.LastLine(r.Stderr), "ctr: ") }

// longDigest matches a digest, and captures its beginning.
var longDigest = regexp.MustCompile(`(sha256:[0-9a-f]{6})[0-9a-f]{58}`)

// ShortCtrError is [CtrError] with digests cut short.
func ShortCtrError(r lab.Result) string { return longDigest.ReplaceAllString(CtrError(r), "$1…") }
