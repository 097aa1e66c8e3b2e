//go:build linux

package ctrd

import (
	"os"
	"path/filepath"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/file"
	"cdblab/helpers/lab"
)

// HeldExec is a program in the runtime's place that executes the runtime, and then holds each exec: it does not return before the
// question releases it. The exec's process exists by then, and the shim still waits to learn its pid.
type HeldExec struct {
	Path string // of the program, for [ClientOptions].BinaryName
	q    *lab.Q
	dir  string
}

// HoldExecs writes such a program.
func HoldExecs(q *lab.Q) HeldExec {
	q.Helper()
	dir := q.Mkdir("held")
	// The shim names the file for the exec's pid after the exec. The wait ends with the directory, too: a question that fails early
	// removes it, and an exec may come after that.
	script := `"$RUNC" "$@"; code=$?
case " $* " in *" exec "*) for a; do case $a in *.pid) id=$(basename "$a" .pid);; esac; done
touch ` + dir + `/$id; while [ -e ` + dir + `/$id ] && [ ! -e ` + dir + `/$id.released ]; do sleep 0.02; done;; esac
exit $code`
	h := HeldExec{Path: q.WriteWrapper("runc-held", script), q: q, dir: dir}
	q.Cleanup(func() { // a question that fails leaves no program behind that waits
		for _, id := range file.Names(q, dir) {
			_ = os.WriteFile(filepath.Join(dir, id+".released"), nil, 0o644)
		}
	})
	return h
}

// Holds returns a check that succeeds when the exec of this id is held.
func (h HeldExec) Holds(id string) poll.Check { return file.DirHas(h.dir, id) }

// Release lets the runtime return from the exec of this id, also if it is not called yet.
func (h HeldExec) Release(id string) {
	h.q.Helper()
	h.q.LogCommand("touch %s/%s.released", h.dir, id)
	assert.NilError(h.q, os.WriteFile(filepath.Join(h.dir, id+".released"), nil, 0o644))
}
