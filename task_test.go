//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// A shim appears with the task: not with the daemon, not with the image, not with the container.
//
// To containerd a container is a record and a snapshot. Only a task is a process, and for each task containerd starts a shim (the tasks
// of a pod share one), which it hands over to pid 1 (or the nearest subreaper) at once. The shim runs runc, becomes the parent of the
// container's process, and keeps both its stdio and its exit status. It answers on a socket of its own, so the daemon
// may die and come back: the shim holds the task meanwhile.
//
// `ctr tasks kill` without -s sends the image's StopSignal, or TERM if the image has none. A task's process is pid 1 of its pid
// namespace, to which the kernel delivers only signals that it has a handler for, except KILL and STOP from outside. sleep has none for
// TERM: so the chapter's cleanup needs `ctr tasks kill -s SIGKILL`, or a program with a handler.
//
// Hint: who is the parent of whom? Look at field 4 of /proc/PID/stat, and at /proc/PID/cwd of the shim.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#architecture
// Kernel: https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
func TestTask_WhereDoesTheShimAppearWhenContainerdStartsATask(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does the shim appear when containerd starts a task?")
	defer q.Recover()
	d := ctrd.Start(q)
	id := q.ID(ctrd.ContainerID)
	bundle := d.Bundle(id)

	q.Step("a daemon, a namespace, an image: no shim")
	d.Ctr("namespaces", "create", ctrd.Namespace)
	ref := d.PullImage()
	q.Fact("shims with an image", d.Shims())
	assert.Assert(q, cmp.Len(d.Shims(), 0))

	q.Step("a container: a record and a snapshot, still no shim, no bundle and no process")
	d.CreateContainer(ref, id, "sleep", "3600")
	assert.Check(q, cmp.Contains(d.Ctr("containers", "ls", "-q").Stdout, id))
	assert.Check(q, cmp.Contains(d.Ctr("snapshots", "ls").Stdout, id))
	assert.Check(q, cmp.Len(d.Shims(), 0))
	assert.Check(q, !file.Exists(bundle), "there is a bundle without a task: %s", bundle)
	q.Fact("shims with a container", d.Shims())

	q.Step("a task: one shim, and the program is its child")
	d.StartTask(id)
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims after tasks start")
	shim := proc.Snapshot(q, shims[0])
	q.Fact("shim", shim.PID)
	q.Fact("shim's command line", shim.Args)
	inits := proc.Children(q, shim.PID)
	assert.Assert(q, cmp.Len(inits, 1), "children of the shim")
	proc.WaitFor(q, proc.Runs(inits[0], "sleep"))
	init := proc.Snapshot(q, inits[0])
	assert.Check(q, cmp.DeepEqual(init.Args, []string{"sleep", "3600"}))
	q.Fact("the shim's child", init.PID)
	q.Fact("the child's command line", init.Args)

	q.Step("the shim's parent is the process that adopts orphans, the nearest subreaper or pid 1, and never containerd")
	assert.Check(q, shim.Parent != d.PID(), "containerd (%d) is the shim's parent", d.PID())
	adopter := proc.OrphanReaper(q)
	assert.Check(q, cmp.Equal(shim.Parent, adopter), "the shim's parent, and the process that adopts orphans")
	q.Fact("containerd", d.PID())
	q.Fact("shim's parent", shim.Parent)
	q.Fact("process that adopts orphans", adopter)

	q.Step("its working directory is the task's bundle, and its socket is named in it")
	recordTaskBundle(q, bundle, shim, init)
	socket := d.ShimSocket(id)
	recordListener(q, d, id, shim, socket)
	proc.WaitFor(q, proc.HasNoChildren(d.PID())) // it has waited for the helper that started the shim

	q.Step("ctr agrees with the kernel")
	row := listedAsRunning(q, d, id, init)
	q.Fact("ctr tasks ls", row[len(row)-1])
	ps := strings.Fields(d.Ctr("tasks", "ps", id).Stdout) // a line of headings, then a pid and what is known about it
	assert.Check(q, cmp.DeepEqual(ps, []string{"PID", "INFO", strconv.Itoa(int(init.PID)), "-"}), "ctr tasks ps")

	q.Step("containerd is killed: the shim holds the task")
	d.Kill()
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, init.PID).Identity, init.Identity))
	assert.Check(q, proc.Snapshot(q, shim.PID).Same(shim.Identity), "another process is now %d", shim.PID)
	failed := d.TryCtr("--connect-timeout", "1s", "tasks", "ls")
	assert.Check(q, failed.Code != 0, "ctr reached a daemon that is dead:\n%s", failed)
	recordDeadDaemon(q, d, init, failed)

	q.Step("containerd is back: it finds the same shim, and the same task")
	d.Start()
	assert.Check(q, cmp.DeepEqual(d.Shims(), shims))
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, init.PID).Identity, init.Identity))
	row = listedAsRunning(q, d, id, init)
	exec := d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "again", id, "echo", "still here")
	assert.Check(q, cmp.Equal(strings.TrimSpace(exec.Stdout), "still here"))
	q.Fact("after the restart: the shims", d.Shims())
	q.Fact("after the restart: pid and status of the task", []any{init.PID, row[2]})
	q.Fact("after the restart: output of an exec", strings.TrimSpace(exec.Stdout))

	q.Step("a second task gets a shim of its own")
	recordSecondTask(q, d, ref, shims)

	q.TearDown("the chapter's tasks kill sends TERM, for which sleep has no handler: the kernel drops it, and the task runs on", func() {
		assert.Check(q, !proc.Bits(q, init.PID, "SigCgt").Signal(unix.SIGTERM), "sleep has a handler for TERM")
		d.Ctr("tasks", "kill", id)
		recordDroppedTerm(q, d, id, init)
	})

	q.TearDown("control: KILL ends the task, and it is deleted; the container stays: no shim, no bundle, no socket", func() {
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Dead(init.Identity))
		proc.WaitFor(q, d.TaskStopped(id))
		assert.Check(q, cmp.DeepEqual(d.Shims(), shims), "a task that has ended keeps its shim, which keeps the exit status")
		d.DeleteTask(id)
		proc.WaitFor(q, proc.Dead(shim.Identity))
		recordShimGone(q, d, id, bundle, socket)
	})

	q.TearDown("cleanup, and its verification", func() { cleanUpAndVerify(q, d, id, ref) })

	q.Answer("The shim appears with the task, and not before: containerd starts one shim for each task (the tasks of a pod share one). " +
		"The shim, a child of pid 1 or the nearest subreaper, has the task's streams and exit status, so both live on when containerd dies. " +
		"To end the task, send KILL: pid 1 does not get a TERM for which it has no handler.")
}

