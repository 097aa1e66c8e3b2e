//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// In namespaces, most of them its own; in a cgroup, in each hierarchy; and with a mount table of its own.
//
// Three tell where it lives: config.json says what was wanted, the runtime's state.json what was made, /proc what there
// is. They agree. What config.json does not list is the host's: the user and the time namespace, and on cgroup v1 the
// cgroup namespace.
//
// Hint: /proc/PID/{ns,cgroup,mountinfo}, and state.json in the runtime's root.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#namespaces
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html, https://man7.org/linux/man-pages/man7/cgroups.7.html
func TestLifecycle_WhereDoesItLiveWhileItRuns(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does it live while it runs?")
	c := runc.New(q, bundle.Busybox(q, "sleep", "300"))
	p := c.CreateAndStart()
	self := proc.Self(q)

	q.Step("namespaces: what config.json lists is its own, and nothing else is")
	kernel := map[string]string{"mount": "mnt", "network": "net"} // where /proc has another word than the specification
	var wanted []string
	for _, ns := range bundle.NamespaceTypes(c.Bundle.Spec) {
		if word, ok := kernel[ns]; ok {
			ns = word
		}
		wanted = append(wanted, ns)
	}
	slices.Sort(wanted)
	assert.Check(q, cmp.DeepEqual(p.OwnNamespaces(self.Identity), wanted))
	q.Fact("its own", p.OwnNamespaces(self.Identity))
	q.Fact("the host's", p.SharedNamespaces(self.Identity))

	q.Step("state.json names the same ones, by path, and they are the same inodes")
	var stored struct {
		Pid           int               `json:"init_process_pid"`
		Start         proc.Ticks        `json:"init_process_start"`
		Namespaces    map[string]string `json:"namespace_paths"`
		CgroupPaths   map[string]string `json:"cgroup_paths"`
		Configuration struct {
			Rootfs string `json:"rootfs"`
		} `json:"config"`
	}
	assert.NilError(q, json.Unmarshal([]byte(file.Read(q, filepath.Join(c.StateDir(), "state.json"))), &stored))
	assert.Check(q, cmp.Equal(proc.PID(stored.Pid), p.PID))
	assert.Check(q, cmp.Equal(proc.PID(c.State().Pid), p.PID))
	assert.Check(q, cmp.Equal(stored.Start, p.Start))
	named := 0
	for _, path := range stored.Namespaces {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			continue // a type that this kernel does not have
		}
		word := filepath.Base(path)
		assert.Check(q, cmp.Equal(proc.Inode(st.Ino), p.NS[word]), "namespace %s by state.json's path %s", word, path)
		named++
	}
	assert.Check(q, named >= len(wanted), "state.json names %d namespaces of %d", named, len(wanted))
	q.Fact("namespaces in state.json", named)

	q.Step("cgroup: in each hierarchy the path of config.json, and no other process is in it")
	check.OnlyProcessInCgroup(q, p.Identity, c.Bundle.Spec.Linux.CgroupsPath)
	hs, err := cgroup.Hierarchies()
	assert.NilError(q, err)
	for _, h := range hs {
		dir := h.Path(c.Bundle.Spec.Linux.CgroupsPath)
		if !h.V2 || cgroup.ModeOf(hs) == cgroup.ModeV2 {
			assert.Check(q, slices.ContainsFunc(slices.Sorted(maps.Values(stored.CgroupPaths)), func(p string) bool { return file.Same(p, dir) }),
				"state.json has no %s: %v", dir, stored.CgroupPaths)
		}
	}
	q.Fact("hierarchies", len(hs))
	q.Fact("cgroup", c.Bundle.Spec.Linux.CgroupsPath)
	assert.Check(q, self.Cgroups[""] != p.Cgroups[""] || len(hs) > 1, "control: the test itself is in the container's cgroup")

	q.Step("mounts: its first is the rootfs, and none of the host's is among them")
	assert.Check(q, strings.HasPrefix(p.Mounts[0], "/ "), "the first mount is %q", p.Mounts[0])
	assert.Check(q, !check.SeesHostMounts(p), "it sees a mount of the host: %q", p.Mounts)
	assert.Check(q, cmp.Equal(stored.Configuration.Rootfs, c.Bundle.Rootfs()))
	inside, err := os.Stat(filepath.Join("/proc", fmt.Sprint(p.PID), "root"))
	assert.NilError(q, err)
	outside, err := os.Stat(c.Bundle.Rootfs())
	assert.NilError(q, err)
	assert.Check(q, os.SameFile(inside, outside), "its / is not the bundle's rootfs")
	q.Fact("its / is", "the bundle's rootfs, the same inode")
	q.Fact("mounts, and the host's", []int{len(p.Mounts), len(self.Mounts)})

	q.Control("one that lists no network and no ipc namespace lives in the host's")
	shared := runc.Variant(q, c.Bundle, "shared", bundle.WithoutNamespace("network"), bundle.WithoutNamespace("ipc"))
	s := shared.CreateAndStart()
	assert.Check(q, cmp.Equal(s.NS["net"], self.NS["net"]))
	assert.Check(q, cmp.Equal(s.NS["ipc"], self.NS["ipc"]))
	assert.Check(q, s.NS["pid"] != p.NS["pid"], "two containers share a pid namespace that both asked for as their own")
	q.Fact("the host's, of the other one", s.SharedNamespaces(self.Identity))

	q.Answer("In the namespaces and the cgroup that config.json asks for, over its rootfs; all else is the host's.")
}

