//go:build linux

package strace

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/proc"
)

// A process with two threads; the second thread clones a child, which makes two namespaces.
func TestTrace(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"t.10": `1.000001 execve("/bin/parent", ["parent"], 0x7ffe /* 3 vars */) = 0
1.000002 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0}, 88) = 11
`,
		"t.11": `1.000003 clone(child_stack=NULL, flags=CLONE_VFORK|SIGCHLD) = 12
1.000005 unshare(CLONE_NEWNET) = -1 EPERM (Operation not permitted)
`,
		"t.12": `1.000004 unshare(CLONE_NEWNS|CLONE_NEWPID) = 0
1.000006 execve("/bin/child", ["child"], 0x7ffe /* 3 vars */) = 0
+++ exited with 0 +++
`,
	} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	tr := Read(t, dir)
	assert.Equal(t, len(tr.Calls), 6)
	parent := tr.Next("the parent's execve", AnyProcess, `^execve\("/bin/parent"`)
	assert.Equal(t, parent.PID, proc.PID(10))
	clone := tr.Next("the clone", parent.PID, `^clone.*`+CreatesProcess)
	assert.Equal(t, clone.Result(), 12)
	child := tr.Next("the child's execve", proc.PID(clone.Result()), `^execve`)
	assert.Equal(t, tr.Parent(child.PID), parent.PID)
	earlier := tr.First("a call of another process, before the one that was found last", parent.PID, `^unshare`)
	assert.Check(t, earlier.Time < child.Time)
	assert.DeepEqual(t, tr.Found(), []string{"execve", "clone", "execve"})
	assert.DeepEqual(t, tr.NewNamespaces(), []string{"mnt", "pid"})
	assert.Check(t, tr.Has(`EPERM`) && !tr.Has(`pivot_root`))
}
