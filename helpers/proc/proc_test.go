//go:build linux

package proc

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"
)

func TestSnapshot_ReadsAChildUntilItIsDead(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	assert.NilError(t, cmd.Start())
	pid := cmd.Process.Pid
	WaitFor(t, Runs(PID(pid), "sleep"))
	p := Snapshot(t, PID(pid))
	assert.DeepEqual(t, p.Args, []string{"sleep", "60"})
	assert.Equal(t, p.Parent, PID(os.Getpid()))
	assert.Check(t, cmp.Contains(Children(t, PID(os.Getpid())), PID(pid)))
	assert.Check(t, cmp.Len(p.OwnNamespaces(Self(t).Identity), 0), "it shares all namespaces with its parent")
	assert.Check(t, cmp.Contains(p.SharedNamespaces(Self(t).Identity), "pid"))
	assert.Check(t, Snapshot(t, PID(pid)).Same(p.Identity), "read again") // its mounts may differ: any program may mount something
	assert.Check(t, p.Start >= Self(t).Start, "a child has begun before its parent")

	assert.NilError(t, cmd.Process.Kill())
	WaitFor(t, Dead(p.Identity)) // it is a zombie: its parent has not waited for it
	_ = cmd.Wait()
	WaitFor(t, Dead(p.Identity)) // it does not exist any more
}

// After unshare(2) of a pid namespace, /proc/PID/ns has two files of the type pid: pid and pid_for_children.
func TestSnapshot_HasTheProcesssOwnPIDNamespaceNotThatOfItsChildren(t *testing.T) {
	args := []string{"--pid", "--fork", "--kill-child", "sleep", "60"}
	if os.Geteuid() != 0 {
		args = append([]string{"--user"}, args...)
	}
	if out, err := exec.Command("unshare", append(slices.Clone(args[:len(args)-2]), "true")...).CombinedOutput(); err != nil {
		t.Skipf("unshare(1) makes no pid namespace here: run it as root: %v, %s", err, out)
	}
	cmd := exec.Command("unshare", args...)
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := PID(cmd.Process.Pid)
	WaitFor(t, func(poll.LogT) poll.Result {
		if children := Children(t, pid); len(children) == 0 {
			return poll.Continue("unshare has no child yet")
		}
		return poll.Success()
	})
	for range 20 { // a map has no order
		ns := Snapshot(t, pid).NS
		assert.Equal(t, ns["pid"], Self(t).NS["pid"])
		for name := range ns {
			assert.Check(t, !strings.HasSuffix(name, "_for_children"), name)
		}
	}
}

func TestKill_KillsNoOtherProcessThatHasThePID(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := PID(cmd.Process.Pid)
	WaitFor(t, Runs(pid, "sleep"))
	p := Snapshot(t, pid).Identity
	other := p
	other.Start++
	assert.NilError(t, Kill(other))
	assert.Check(t, p.Alive())
	assert.NilError(t, Kill(p))
	WaitFor(t, Dead(p))
	assert.NilError(t, Kill(p), "it has ended")
}

func TestExeDigest_IsTheDigestOfTheFile(t *testing.T) {
	path, err := filepath.EvalSymlinks("/proc/self/exe")
	assert.NilError(t, err)
	out, err := exec.Command("sha256sum", path).Output()
	assert.NilError(t, err)
	assert.Equal(t, ExeDigest(t, PID(os.Getpid())), "sha256:"+string(out[:64]))
}

func TestParseSyscall_AcceptsTheThreeFormsOfTheFile(t *testing.T) {
	call, ok, err := parseSyscall("257 0xffffff9c 0x7ffe 0x80001 0x0 0x0 0x0 0x7ffe 0x7f00\n")
	assert.NilError(t, err)
	assert.Check(t, ok)
	assert.DeepEqual(t, call, Syscall{Number: 257, Args: [6]uint64{0xffffff9c, 0x7ffe, 0x80001}})

	_, ok, err = parseSyscall("running\n")
	assert.NilError(t, err)
	assert.Check(t, !ok)

	call, ok, err = parseSyscall("-1 0x7ffe 0x7f00\n")
	assert.NilError(t, err)
	assert.Check(t, ok)
	assert.Equal(t, call.Number, -1)

	for _, bad := range []string{"", "257 0x1", "x 0 0 0 0 0 0", "257 0 0 y 0 0 0 0 0"} {
		_, _, err := parseSyscall(bad)
		assert.Check(t, err != nil, "%q", bad)
	}
}

func TestOrphanReaper_IsAnAncestorAndNotTheTest(t *testing.T) {
	parent := OrphanReaper(t)
	assert.Check(t, parent > 0)
	assert.Check(t, parent != PID(os.Getpid()), "a test process is no subreaper")
}

func TestHasCaller_UntilTheConnectionIsAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	assert.NilError(t, err)
	defer l.Close()
	assert.Check(t, !HasCaller(path), "no process has connected")
	caller, err := net.Dial("unix", path)
	assert.NilError(t, err)
	defer caller.Close()
	assert.Check(t, HasCaller(path), "a process has connected")
	accepted, err := l.Accept()
	assert.NilError(t, err)
	defer accepted.Close()
	assert.Check(t, !HasCaller(path), "the connection is accepted")
}
