//go:build linux

package proc

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/slowness"
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

// A process that is found by its name may have ended when the signal is sent, and the kernel may have given its pid to another one.
func TestFindIdentities_FindsTheProcessThatIsSentTheSignal(t *testing.T) {
	cmd := exec.Command("sleep", "60.10")
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := PID(cmd.Process.Pid)
	WaitFor(t, Runs(pid, "sleep"))
	found := FindIdentities(t, func(_ PID, comm string, args []string) bool { return comm == "sleep" && slices.Contains(args, "60.10") })
	assert.DeepEqual(t, found, []Identity{{PID: pid, Start: Snapshot(t, pid).Start}})

	earlier := found[0]
	earlier.Start--
	assert.Check(t, cmp.ErrorIs(Signal(earlier, unix.SIGTERM), os.ErrProcessDone), "a process that had the pid before")
	assert.Check(t, End(earlier, unix.SIGTERM), "it has ended")
	assert.Check(t, found[0].Alive())
	assert.NilError(t, Signal(found[0], unix.SIGTERM))
	_ = cmd.Wait()
	assert.Check(t, cmp.Equal(cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(), syscall.SIGTERM))
	assert.Check(t, cmp.ErrorIs(Signal(found[0], unix.SIGTERM), os.ErrProcessDone))
}

// fatal is a testing.TB that records the message of Fatalf.
type fatal struct {
	testing.TB
	message string
}

func (f *fatal) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestWaitFor_APanicInTheCheckFailsTheTest(t *testing.T) {
	tb := &fatal{TB: t}
	var done sync.WaitGroup
	done.Go(func() {
		WaitFor(tb, func(poll.LogT) poll.Result {
			var none []string
			return poll.Continue("%s", none[len(tb.message)])
		})
	})
	done.Wait()
	assert.Check(t, cmp.Contains(tb.message, "polling check failed: the check panicked: runtime error: index out of range"))
	assert.Check(t, cmp.Contains(tb.message, "TestWaitFor_APanicInTheCheckFailsTheTest"))
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

// On a slow machine it takes longer until a process that was interrupted sleeps again.
func TestWaitChannel_LooksForLongerOnASlowMachine(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done") // it never sleeps
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	WaitFor(t, Runs(PID(cmd.Process.Pid), "sh"))
	was := slowness.Factor()
	t.Cleanup(func() { slowness.Set(was) })
	slowness.Set(5)
	begin := time.Now()
	assert.Equal(t, WaitChannel(t, PID(cmd.Process.Pid)), "0")
	took := time.Since(begin)
	assert.Check(t, took >= 500*time.Millisecond, "it has looked for %v only", took)
}

func TestLeftProcessor_OnlyAfterAStop(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done") // it never sleeps
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := PID(cmd.Process.Pid)
	WaitFor(t, HasUsed(pid, 5)) // it has loaded its program, and waits for no file
	assert.Check(t, !LeftProcessor(pid)(t).Done(), "a process that runs has left its processor")
	assert.NilError(t, cmd.Process.Signal(syscall.SIGSTOP))
	WaitFor(t, LeftProcessor(pid))
	used := UsedTicks(t, pid)
	assert.Check(t, LeftProcessor(pid)(t).Done())
	assert.Check(t, cmp.Equal(UsedTicks(t, pid), used))
}

func TestOnOwnProcfs_NotOfTheHosts(t *testing.T) {
	host, err := os.Open("/proc")
	assert.NilError(t, err)
	t.Cleanup(func() { _ = host.Close() })
	own := -1
	if fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC); err == nil { // of root only
		assert.NilError(t, unix.FsconfigCreate(fs))
		own, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
		assert.NilError(t, err)
		t.Cleanup(func() { _ = unix.Close(own); _ = unix.Close(fs) })
	}
	found := 0
	for _, d := range Descriptors(t, PID(os.Getpid())) {
		if d.FD == int(host.Fd()) || d.FD == own {
			assert.Check(t, cmp.Equal(d.OnOwnProcfs(t), d.FD == own), "descriptor %d → %s", d.FD, d.Target)
			found++
		}
	}
	assert.Check(t, found > 0, "this process has no descriptor of /proc")
}

func TestOrphanReaper_IsAnAncestorAndNotTheTest(t *testing.T) {
	parent := OrphanReaper(t)
	assert.Check(t, parent > 0)
	assert.Check(t, parent != PID(os.Getpid()), "a test process is no subreaper")
}

func TestDescriptorKinds_OfThisProcess(t *testing.T) {
	for target, want := range map[string]string{
		"socket:[26]": "socket", "pipe:[3]": "pipe", "anon_inode:[pidfd]": "pidfd", "pidfd:[26]": "pidfd", "anon_inode:inotify": "inotify",
		"/dev/null": "file", "/tmp/a:b (deleted)": "file", "/memfd:runc (deleted)": "file",
	} {
		assert.Check(t, cmp.Equal(descriptorKind(target), want), target)
	}
	before := DescriptorKinds(t, Self(t).PID)
	var ends [2][2]*os.File
	for i := range ends {
		r, w, err := os.Pipe()
		assert.NilError(t, err)
		ends[i] = [2]*os.File{r, w}
	}
	now := DescriptorKinds(t, Self(t).PID)
	assert.Check(t, cmp.Equal(now["pipe"], before["pipe"]+4))
	result := HasNoMoreDescriptors(Self(t).PID, before, 3)(t)
	assert.Check(t, !result.Done(), "four more are no more")
	assert.Check(t, cmp.Contains(result.Message(), "descriptors of the kind pipe"))
	for _, end := range ends {
		assert.NilError(t, end[0].Close())
		assert.NilError(t, end[1].Close())
	}
	assert.Check(t, HasNoMoreDescriptors(Self(t).PID, before, 0)(t).Done(), "closed, and still open: %v", DescriptorKinds(t, Self(t).PID))
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
