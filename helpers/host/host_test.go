//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/skip"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/proc"
)

func TestOwner_OwnsByNameAlone(t *testing.T) {
	run, question := NewOwner("1", ""), NewOwner("1", "q2")
	assert.Equal(t, question.Dir(), "/run/cdb-lab/1/q2")
	assert.Equal(t, question.ID("cdb-running-1.7.29"), "cdb-running-1-7-29-1-q2")
	assert.Check(t, question.OwnsCgroup("/cdb-lab/"+question.ID("cdb-running-1.7.29")))
	assert.Equal(t, question.Cgroup(), "/cdb-lab/1/q2")
	assert.Equal(t, question.ID("cdb-task"), "cdb-task-1-q2")
	for _, c := range []struct {
		s             string
		run, question bool
	}{
		{"/run/cdb-lab/1/q2/bundle", true, true},
		{"/run/cdb-lab/1", true, false},
		{"/run/cdb-lab/1/q20", true, false},
		{"/run/cdb-lab/10/q2", false, false},
		{"pids:/cdb-lab/cdb-task-1-q2", true, true},
		{"pids:/cdb-lab/cdb-task-1-q2/below", true, true},
		{"pids:/cdb-lab/cdb-task-1-q20", true, false},
		{"pids:/cdb-lab/cdb-task-11-q2", false, false},
		{"/cdb-lab-1-q2", true, true}, // a containerd namespace
		{"from tmpfs /cdb-lab/1/q2/bundle", true, true},
		{"/run/containerd/runc/cdb-lab-1-q2/cdb-task", true, true},
		{"/var/lib/containerd/x/cdb-task-1-q2", true, true},
		{"unified:/docker/1f2e/cdb-lab/1/q2", false, false}, // another lab, in a container
		{"unified:/system.slice/cdb-replica-1-q2.service", false, false},
		{"unified:/docker/1f2e/cdb-lab-1-q2/cdb-task", false, false},
		{"pids:/cdb-lab/cdb-task", false, false}, // the host's own containerd may have a container with the chapter's id
		{"/sys/fs/cgroup/pids", false, false},
		{"", false, false},
	} {
		assert.Check(t, cmp.Equal(run.Owns(c.s), c.run), "run 1, %q", c.s)
		assert.Check(t, cmp.Equal(question.Owns(c.s), c.question), "question 2 of run 1, %q", c.s)
	}
}

// Processes are killed by their cgroup, so a cgroup must begin at the lab's own root.
func TestOwner_OwnsCgroupsBelowTheLabsOwnRootOnly(t *testing.T) {
	run, question := NewOwner("1", ""), NewOwner("1", "q2")
	for _, c := range []struct {
		path          string
		run, question bool
	}{
		{"/cdb-lab/1", true, false},
		{"/cdb-lab/1/q2/bundle", true, true},
		{"/cdb-lab/1/q20", true, false},
		{"/cdb-lab/10/q2", false, false},
		{"/cdb-lab/cdb-task-1-q2", true, true},
		{"/cdb-lab-1-q2/cdb-task", true, true},
		{"/cdb-lab-1-q2.service", false, false},
		{"/cdb-lab-1-q20/cdb-task", true, false},
		{"/docker/1f2e/cdb-lab/1/q2", false, false},
		{"/../cdb-lab/1/q2", false, false}, // outside of this process's cgroup namespace
		{"/system.slice/cdb-replica-1-q2.service", false, false},
		{"/kubepods/cdb-lab-1-q2/cdb-task", false, false},
		{"/cdb-lab", false, false},
	} {
		assert.Check(t, cmp.Equal(run.OwnsCgroup(c.path), c.run), "run 1, %q", c.path)
		assert.Check(t, cmp.Equal(question.OwnsCgroup(c.path), c.question), "question 2 of run 1, %q", c.path)
	}
}

