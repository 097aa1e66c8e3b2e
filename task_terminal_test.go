//go:build linux && vmlab

package cdblab

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/pipe"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The shim holds the master side of the task's pseudo terminal, and the program holds the slave side. A client has its own terminal and two
// FIFOs to the shim. So a client may end, and another one may attach later: the task keeps its terminal.
//
// runc sends the master to the shim, which copies between it and the FIFOs. There is no FIFO for stderr: a terminal has one stream. When
// the client's terminal changes its size, the client calls containerd (ResizePty), and the shim sets the size at the master. The kernel
// then sends SIGWINCH to the program. What the program writes while no client is there waits in the FIFO. The kernel hangs the
// terminal up only when the shim closes the master. The shim does so at the end of the input: a client has called CloseIO, and none has
// the FIFO of stdin open.
//
// Hint: `ls -l /proc/SHIM/fd` and tty-index in /proc/SHIM/fdinfo; start a task with --tty, kill ctr, and type `ctr tasks attach`.
// Spec: https://github.com/containerd/containerd/blob/main/api/services/tasks/v1/tasks.proto
// Kernel: https://man7.org/linux/man-pages/man7/pty.7.html, https://man7.org/linux/man-pages/man2/TIOCSWINSZ.2const.html
func TestTask_WhoHoldsTheTasksTerminal(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who holds the task's terminal?")
	defer q.Recover()
	d := ctrd.Shared(q)
	ref, id := d.PullImage(), q.ID(ctrd.ContainerID)

	q.Step("start a task with --tty on a terminal of 31 rows and 91 columns: the program has its own terminal of this size")
	d.CreateContainerWith([]string{"--tty"}, ref, id, "sh", "-c", obeysTerminal)
	terminal, slave := runc.NewTerminal(q)
	terminal.SetSize(31, 91)
	ctr := q.StartOnTerminal(slave, "ctr", "-n", d.Namespace, "tasks", "start", "--fifo-dir", d.FifoDir, id)
	terminal.ReadUntil("ready")
	init := proc.Snapshot(q, d.TaskPID(id))
	shim := proc.Snapshot(q, init.Parent)
	proc.WaitFor(q, proc.HasTerminalSize(init.PID, "31 91", 0))
	devpts := check.StatInRoot(q, init.PID, "/dev/pts").Dev
	assert.Check(q, cmp.DeepEqual(init.FDs, map[int]string{0: "/dev/pts/0", 1: "/dev/pts/0", 2: "/dev/pts/0"}), "descriptors of the program")
	assert.Check(q, cmp.Equal(proc.TTYNumber(q, init.PID), "136:0"), "controlling terminal of the program (tty_nr)")
	q.Fact("the program: descriptors", init.FDs)
	q.Fact("the program: device number of its controlling terminal", proc.TTYNumber(q, init.PID))

	q.Step("look for the master of this terminal: the shim has it, and neither ctr nor containerd")
	recordMasters(q, "shim", shim.PID, devpts, "0")
	recordMasters(q, "ctr", ctr.PID(), devpts)
	recordMasters(q, "containerd", d.PID(), devpts)
	fifos := taskFIFOs(q, d, id)
	recordTerminalFIFOs(q, id, shim, fifos)

	q.Step("type and read at ctr's terminal: stderr arrives there as well, through the FIFO of stdout")
	terminal.Type("echo $((6*7)) >&2\r")
	terminal.ReadUntil("42")

	q.Step("change the size of ctr's terminal: ctr calls containerd, and the program receives SIGWINCH and reads the new size")
	terminal.SetSize(32, 92)
	proc.WaitFor(q, proc.HasTerminalSize(init.PID, "32 92", ctr.PID()))
	terminal.ReadUntil("32 92")
	q.Fact("size after the change, by TIOCGWINSZ", proc.TerminalSize(init.PID))

	q.Step("kill ctr and close its terminal: the task keeps its own terminal, and its program runs on")
	ctr.Signal(unix.SIGKILL)
	ctr.ExitCode()
	terminal.HangUp()
	assert.NilError(q, slave.Close())
	assert.Check(q, proc.Snapshot(q, init.PID).Same(init.Identity), "the task's process has ended with ctr")
	assert.Check(q, cmp.DeepEqual(proc.Masters(q, shim.PID, devpts), []string{"0"}), "masters of the shim, after the end of ctr")
	assert.Check(q, cmp.Equal(proc.TTYNumber(q, init.PID), "136:0"), "controlling terminal of the program, after the end of ctr")
	q.Fact("after the end of ctr: device number of the controlling terminal", proc.TTYNumber(q, init.PID))
	q.Fact("after the end of ctr: status", d.TaskStatus(id).Status)

	q.Step("change the size by the Go client, which has no terminal: what the program writes now waits in the FIFO")
	q.LogCommand("# Go client: task.Resize(ctx, 93, 33)")
	assert.NilError(q, d.Task(id).Resize(context.Background(), 93, 33))
	assert.Check(q, cmp.Equal(proc.TerminalSize(init.PID), "33 93"), "size after Resize")
	recordUnread(q, fifos[1])

	q.Step("attach another ctr, on a terminal of 41 rows and 101 columns: it prints what has waited, and its terminal gives the size")
	terminal, slave = runc.NewTerminal(q)
	terminal.SetSize(41, 101)
	ctr = q.StartOnTerminal(slave, "ctr", "-n", d.Namespace, "tasks", "attach", id)
	waited := terminal.ReadUntil("33 93")
	proc.WaitFor(q, proc.HasTerminalSize(init.PID, "41 101", 0))
	terminal.ReadUntil("41 101")
	terminal.Type("echo $((6*9))\r")
	terminal.ReadUntil("54")
	q.Fact("attached: what has waited", strconv.Quote(waited[strings.LastIndex(waited, "\n")+1:]))
	q.Fact("attached: size", proc.TerminalSize(init.PID))

	q.Step("end this client, and call CloseIO: the shim closes the master, and the kernel sends SIGHUP to the program")
	ctr.Signal(unix.SIGKILL)
	ctr.ExitCode()
	assert.Check(q, proc.Alive(init.PID), "the task's process has ended with the second ctr")
	q.LogCommand("# Go client: task.CloseIO(ctx, WithStdinCloser)")
	assert.NilError(q, d.Task(id).CloseIO(context.Background(), containerd.WithStdinCloser))
	proc.WaitFor(q, d.TaskStopped(id))
	status := d.TaskStatus(id).ExitStatus
	assert.Check(q, cmp.Equal(status, uint32(8)), "exit status of the program, which exits with 8 on SIGHUP")
	assert.Check(q, cmp.Len(proc.Masters(q, shim.PID, devpts), 0), "masters of the shim after CloseIO")
	q.Fact("CloseIO: exit status of a program that exits with 8 on SIGHUP", status)
	d.DeleteTask(id)

	q.Control("a task without --tty: the shim has no master, the program no terminal, and there are three FIFOs")
	plain := q.ID(ctrd.ContainerID + "-plain")
	d.CreateContainer(ref, plain, "sleep", "3600")
	plainInit := d.StartTaskAndWait(plain)
	assert.Check(q, cmp.Equal(proc.TTYNumber(q, plainInit.PID), "0:0"), "controlling terminal without --tty")
	devpts = check.StatInRoot(q, plainInit.PID, "/dev/pts").Dev
	assert.Check(q, cmp.Len(proc.Masters(q, plainInit.Parent, devpts), 0), "masters of the shim without --tty")
	fifos = taskFIFOs(q, d, plain)
	assert.Check(q, cmp.Len(fifos, 3), "FIFOs without --tty")
	q.Fact("without --tty: device number of the controlling terminal", proc.TTYNumber(q, plainInit.PID))
	q.Fact("without --tty: FIFOs", len(fifos))
	d.KillAndDeleteTask(plain)

	q.Answer("The shim holds the master of the task's terminal, and the program the slave. A client has only FIFOs to the shim, so it may " +
		"end, and another one may attach. A new size reaches the program by a call to containerd.")
}