// recordTaskBundle asserts that the shim's working directory is the bundle, which has the pid of the task's process in a file.
func recordTaskBundle(q *lab.Q, bundle string, shim, init proc.Process) {
	cwd := proc.Cwd(q, shim.PID)
	assert.Check(q, cmp.Equal(cwd, bundle))
	q.Fact("bundle", cwd)
	q.Fact("bundle: files", file.Names(q, bundle))
	pidFile, err := os.ReadFile(filepath.Join(bundle, "init.pid"))
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(string(pidFile), strconv.Itoa(int(init.PID))))
}

// listedAsRunning asserts that the line of the task in `ctr tasks ls` has its id, the pid of this process and RUNNING. It returns the line.
func listedAsRunning(q *lab.Q, d *ctrd.Daemon, id string, init proc.Process) []string {
	q.Helper()
	row := check.TableRow(q, d.Ctr("tasks", "ls").Stdout, id)
	assert.Check(q, cmp.DeepEqual(row, []string{id, strconv.Itoa(int(init.PID)), "RUNNING"}))
	return row
}

// recordDeadDaemon asserts that no process listens on containerd's socket, and records what there is without containerd.
func recordDeadDaemon(q *lab.Q, d *ctrd.Daemon, init proc.Process, failed lab.Result) {
	dialed := check.Dial(d.Address)
	assert.Check(q, cmp.ErrorIs(dialed, unix.ECONNREFUSED), "a stale socket, at which no process listens")
	q.Fact("while containerd is dead: the shims", d.Shims())
	q.Fact("while containerd is dead: the program is alive", init.Alive())
	q.Fact("while containerd is dead: exit code of ctr tasks ls", failed.Code)
	q.Fact("while containerd is dead: connecting to its socket", fmt.Sprint(dialed))
}

