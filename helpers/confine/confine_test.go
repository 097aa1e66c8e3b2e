//go:build linux

package confine

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/skip"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
)

// TestMain is also process 1 of the PID namespace.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "inner" {
		os.Exit(Inner(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func confined(t *testing.T, script string, change func(*Command)) (code int, cutOff string) {
	t.Helper()
	skip.If(t, os.Geteuid() != 0, "namespaces and cgroups need root: sudo go test ./helpers/confine")
	c := Command{
		Args: []string{"/bin/sh", "-c", script}, Inner: []string{"/proc/self/exe", "inner"},
		Deadline: time.Minute, Grace: time.Second, Limits: Limits{Memory: 64 << 20, Threads: 256},
	}
	if change != nil {
		change(&c)
	}
	code, cutOff, err := c.Run()
	assert.NilError(t, err)
	hierarchies, err := cgroup.Hierarchies()
	assert.NilError(t, err)
	for _, h := range hierarchies {
		own, _ := filepath.Glob(h.Path(host.Cgroup) + "/confined-*")
		for _, dir := range own {
			assert.Check(t, filepath.Base(dir) != filepath.Base(groupName()), "the cgroup %s is left", dir)
		}
	}
	return code, cutOff
}

func TestCommand_EndsByItself(t *testing.T) {
	code, cutOff := confined(t, `sleep 300 & exit 7`, nil)
	assert.Equal(t, code, 7)
	assert.Equal(t, cutOff, "", "a process that it leaves is killed, and no reason to cut it off")
}

// The command does what a broken runtime may do. The test itself, and the mounts that it sees, are unharmed.
func TestCommand_ReachesNothingOutside(t *testing.T) {
	before, err := mountinfo.GetMounts(nil)
	assert.NilError(t, err)
	code, cutOff := confined(t, `kill -9 -1; mount -t tmpfs none /mnt; umount -l /sys/fs/cgroup; chown 7:7 /dev/null
		umount -l -a; hostname mutant; exit 3`, nil)
	assert.Equal(t, code, 3)
	assert.Equal(t, cutOff, "")
	after, err := mountinfo.GetMounts(nil)
	assert.NilError(t, err)
	assert.Check(t, cmp.DeepEqual(systemMounts(after), systemMounts(before)))
	var null unix.Stat_t
	assert.NilError(t, unix.Stat(os.DevNull, &null))
	assert.Check(t, null.Uid != 7, "the host's null device has the owner that the command gave to its own")
	name, err := os.Hostname()
	assert.NilError(t, err)
	assert.Check(t, name != "mutant")
}

// systemMounts returns the mount points of the host that no program but a broken one changes meanwhile. Another run of the lab, or a login,
// makes mounts below /run.
func systemMounts(all []*mountinfo.Info) (out []string) {
	for _, m := range all {
		if !strings.HasPrefix(m.Mountpoint, "/run/") {
			out = append(out, m.Mountpoint)
		}
	}
	return out
}

// Process 1 of the host is systemd, and its initramfs has mounted /run with noexec. A runtime would send systemd pids of another
// namespace, and a run that mounts a file system of its own below /run would hide its lock there.
func TestCommand_FindsNoSystemdAndMayExecuteBelowRun(t *testing.T) {
	self, err := os.Executable()
	assert.NilError(t, err)
	const debian = `mount --make-rslave / && mount -t tmpfs -o noexec cdb-test /run && mkdir -p /run/systemd/system /run/dbus &&
		touch /run/dbus/system_bus_socket && exec "$@"`
	code, cutOff := confined(t, `set -e
		[ ! -e /run/systemd/system ] && [ ! -e /run/dbus/system_bus_socket ] || exit 3
		mkdir -p `+host.Dir+` && cp /bin/true `+host.Dir+`/true && `+host.Dir+`/true || exit 4
		rm -r `+host.Dir, func(c *Command) { c.Inner = []string{"/bin/sh", "-c", debian, "sh", self, "inner"} })
	assert.Equal(t, cutOff, "")
	assert.Equal(t, code, 0, "3: systemd is there; 4: a program below /run cannot be executed")
}

// A container whose cgroupsPath is relative has its cgroup below the group of the limits.
func TestCommand_LeavesNoCgroupBelowItsOwn(t *testing.T) {
	code, cutOff := confined(t, `made=false
		for group in /sys/fs/cgroup/cdb-lab/`+groupName()+` /sys/fs/cgroup/*/cdb-lab/`+groupName()+`; do
			[ ! -d $group ] || { mkdir -p $group/container/below && made=true; }
		done; $made`, nil)
	assert.Equal(t, cutOff, "")
	assert.Equal(t, code, 0, "the command has found no cgroup of its limits")
}

func TestRmdir_RemovesWhatIsBelowFirst(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "confined-1")
	assert.NilError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	assert.NilError(t, rmdir(dir))
	_, err := os.Stat(dir)
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.NilError(t, rmdir(dir))
}

// Other programs may have taken the memory and the processes of the machine. That says nothing of a command that has ended by itself.
func TestWait_TheMachineCutsOffNoCommandThatHasEnded(t *testing.T) {
	c := Command{Deadline: time.Minute, Limits: Limits{Threads: -1 << 30}}
	assert.Check(t, cmp.Contains(newWatch(c.Limits).exceeded(&group{}), ThisMachine), "this machine has few threads")
	ended := make(chan error, 1)
	ended <- nil
	assert.Equal(t, c.wait(ended, &group{}, func(os.Signal) {}), "")
}

func TestCommand_IsCutOff(t *testing.T) {
	for name, row := range map[string]struct {
		script string
		change func(*Command)
		want   string
	}{
		"it hangs, and ignores SIGTERM": {
			`trap "" TERM; sleep 300`, func(c *Command) { c.Deadline = time.Second }, "deadline: it did not end within 1s",
		},
		"it takes memory without end": {
			`exec tail /dev/zero`, nil, "memory: its processes had as much as they may have, and the kernel has killed one of them",
		},
		// Its 256 shells need tens of MiB, also for what the kernel keeps of each: with 64 MiB it could meet either limit first.
		"it forks without end": {
			`exec 2>/dev/null; f() { f | f & }; f; sleep 300`, func(c *Command) { c.Limits.Memory = 1 << 30 },
			"processes: it had as many as it may have",
		},
		"its caller ends": {`sleep 300`, func(c *Command) { c.Stop = endedPipe() }, Stopped},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			code, cutOff := confined(t, row.script, row.change)
			assert.Check(t, cmp.Equal(cutOff, row.want))
			assert.Check(t, code != 0)
			assert.Check(t, time.Since(begin) < 50*time.Second, "it was cut off by its deadline only")
		})
	}
}

func endedPipe() io.Reader {
	r, w := io.Pipe()
	w.Close()
	return r
}

func TestScanKey(t *testing.T) {
	var n uint64
	assert.Check(t, scanKey("oom 1\noom_kill 3\n", "oom_kill", &n))
	assert.Equal(t, n, uint64(3))
	assert.Check(t, !scanKey("oom 1\n", "oom_kill", &n))
}
