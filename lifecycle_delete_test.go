//go:build linux && vmlab

package cdblab

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Delete removes the state directory and the container's cgroup. Cgroups that create has made above it stay. With the last process, the
// kernel has removed the namespaces and the mounts in them.
//
// The bundle was there before create. It stays, with everything that the program wrote into it. Delete of a running container is
// refused, unless it is forced. So delete right after kill may be refused: kill sends the signal, and does not wait until the
// process has ended. runc knows the cgroup by its path alone: it also removes an empty cgroup that it did not make. After delete
// the id is free.
//
// Hint: compare the host before create and after delete. What is the state of a process between the signal and its end?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#delete
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html, "Namespace lifetime"
func TestLifecycle_WhatDoesDeleteRemove(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does delete remove?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	neighbour := makeNeighbour(q)
	c := runc.Variant(q, b, "once", bundle.WritableRootfs, bundle.Args("sh", "-c", "echo here > /written; exec sleep 3600"))
	before := q.TakeInventory()
	config := file.Read(q, c.Bundle.Config())

	q.Step("create and start a container: the host has its state directory, cgroup, process and namespaces")
	p := c.CreateAndStart()
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	assert.Check(q, file.Exists(c.StateDir()))
	assertDirsExist(q, g.Dirs(), "no cgroup %s")
	q.Fact("kinds of things that a running container adds to the host", kindsAdded(q, before))

	q.Step("delete of a running container is refused, and changes nothing")
	refused := c.Try("delete")
	assert.Check(q, refused.Code != 0, "a running container is deleted:\n%s", refused)
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, p.PID).Identity, p.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	q.Fact("delete of a running container: error", runc.LastLogMessage(refused))

	q.Step("kill the container: only its process is gone; the state directory and the cgroup stay")
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	assert.Check(q, file.Exists(c.StateDir()))
	assertDirsExist(q, g.Dirs(), "the cgroup %s is gone before delete")
	afterDeath := c.State().Status
	assert.Check(q, cmp.Equal(afterDeath, specs.StateStopped), "status after the process's death")
	q.Fact("after the process's death", afterDeath)

	q.Step("delete the container: the host is as it was before create")
	c.Delete()
	check.NoCgroup(q, c.Bundle.Spec.Linux.CgroupsPath)
	assert.Check(q, !file.Exists(c.StateDir()), "the state directory is still there")
	proc.WaitFor(q, c.NoLeftovers(before))
	q.Fact("leftovers on the host", c.Leftovers(before))

	q.Step("a container whose cgroupsPath has a parent that is missing: create makes both cgroups, and delete removes only the container's")
	undone := removesMissingParent(q, b)
	q.Fact("cgroup above the container's: left after delete", !undone)
	q.Clause("Delete: Deleting a container MUST delete the resources that were created during the create step.",
		lab.DeviatesUnless(undone, "the cgroup that create has made above the container's stays"))
	q.Clause("Lifecycle: The container MUST be destroyed by undoing the steps performed during create phase (step 2).",
		lab.DeviatesUnless(undone, "the cgroup that create has made above the container's stays"))

	q.Step("delete keeps the bundle with what the program wrote, and the cgroup beside the container's")
	assert.Check(q, cmp.Equal(file.Read(q, c.Bundle.Config()), config))
	assert.Check(q, cmp.Equal(file.Read(q, c.Bundle.Rootfs("written")), "here"))
	assertDirsExist(q, neighbour.Dirs(), "the neighbour's cgroup %s is gone")
	q.Fact("the file that the program wrote, after delete", file.Read(q, c.Bundle.Rootfs("written")))

	q.Step("after delete the id is free: state and delete fail, and create succeeds")
	second := createAgain(q, c, p)

	q.Step("delete of a created container succeeds without --force, although the specification forbids it")
	deleteCreated := c.TryDelete()
	deleteRefused := deleteCreated.Code != 0 && file.Exists(c.StateDir()) && c.State().Status == specs.StateCreated
	q.Clause("Delete: Attempting to delete a container that is not stopped MUST have no effect on the "+
		"container and MUST generate an error.",
		lab.DeviatesUnless(deleteRefused, "a created container is killed and deleted; a running one is refused"))
	if deleteCreated.Code != 0 {
		c.Must("delete", "--force")
	}
	proc.WaitFor(q, proc.Dead(second.Identity))

	q.Control("delete --force kills and deletes a running container")
	forced := runc.Variant(q, b, "forced")
	third := forced.CreateAndStart()
	forced.Must("delete", "--force")
	proc.WaitFor(q, proc.Dead(third.Identity))
	assert.Check(q, !file.Exists(forced.StateDir()))
	check.NoCgroup(q, forced.Bundle.Spec.Linux.CgroupsPath)

	q.Step("kill returns before the process has ended: until then, delete is refused")
	deleteTooEarly(q, runc.Variant(q, b, "hurried"))

	q.Control("kill and delete of an ordinary container, at once: either may be faster, the end of the process or delete")
	deleteAtOnce(q, runc.Variant(q, b, "racing"))

	q.Step("make an empty cgroup at the container's path before create: delete removes it, as if create had made it")
	owned := runc.Variant(q, b, "owned")
	existing := makeEmptyCgroup(q, owned)
	owned.KillAndDelete(owned.CreateAndStart())
	kept := countExisting(existing)
	q.Fact("cgroups from before create that are kept", kept)
	q.Clause("Delete: Note that resources associated with the container, but not created by this container, MUST NOT be deleted.",
		lab.DeviatesUnless(kept == len(existing),
			"bundle and other cgroups are kept, but an empty cgroup that was at the container's path before goes with it"))

	q.Step("call delete without an id: it fails")
	withoutID := q.Exec("runc", "--root", c.Root, "delete")
	assert.Check(q, withoutID.Code != 0, "delete without an id succeeds:\n%s", withoutID)
	q.Clause("Delete: This operation MUST generate an error if it is not provided the container ID.", lab.Met)

	q.Answer("Delete removes the state directory and the container's cgroup. The kernel has removed namespaces and mounts with the last " +
		"process. The bundle stays, and so do the cgroups that create has made above the container's.")
}