// recordUnread asserts that the new size waits in the FIFO of stdout, and leaves it there.
func recordUnread(q *lab.Q, fifo string) {
	unread := pipe.OpenReader(q, fifo)
	proc.WaitFor(q, pipe.HasText(unread, "33 93\r\n"))
	waiting, err := pipe.Peek(unread)
	assert.NilError(q, err)
	q.Fact("written while no client is there: in the FIFO", strings.TrimSpace(string(waiting)))
	assert.NilError(q, unread.Close())
}

// obeysTerminal is a shell script that prints the size when it gets SIGWINCH, and executes what is typed.
const obeysTerminal = `trap 'stty size' WINCH; trap 'exit 8' HUP; echo ready; while :; do read -r line && eval "$line"; done`

// taskFIFOs returns the FIFOs between a task's client and its shim.
func taskFIFOs(q *lab.Q, d *ctrd.Daemon, id string) []string {
	fifos, err := filepath.Glob(filepath.Join(d.FifoDir, "*", id+"-std*"))
	assert.NilError(q, err)
	return fifos
}

// recordTerminalFIFOs asserts that the FIFOs are those of stdin and stdout, and that the shim holds both ends of each.
func recordTerminalFIFOs(q *lab.Q, id string, shim proc.Process, fifos []string) {
	streams := []string{}
	for _, fifo := range fifos {
		proc.WaitFor(q, proc.HasAccessModes(shim.PID, fifo, "read", "write")) // the shim opens its ends in the background
		streams = append(streams, strings.TrimPrefix(filepath.Base(fifo), id+"-"))
	}
	assert.Assert(q, cmp.DeepEqual(streams, []string{"stdin", "stdout"}), "FIFOs between ctr and the shim")
	q.Fact("FIFOs between ctr and the shim", streams)
}

// recordMasters asserts of which terminals in the task's devpts a process has the master, by their numbers.
func recordMasters(q *lab.Q, name string, pid proc.PID, devpts uint64, want ...string) {
	masters := proc.Masters(q, pid, devpts)
	want = append([]string{}, want...) // not nil
	assert.Check(q, cmp.DeepEqual(masters, want), "numbers of the terminals in the task's devpts of which %s has the master", name)
	terminals := []string{} // as the program names them
	for _, number := range masters {
		terminals = append(terminals, "/dev/pts/"+number)
	}
	q.Fact(name+": holds the master of", terminals)
}