func TestProcess_BelongsToARunByDirectoryAndID(t *testing.T) {
	run := NewOwner("1", "").withID("0123456789abcdef")
	question := run.OfQuestion("q2")
	inCgroup := []string{"8:pids:/cdb-lab/1/q2/c", "0::/cdb-lab/1/q2/c"}
	for _, c := range []struct {
		mark          string
		cgroups       []string
		run, question bool
	}{
		{run.Mark(), nil, true, false},
		{question.Mark(), nil, true, true},
		{"/run/cdb-lab/1/q2:fedcba9876543210", nil, false, false}, // an earlier run with the same number
		{"/run/cdb-lab/1/q2", nil, false, false},
		{"/run/cdb-lab/10:0123456789abcdef", nil, false, false},
		{"", inCgroup, true, true},
		{"/run/cdb-lab/1/q2:fedcba9876543210", inCgroup, false, false},
		{"", []string{"0::/docker/1f2e/cdb-lab/1/q2/c"}, false, false},
		{"", []string{"0::/"}, false, false},
	} {
		p := Process{PID: 7, Comm: ":/cdb-lab/1/q2", Cgroup: strings.Join(c.cgroups, " "), cgroups: c.cgroups, Mark: c.mark}
		assert.Check(t, cmp.Equal(p.OwnedBy(run), c.run), "%s", p)
		assert.Check(t, cmp.Equal(p.OwnedBy(question), c.question), "%s", p)
		assert.Check(t, cmp.Equal(run.ownsProcess(p.String()), c.run), "%s", p)
	}
	unknown := Process{Mark: "/run/cdb-lab/1:"}
	assert.Check(t, !unknown.OwnedBy(NewOwner("1", "")), "an owner without an id owns no process")
}

func TestParseMark_AcceptsOnlyTheMarkOfARun(t *testing.T) {
	run, err := ParseMark("/run/cdb-lab/7:0123456789abcdef")
	assert.NilError(t, err)
	assert.Equal(t, run.Run, "7")
	for _, bad := range []string{
		"", "1", "../../home/x", "/run/cdb-lab/7", "/run/cdb-lab/7:", "/run/cdb-lab/../x:1", "/run/cdb-lab/7/q1:1", "/home/7:1",
	} {
		_, err := ParseMark(bad)
		assert.Check(t, err != nil, "%q", bad)
	}
}

func TestFreeNumber_RunOfMark(t *testing.T) {
	run, ok := runOfMark("/run/cdb-lab/7/q1:0123")
	assert.Check(t, ok)
	assert.Equal(t, run, "7")
	_, ok = runOfMark("/home/7:0123")
	assert.Check(t, !ok)
}

// Beside a shell's loop there is always a young process without an environment. killAll does not wait for the end of the loop.
func TestKillAll_EndsBesideALoopOfProcessesWithoutEnvironment(t *testing.T) {
	owner := NewOwner("1", "").withID("0123456789abcdef")
	begin := sinceBoot()
	pid := proc.PID(1000)
	hidden := Process{PID: 7, Comm: "hidden", NoEnvironment: true, Start: proc.Ticks(begin / tick)}
	looks := 0
	thawed := 0 // not the cgroups of a run that has the number, which this test would disturb
	k := killer{now: sinceBoot, kill: func(Process) error { return nil }, thaw: func(Owner) { thawed++ }, list: func() ([]Process, error) {
		pid++
		looks++
		all := []Process{{PID: pid, Comm: "loop", NoEnvironment: true, Start: proc.Ticks(sinceBoot() / tick)}}
		switch {
		case looks == 1: // it is in the middle of execve(2)
			all = append(all, hidden)
		case looks == 2: // now it has its environment
			found := hidden
			found.NoEnvironment, found.Mark = false, owner.Mark()
			all = append(all, found)
		}
		return all, nil
	}}
	assert.NilError(t, k.killAll(owner))
	assert.DeepEqual(t, k.killed, []string{"7 (hidden)"})
	assert.Equal(t, thawed, 1)
	assert.Check(t, sinceBoot()-begin < 8*time.Second, "it took %v", sinceBoot()-begin)
}