// makeNeighbour makes a cgroup beside the container's. It has to be there until the end of the question.
func makeNeighbour(q *lab.Q) cgroup.Group {
	q.Helper()
	neighbour := cgroup.Of(q, filepath.Join(q.Cgroup, "neighbour"))
	for _, dir := range neighbour.Dirs() {
		assert.NilError(q, os.MkdirAll(dir, 0o755))
		q.Cleanup(func() { assert.Check(q, os.Remove(dir)) })
		q.LogCommand("mkdir -p %s", dir)
	}
	return neighbour
}

// assertDirsExist asserts that each of the directories exists. The message has a %s for the directory that does not.
func assertDirsExist(q *lab.Q, dirs []string, message string) {
	q.Helper()
	for _, dir := range dirs {
		assert.Check(q, file.Exists(dir), message, dir)
	}
}

// kindsAdded returns the kinds of things that the host has, and did not have before the container.
func kindsAdded(q *lab.Q, before host.Inventory) []string {
	q.Helper()
	kinds := map[string]int{}
	for _, change := range host.OwnedBy(host.Diff(before, q.TakeInventory()), q.Owner) {
		kinds[change.Kind]++
	}
	for _, kind := range []string{"cgroup", "process", "namespace", "directory"} {
		assert.Check(q, kinds[kind] > 0, "a running container adds no %s to the host: %v", kind, kinds)
	}
	return slices.Sorted(maps.Keys(kinds))
}

// createAgain asserts that the runtime does not know the deleted container p any more, and creates another container with its id.
func createAgain(q *lab.Q, c *runc.Container, p proc.Process) (second proc.Process) {
	q.Helper()
	for _, operation := range []string{"state", "delete"} {
		r := c.Try(operation)
		assert.Check(q, r.Code != 0, "%s of a deleted container succeeds:\n%s", operation, r)
		runc.AssertMessage(q, r.Stderr, "does not exist")
	}
	c.Create()
	second = c.Process()
	assert.Check(q, !second.Same(p.Identity))
	status := c.State().Status
	assert.Check(q, cmp.Equal(status, specs.StateCreated), "status of the second container with the id")
	q.Fact("a second container with the id is", status)
	return second
}

