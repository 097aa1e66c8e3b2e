//go:build linux && vmlab && selftest

package selftest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/proc"
	"cdblab/helpers/rootfs"
	"cdblab/helpers/tools"
)

// The host's own containerd, in its default places and with running containers, is not touched: not by a run, not by a killed
// run, not by a sweep.
func TestNeighbour_TheHostsOwnContainerdRunsOnUnharmed(t *testing.T) {
	for _, place := range []string{"/run/containerd", "/var/lib/containerd"} {
		if _, err := os.Stat(place); err == nil {
			t.Skipf("this host has a %s, which this test would use: run it on a host without containerd", place)
		}
	}
	bin, err := filepath.Abs(filepath.Join(root, ".lab", "bin"))
	assert.NilError(t, err)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	assert.NilError(t, os.WriteFile(config, []byte(`version = 3
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
`), 0o644))
	programs, err := tools.FindRequired(root)
	assert.NilError(t, err)
	fs, err := rootfs.Busybox(programs["busybox"].Path)
	assert.NilError(t, err)
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "rootfs"), 0o755))
	assert.NilError(t, fs.WriteDir(filepath.Join(dir, "rootfs")))
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	ctr := func(args ...string) string {
		cmd := exec.Command(filepath.Join(bin, "ctr"), args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err, "ctr %q: %s", args, out)
		return string(out)
	}

	daemon := exec.Command(filepath.Join(bin, "containerd"), "--config", config)
	daemon.Env = env
	assert.NilError(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Signal(unix.SIGTERM)
		_ = daemon.Wait()
		for _, d := range []string{"/run/containerd", "/var/lib/containerd"} {
			_, err := host.Remove(d)
			assert.Check(t, err)
		}
		hs, err := cgroup.Hierarchies()
		assert.Check(t, err)
		for _, h := range hs {
			_ = os.Remove(h.Path("/default"))
			_ = os.Remove(h.Path("/cdb-lab"))
		}
	})
	proc.WaitFor(t, func(poll.LogT) poll.Result {
		if out, err := exec.Command(filepath.Join(bin, "ctr"), "version").CombinedOutput(); err != nil {
			return poll.Continue("the host's containerd does not answer yet: %v\n%s", err, out)
		}
		return poll.Success()
	})
	// One of them has the chapter's own id, in the chapter's own namespace.
	ctr("run", "-d", "--rootfs", filepath.Join(dir, "rootfs"), "own", "/bin/sleep", "86123")
	ctr("-n", "cdb-lab", "run", "-d", "--rootfs", filepath.Join(dir, "rootfs"), "cdb-task", "/bin/sleep", "86123")
	t.Cleanup(func() {
		for _, c := range [][]string{{"default", "own"}, {"cdb-lab", "cdb-task"}} {
			ctr("-n", c[0], "tasks", "delete", "-f", c[1])
			ctr("-n", c[0], "containers", "delete", c[1])
		}
	})
	var containers []proc.PID
	proc.WaitFor(t, func(poll.LogT) poll.Result {
		containers = proc.Find(t, func(_ proc.PID, comm string, args []string) bool {
			return comm == "sleep" && len(args) == 2 && args[1] == "86123"
		})
		if len(containers) != 2 {
			return poll.Continue("the host's own containers have the processes %v, expected two", containers)
		}
		return poll.Success()
	})
	before := takeInventory(t)
	var identities []proc.Identity
	for _, pid := range containers {
		identities = append(identities, proc.Snapshot(t, pid).Identity)
	}

	code, out := newLab("CDB_DISPOSABLE=no", chapterQuestions).run(t)
	assert.Check(t, code != 0, "the lab runs beside containers of others without asking")
	for _, words := range []string{"containers: ", "make lab", "CDB_DISPOSABLE=yes make lab-here"} {
		assert.Check(t, cmp.Contains(out, words))
	}

	code, out = newLab("CDB_DISPOSABLE=yes", chapterQuestions).run(t)
	assert.Check(t, cmp.Equal(code, 0), "%s", out)
	// An older containerd puts its shims' sockets and its runtime's state where the host's own containerd has them.
	for _, variables := range [][]string{nil, olderContainerd(t)} {
		killed := newLab(append(variables, "CDB_DISPOSABLE=yes", chapterQuestions)...)
		killed.startUntil(t, "tasks metrics", 1)
		kill(t, janitorOf(t, killed.Process.Pid), unix.SIGKILL)
		kill(t, killed.Process.Pid, unix.SIGKILL)
		_ = killed.Wait()
		t.Log(sweep(t))
	}

	for i, pid := range containers {
		assert.Check(t, cmp.DeepEqual(proc.Snapshot(t, pid).Identity, identities[i]))
	}
	assert.Check(t, strings.Contains(ctr("tasks", "ls"), "RUNNING"))
	assert.Check(t, strings.Contains(ctr("-n", "cdb-lab", "tasks", "ls"), "RUNNING"))
	assertHostUnchanged(t, before)
}