// A cgroup whose name is the lab's proves nothing about its processes, unless the directory of the run is there as well.
func TestRemoveEmptyCgroups_KillsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make cgroups: run the test as root")
	}
	owner := NewOwner("987654", "")
	hierarchies, err := cgroup.Hierarchies()
	assert.NilError(t, err)
	if len(hierarchies) == 0 {
		t.Skip("no cgroup hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup")
	}
	h := hierarchies[len(hierarchies)-1]
	empty, used := h.Path(owner.Cgroup()+"/q1"), h.Path(owner.Cgroup()+"/q2")
	if err := errors.Join(os.MkdirAll(empty, 0o755), os.MkdirAll(used, 0o755)); err != nil {
		t.Skipf("this machine allows no cgroups to be made: %v", err)
	}
	sleep := exec.Command("sleep", "60")
	assert.NilError(t, sleep.Start())
	defer func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
		_, err := removeCgroups(owner)
		assert.Check(t, err)
		_ = os.Remove(h.Path(Cgroup)) // it stays if another run uses it
	}()
	assert.NilError(t, os.WriteFile(filepath.Join(used, "cgroup.procs"), []byte(strconv.Itoa(sleep.Process.Pid)), 0o644))
	swept, err := removeEmptyCgroups(owner)
	assert.ErrorContains(t, err, "nothing proves that its processes")
	assert.DeepEqual(t, swept.Cgroups, []string{h.Name + ":" + owner.Cgroup() + "/q1"})
	assert.NilError(t, sleep.Process.Signal(unix.Signal(0)))
}

func TestUsesController_LooksForSettingsThatAreNotTheDefault(t *testing.T) {
	root := t.TempDir()
	set := func(path, value string, mode os.FileMode) {
		t.Helper()
		path = filepath.Join(root, path)
		assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		assert.NilError(t, os.WriteFile(path, []byte(value), 0o644))
		assert.NilError(t, os.Chmod(path, mode))
	}
	uses := func(controller string) bool { return usesController(root, filepath.Join(root, "cdb-lab"), controller) }
	for _, dir := range []string{"cdb-lab", "cdb-lab-1-q2", "system.slice"} {
		set(dir+"/memory.max", "max\n", 0o644)
		set(dir+"/memory.current", dir, 0o444)
		set(dir+"/memory.peak", dir, 0o644)
		set(dir+"/pids.max", "max\n", 0o644)
	}
	set("cdb-lab-1-q2/memory.max", "4096\n", 0o644)
	assert.Check(t, !uses("memory"), "only the lab's own cgroups have limits")
	set("system.slice/memory.max", "1073741824\n", 0o644)
	assert.Check(t, uses("memory"), "the host has set a limit")
	assert.Check(t, !uses("pids"))
	set("system.slice/io.max", "", 0o644)
	assert.Check(t, uses("io"), "the default is not known")
}

func TestRunOf_FindsTheRunInTheNameOfAnEntry(t *testing.T) {
	for name, want := range map[string]string{"7": "7", "cdb-task-7-q12": "7", "cdb-task-2-7-q1": "7", "cdb-task": "", "lock": ""} {
		run, ok := runOf(name)
		assert.Check(t, cmp.Equal(ok, want != ""), name)
		if ok {
			assert.Check(t, cmp.Equal(run, want), name)
		}
	}
}

func TestDiff_ReportsWhatAppearedAndWhatDisappeared(t *testing.T) {
	before := Inventory{"mount": {"/a (tmpfs)": "from tmpfs /", "/b (tmpfs)": "from tmpfs /"}}
	after := Inventory{"mount": {"/b (tmpfs)": "from tmpfs /", "/run/cdb-lab/1/q1/rootfs (overlay)": "from overlay /"}}
	changes := Diff(before, after)
	assert.DeepEqual(t, changes, []Change{
		{"mount", "/run/cdb-lab/1/q1/rootfs (overlay)", "from overlay /", false},
		{"mount", "/a (tmpfs)", "from tmpfs /", true},
	})
	assert.DeepEqual(t, OwnedBy(changes, NewOwner("1", "")), changes[:1])
	assert.Check(t, cmp.Len(OwnedBy(changes, NewOwner("2", "")), 0))
}

// No program may unmount a file system of the host's /dev or /sys. Other mounts come and go by themselves.
func TestOwnedBy_AMountOfDevThatIsGone(t *testing.T) {
	owner := NewOwner("1", "q2")
	for name, owned := range map[string]bool{
		"/dev/pts (devpts)": true, "/sys/kernel/security (securityfs)": true,
		"/run/user/1000 (tmpfs)": false, "/dev (devtmpfs)": false,
	} {
		gone := Change{"mount", name, "from x /", true}
		assert.Check(t, cmp.Len(OwnedBy([]Change{gone}, owner), map[bool]int{true: 1}[owned]), "%s is gone", name)
		gone.Gone = false
		assert.Check(t, cmp.Len(OwnedBy([]Change{gone}, owner), 0), "%s was mounted", name)
	}
}