// deleteTooEarly calls delete after kill, while pid 1 of the container has not ended yet. The kernel ends pid 1 of a pid namespace after
// the last other process of it. That is an exec here, whose parent has to reap it; and the parent, runc exec, is stopped.
func deleteTooEarly(q *lab.Q, c *runc.Container) {
	killed := c.CreateAndStart()
	exec := q.StartBackground("runc", "--root", c.Root, "exec", c.ID, "sleep", "3601")
	group := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	executed := group.WaitForProgram("sleep", killed.PID)
	exec.Signal(unix.SIGSTOP)
	proc.WaitFor(q, proc.IsInState(exec.PID(), "T"))
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(executed.Identity))
	tooEarly := c.Try("delete")
	assert.Check(q, tooEarly.Code != 0, "delete succeeds although process %d has not ended yet:\n%s", killed.PID, tooEarly)
	assert.Check(q, proc.Alive(killed.PID), "process %d has ended before the other process of its pid namespace", killed.PID)
	q.Fact("delete, while a killed process ends: error", runc.LastLogMessage(tooEarly))
	q.Fact("delete, while a killed process ends: kernel function in which it sleeps (0: the kernel does not show it)",
		proc.WaitChannel(q, killed.PID))
	exec.Signal(unix.SIGCONT)
	proc.WaitFor(q, proc.Dead(killed.Identity))
	assert.Check(q, cmp.Equal(exec.ExitCode(), 128+int(unix.SIGKILL)), "exit code of the exec, which the end of pid 1 has killed")
	c.Delete()
}

// deleteAtOnce calls delete right after kill, and does not wait until the process has ended. If delete is refused, it is called again then.
func deleteAtOnce(q *lab.Q, c *runc.Container) {
	p := c.CreateAndStart()
	c.Kill("KILL")
	atOnce := c.Try("delete")
	q.Fact("delete right after kill: exit code", lab.Chance(strconv.Itoa(atOnce.Code)))
	proc.WaitFor(q, proc.Dead(p.Identity))
	if atOnce.Code != 0 {
		runc.AssertMessage(q, atOnce.Stderr, "not stopped|unable to remove container's cgroup")
		c.Delete()
	}
}

// removesMissingParent creates and deletes a container whose cgroup is in another cgroup, which did not exist. It reports whether delete
// removes that cgroup, too.
func removesMissingParent(q *lab.Q, b *bundle.Bundle) bool {
	q.Helper()
	deep, above := belowMissingCgroup(q, b, "deep")
	assert.Check(q, cmp.Equal(countExisting(above), 0), "cgroups that exist before create: %q", above)
	p := deep.CreateAndStart()
	assert.Check(q, countExisting(above) > 0, "create has made none of %q", above)
	deep.KillAndDelete(p)
	check.NoCgroup(q, deep.Bundle.Spec.Linux.CgroupsPath)
	return countExisting(above) == 0
}

// belowMissingCgroup is [runc.Variant] for a container whose cgroup is to be in another one, which does not exist. It also returns the
// directories that this other cgroup would have, one in each hierarchy.
func belowMissingCgroup(q *lab.Q, b *bundle.Bundle, name string, edits ...func(*specs.Spec)) (c *runc.Container, above []string) {
	q.Helper()
	path := filepath.Join(q.Cgroup, "above-"+name)
	above = cgroup.Of(q, path).Dirs()
	q.Cleanup(func() { // after the container's own cleanup
		for _, dir := range above {
			_ = os.Remove(dir)
		}
	})
	c = runc.Variant(q, b, name, append(edits, func(s *specs.Spec) {
		s.Linux.CgroupsPath = filepath.Join(path, filepath.Base(s.Linux.CgroupsPath))
	})...)
	return c, above
}

// makeEmptyCgroup makes the cgroup at the container's path, and returns its directories.
func makeEmptyCgroup(q *lab.Q, c *runc.Container) (dirs []string) {
	q.Helper()
	dirs = cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Dirs()
	for _, dir := range dirs {
		assert.NilError(q, os.MkdirAll(dir, 0o755))
		q.Cleanup(func() { _ = os.Remove(dir) })
		q.LogCommand("mkdir -p %s", dir)
	}
	return dirs
}

// countExisting returns how many of the directories exist.
func countExisting(dirs []string) (n int) {
	for _, dir := range dirs {
		if file.Exists(dir) {
			n++
		}
	}
	return n
}