// Not the runtime: it has exited before the program runs.
//
// `runc create` makes the process as a grandchild, and exits; the orphan is taken in by the nearest subreaper above it,
// else by pid 1. That is why a container manager puts a process of its own (containerd's shim, conmon) between: a parent
// learns of the death of its child and of the exit code, and nobody else does.
//
// Hint: the parent is field 4 of /proc/PID/stat; which processes of runc are there after create?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man2/pr_set_child_subreaper.2const.html
func TestLifecycle_WhoIsTheParentOfTheContainersProcess(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who is the parent of the container's process?",
		lab.Alone("its control makes the test's process a subreaper, which would adopt other questions' orphans"))
	b := bundle.Busybox(q, "sleep", "300")
	adopter := proc.OrphanReaper(q)

	q.Step("after create: the stand-in's parent is who takes in orphans, and no runc of it is left")
	c := runc.Variant(q, b, "orphan")
	c.Create()
	created := proc.Snapshot(q, proc.PID(c.State().Pid))
	assert.Check(q, cmp.Equal(created.Parent, adopter))
	left := proc.Find(q, func(pid proc.PID, _ string, args []string) bool {
		return slices.Contains(args, c.ID) && pid != created.PID
	})
	assert.Check(q, cmp.Len(left, 0), "processes of the runtime")
	q.Fact("parent", adopter)
	q.Fact("processes of runc", left)

	q.Step("start changes nothing of that: it did not fork the program, it let it go")
	c.Start()
	proc.WaitFor(q, proc.Runs(created.PID, "sleep"))
	started := proc.Snapshot(q, created.PID)
	assert.Check(q, cmp.Equal(started.Parent, adopter))
	assert.Check(q, started.Same(created.Identity))
	c.KillAndDelete(started)

	q.Control("with a subreaper nearer than that, the orphan is the subreaper's, who alone hears how it ended")
	assert.NilError(q, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	q.TB.Cleanup(func() { assert.Check(q, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)) })
	adopted := runc.Variant(q, b, "adopted", bundle.Args("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 300 & wait $!; done"))
	adopted.Create()
	pid := adopted.State().Pid
	adopted.Start()
	assert.Check(q, cmp.Equal(proc.Snapshot(q, proc.PID(pid)).Parent, proc.PID(os.Getpid())))
	proc.WaitFor(q, proc.Catches(proc.PID(pid), unix.SIGTERM))
	adopted.Kill("TERM")
	var status unix.WaitStatus
	got, err := unix.Wait4(pid, &status, 0, nil)
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(got, pid))
	assert.Check(q, cmp.Equal(status.ExitStatus(), 7))
	q.Fact("exit code, told to the subreaper alone", status.ExitStatus())
	assert.Check(q, !strings.Contains(adopted.Must("state").Stdout, "exit"), "the runtime knows an exit code")

	q.Answer("Whoever takes in orphans: the nearest subreaper, else pid 1. Never runc, which has exited.")
}