func TestOwnedBy_DefaultPlacesAndTheNullDevice(t *testing.T) {
	skip.If(t, usedByARun("/run/containerd"), "a run of the lab uses /run/containerd: run this when it has ended")
	owner := NewOwner("1", "")
	root := Change{"directory", "/run/crun", "d---------", false}
	socket := Change{"socket file", "/run/containerd/s/0123", "S---------", false}
	bundle := Change{"directory", "/run/containerd/io.containerd.runtime.v2.task/cdb-lab/cdb-task", "d---------", false}
	beside := Change{"directory", "/run/containerd/runc/cdb-lab-2-q3", "d---------", false}
	null := Change{"device", "/dev/null is no character device (mode 100644)", "", false}
	for _, unnamed := range []Change{root, socket} {
		assert.Check(t, cmp.Len(OwnedBy([]Change{unnamed}, owner), 0), "%s: any program may have made it", unnamed)
	}
	assert.Check(t, cmp.Len(OwnedBy([]Change{bundle}, owner), 1), "no other program uses an id of the lab")
	assert.Check(t, cmp.Len(OwnedBy([]Change{beside}, owner), 0), "another run of the lab made it")
	assert.Check(t, cmp.Len(OwnedBy([]Change{beside}, NewOwner("2", "q3")), 1))
	assert.Check(t, cmp.Len(OwnedBy([]Change{null}, owner), 1))

	gone := root
	gone.Gone = true
	assert.DeepEqual(t, Unnamed([]Change{root, gone, socket, bundle, null}), []Change{root})
}

// Where /run/containerd was there before, a run notes only what it has made in it.
func TestNamesPlace_AlsoByADirectoryInIt(t *testing.T) {
	assert.Check(t, namesPlace("/run/containerd/s\n/run/containerd/runc/cdb-lab", "/run/containerd"))
	assert.Check(t, !namesPlace("/run/containerd-other/s", "/run/containerd"))
	assert.Check(t, !namesPlace("", "/run/containerd"))
}

func TestTakeInventory_NeedsNoRoot(t *testing.T) {
	inventory, err := TakeInventory()
	assert.NilError(t, err)
	assert.Check(t, len(inventory["mount"]) > 0)
	assert.Check(t, len(inventory["process"]) > 0)
	assert.Check(t, cmp.Len(Diff(inventory, inventory), 0))
}

func TestVirtual_RecognisesFlagAndFirmware(t *testing.T) {
	assert.Check(t, hypervisorFlag("processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n"))
	assert.Check(t, hypervisorFlag("flags\t\t: fpu hypervisor\n"))
	assert.Check(t, !hypervisorFlag("processor\t: 0\nflags\t\t: fpu vme\n"))
	assert.Check(t, hypervisorFirmware("QEMU\n"))
	assert.Check(t, !hypervisorFirmware("Amazon EC2\n"), "its bare metal has the same vendor")
}

func TestTryLock_SucceedsAfterTheHolderHasClosedTheLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1") // with the umask 0002, TempDir itself is writable for others
	assert.NilError(t, os.Mkdir(dir, dirMode))
	held, err := tryLock(dir)
	assert.NilError(t, err)
	_, err = tryLock(dir)
	assert.ErrorIs(t, err, errLocked)
	assert.NilError(t, held.Close())
	again, err := tryLock(dir)
	assert.NilError(t, err)
	assert.NilError(t, again.Close())
}

func TestDescribeAccess_HasOwnerAndMode(t *testing.T) {
	var st unix.Stat_t
	assert.NilError(t, unix.Stat("/dev/null", &st))
	assert.Equal(t, describeAccess("/dev/null"), fmt.Sprintf("char 1:3, mode %o, owner %d:%d", st.Mode&0o7777, st.Uid, st.Gid))
	file := filepath.Join(t.TempDir(), "null")
	assert.NilError(t, os.WriteFile(file, nil, 0o600))
	assert.Check(t, cmp.Contains(describeAccess(file), "is no character device"))
	assert.Check(t, cmp.Contains(describeAccess(file), "mode 600"))
}