// recordSecondTask asserts that a second task has a second shim, which ends when the task is deleted.
func recordSecondTask(q *lab.Q, d *ctrd.Daemon, ref string, shims []proc.PID) {
	second := q.ID(ctrd.ContainerID + "-2")
	d.CreateContainer(ref, second, "sleep", "3600")
	d.StartTask(second)
	assert.Check(q, cmp.Len(d.Shims(), 2))
	q.Fact("shims with two tasks", len(d.Shims()))
	d.KillAndDeleteTask(second)
	d.Ctr("containers", "delete", second)
	proc.WaitFor(q, d.HasShims(1))
	assert.Check(q, cmp.DeepEqual(d.Shims(), shims), "the shims, after the second task was deleted")
}

// recordShimGone asserts that of a deleted task neither shim nor bundle nor socket is left, and that its container is still there.
func recordShimGone(q *lab.Q, d *ctrd.Daemon, id, bundle, socket string) {
	assert.Check(q, cmp.Len(d.Shims(), 0))
	assert.Check(q, !file.Exists(bundle), "the bundle is still there: %s", bundle)
	assert.Check(q, !proc.HasListener(q, socket), "a process listens on the socket %s", socket)
	assert.Check(q, cmp.Contains(d.Ctr("containers", "ls", "-q").Stdout, id))
	q.Fact("shims after tasks delete", len(d.Shims()))
	proc.WaitFor(q, proc.HasNoChildren(d.PID())) // its cleanup runs the shim's program once more
}

// recordListener asserts that the shim listens on its socket, which is named after the daemon, the namespace and the container.
func recordListener(q *lab.Q, d *ctrd.Daemon, id string, shim proc.Process, socket string) {
	assert.Check(q, cmp.Equal(filepath.Dir(socket), d.SocketDir))
	assert.Check(q, proc.Listens(q, shim, socket), "the shim does not listen on %s", socket)
	named := filepath.Base(socket) == d.SocketName(id)
	assert.Check(q, named, "the socket is %s, and the sha256 of address/namespace/id is %s", socket, d.SocketName(id))
	q.Fact("socket: its name is the sha256 of address/namespace/id", named)
}

// recordDroppedTerm asserts that the kernel has dropped TERM: the task runs on, and can't be deleted.
func recordDroppedTerm(q *lab.Q, d *ctrd.Daemon, id string, init proc.Process) {
	assert.Assert(q, init.Alive(), "process %d is dead, and TERM was sent to a pid 1 that has no handler for it", init.PID)
	assert.Check(q, !proc.Bits(q, init.PID, "ShdPnd").Signal(unix.SIGTERM), "TERM is pending: the kernel has not dropped it")
	status := check.TableCell(q, d.Ctr("tasks", "ls").Stdout, id, 2)
	assert.Check(q, cmp.Equal(status, "RUNNING"), "status of the task after TERM")
	refused := d.Refused("must be stopped before deletion", "tasks", "delete", id)
	q.Fact("after tasks kill, without -s: status of the task", status)
	q.Fact("after tasks kill, without -s: tasks delete", ctrd.CtrError(refused))
}

// cleanUpAndVerify deletes the container and the image, and asserts that the namespace is empty before it is removed.
func cleanUpAndVerify(q *lab.Q, d *ctrd.Daemon, id, ref string) {
	d.Ctr("containers", "delete", id)
	d.Ctr("images", "rm", "--sync", ref)
	for _, noun := range []string{"tasks", "containers", "images", "content"} {
		assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr(noun, "ls", "-q").Stdout), ""), "leftovers that %s ls lists", noun)
	}
	check.NoCgroup(q, "/"+ctrd.Namespace+"/"+id)
	d.Ctr("namespaces", "remove", ctrd.Namespace)
	assert.Check(q, !strings.Contains(d.Ctr("namespaces", "ls", "-q").Stdout, ctrd.Namespace))
}