func TestLock_OfADirectoryThatWasReplacedIsNone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1")
	assert.NilError(t, os.Mkdir(dir, dirMode))
	lock, err := tryLock(dir)
	assert.NilError(t, err)
	defer lock.Close()
	assert.Check(t, isAt(lock, dir))
	assert.NilError(t, os.Rename(dir, dir+".old"))
	assert.NilError(t, os.Mkdir(dir, dirMode))
	assert.Check(t, !isAt(lock, dir))
}

// The lab runs as root, so it must not write or delete where a link leads, or where another user can put one.
func TestOpenOwnDir_RefusesLinksAndOtherWriters(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, os.Mkdir(dir+"/real", dirMode))
	assert.NilError(t, os.Mkdir(dir+"/open", 0o755))
	assert.NilError(t, os.Chmod(dir+"/open", 0o777))
	assert.NilError(t, os.Symlink("real", dir+"/link"))
	assert.NilError(t, os.WriteFile(dir+"/file", nil, 0o644))
	f, err := openOwnDir(dir + "/real")
	assert.NilError(t, err)
	f.Close()
	for name, want := range map[string]string{
		"link": "symbolic link", "file": "no directory", "open": "mode 777, expected uid", "none": "no such file",
	} {
		_, err := openOwnDir(filepath.Join(dir, name))
		assert.Check(t, cmp.ErrorContains(err, want), name)
	}
}

func TestRemove_FollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, os.MkdirAll(dir+"/host/below", 0o755))
	assert.NilError(t, os.WriteFile(dir+"/host/below/file", nil, 0o644))
	assert.NilError(t, os.MkdirAll(dir+"/lab/1", 0o755))
	assert.NilError(t, os.Symlink(dir+"/host", dir+"/lab/1/link"))
	files, err := Remove(dir + "/lab")
	assert.NilError(t, err)
	assert.Equal(t, files, 1, "the link")
	assert.NilError(t, os.Symlink(dir+"/host", dir+"/lab"))
	_, err = Remove(dir + "/lab")
	assert.NilError(t, err)
	_, err = os.Stat(dir + "/host/below/file")
	assert.NilError(t, err)
}

// Through a bind mount, the lab would delete the host's files. The test mounts in a mount namespace of its own.
func TestRemove_EntersNoMount(t *testing.T) {
	const inside = "CDB_TEST_MOUNTS"
	if os.Geteuid() != 0 {
		t.Skip("only root may mount: run the test as root")
	}
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=yes")
		cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, unix.EPERM) {
			t.Skip("this machine allows no mount namespace")
		}
		assert.NilError(t, err, "%s", out)
		return
	}
	dir := t.TempDir()
	assert.NilError(t, os.MkdirAll(dir+"/lab/1/mnt", 0o755))
	assert.NilError(t, os.Mkdir(dir+"/host", 0o755))
	assert.NilError(t, os.WriteFile(dir+"/host/file", nil, 0o644))
	assert.NilError(t, unix.Mount(dir+"/host", dir+"/lab/1/mnt", "", unix.MS_BIND, ""))
	_, err := Remove(dir + "/lab")
	assert.Check(t, cmp.ErrorContains(err, "lab/1/mnt is still mounted"))
	// The walk itself stops as well: something may be mounted after Remove has looked.
	parent, err := openDir(dir)
	assert.NilError(t, err)
	defer parent.Close()
	top, err := statAt(int(parent.Fd()), "", dir)
	assert.NilError(t, err)
	_, err = removeTree(int(parent.Fd()), "lab", dir+"/lab", top)
	assert.Check(t, cmp.ErrorContains(err, "lab/1/mnt is still mounted"))
	_, err = os.Stat(dir + "/host/file")
	assert.Check(t, err)
	assert.NilError(t, unix.Unmount(dir+"/lab/1/mnt", 0))
}

func TestRemove_CountsEntriesThatAreNoDirectories(t *testing.T) {
	dir := t.TempDir() + "/d"
	assert.NilError(t, os.MkdirAll(dir+"/below", 0o755))
	assert.NilError(t, os.WriteFile(dir+"/below/f", nil, 0o644))
	files, err := Remove(dir)
	assert.NilError(t, err)
	assert.Equal(t, files, 1)
	_, err = os.Stat(dir)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
