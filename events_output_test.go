//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Into a pipe; what is behind it was said at the start: a FIFO, a file, another program, or nothing at all.
//
// The daemon is never in between. The shim reads the pipe and copies to a FIFO, which whoever started the task reads,
// or to a file; a binary logger gets the pipe's other end itself, as its descriptor 3, and is a child of the shim's. So
// output goes on while containerd is down. But somebody has to read: with nobody at the FIFO, the program writes until
// pipe, shim and FIFO are full, and then sleeps in write(2). And a logger that dies takes the pipe's only reader with
// it.
//
// Hint: `ls -l /proc/PID/fd` of program, shim and logger; /proc/PID/{syscall,wchan,io} of a program that hangs.
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md, "Container IO"
// Kernel: https://man7.org/linux/man-pages/man7/pipe.7.html, "Pipe capacity"
func TestEvents_WhereDoesTheProgramsOutputGo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does the program's output go?")
	out := q.Mkdir("out")
	logger := q.WriteWrapper("logger", `exec >> `+out+`/logged 2>&1
echo "id=$CONTAINER_ID namespace=$CONTAINER_NAMESPACE arguments=$*"
echo $$ > `+out+`/pid
exec 5>&-   # ready
while read -r line; do echo "stdout: $line"; done <&3`)

	d := ctrd.Start(q)
	ref := d.PullImage()

	q.Step("attached: ctr makes FIFOs, reads them, and prints what it reads")
	attached := q.ID("cdb-attached")
	d.CreateContainer(ref, attached, "echo", "said by "+attached)
	assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr("tasks", "start", "--fifo-dir", d.FifoDir, attached).Stdout), "said by "+attached))
	q.Fact("ctr prints", "what the program said")

	unread(q, d, ref)

	q.Step("a file: the shim copies from the pipe into it")
	path := filepath.Join(out, "file")
	id := q.ID("cdb-file")
	init, shim := startShell(q, d, ref, id, talker, "--log-uri", "file://"+path)
	assert.Check(q, cmp.DeepEqual(holds(q, shim, init.FDs[1]), []string{"read"}), "how the shim holds the program's %s", init.FDs[1])
	assert.Check(q, slices.Contains(holds(q, shim, path), "write"), "how the shim holds %s", path)
	q.SendLine(init, "word 1")
	proc.WaitFor(q, file.HasContent(path, "word 1"))
	q.Fact("the shim holds", "the pipe to read, the file to write")

	q.Step("containerd is killed: the output goes on, for the daemon had no part in it")
	assert.Check(q, cmp.Len(holds(q, proc.Snapshot(q, d.PID()), init.FDs[1]), 0), "the daemon holds the pipe")
	assert.Check(q, cmp.Len(holds(q, proc.Snapshot(q, d.PID()), path), 0), "the daemon holds the file")
	d.Kill()
	q.SendLine(init, "word 2")
	proc.WaitFor(q, file.HasContent(path, "word 1\nword 2"))
	d.Start()
	q.SendLine(init, "word 3")
	proc.WaitFor(q, file.HasContent(path, "word 1\nword 2\nword 3"))
	q.Fact("said before, while and after", strings.ReplaceAll(file.Read(q, path), "\n", ", "))

	q.Step("a binary logger: the pipe's other end is its own, and it is the shim's child, not the container's")
	id = q.ID("cdb-binary")
	init, shim = startShell(q, d, ref, id, talker, "--log-uri", "binary://"+logger+"?level=high")
	l := proc.Snapshot(q, proc.PID(check.Int(q, file.Read(q, filepath.Join(out, "pid")))))
	assert.Check(q, cmp.Equal(l.Parent, shim.PID), "the logger's parent")
	assert.Check(q, cmp.DeepEqual(l.Cgroups, shim.Cgroups), "the logger's cgroup, and the shim's")
	assert.Check(q, cmp.Len(l.OwnNamespaces(proc.Self(q).Identity), 0), "namespaces of the logger's own")
	assert.Check(q, cmp.Equal(l.FDs[3], init.FDs[1]), "the logger's descriptor 3, and the program's stdout")
	assert.Check(q, cmp.Equal(l.FDs[4], init.FDs[2]), "the logger's descriptor 4, and the program's stderr")
	assert.Check(q, cmp.Equal(accessMode(q, l, 3), "read"))
	q.SendLine(init, "word 1")
	told := "id=" + id + " namespace=" + d.Namespace + " arguments=level high"
	proc.WaitFor(q, file.HasContent(filepath.Join(out, "logged"), told+"\nstdout: word 1"))
	q.Fact("the logger's parent", "the shim")
	q.Fact("its descriptors 3 and 4", "the program's stdout and stderr")
	q.Fact("it is told", "id, namespace, level high")

	q.Step("the logger dies, and nobody starts another")
	shimReads := slices.Contains(holds(q, shim, init.FDs[1]), "read")
	q.KillProcess(l)
	proc.WaitFor(q, proc.Dead(l.Identity))
	q.SendLine(init, "word 2")
	if !shimReads {
		// Pid 1 of a pid namespace is not killed by SIGPIPE, so it lives to see EPIPE.
		proc.WaitFor(q, file.HasContent(filepath.Join("/proc", fmt.Sprint(init.PID), "root", "failed"), "word 2"))
		q.Fact("the next write", "fails: the pipe has no reader")
	} else {
		assert.Check(q, !q.Pinned(), "the shim holds the reading end of the pipe")
		q.Fact("the next write", "goes into a pipe that nobody reads: the shim holds it open")
	}
	assert.Check(q, proc.Snapshot(q, init.PID).Same(init.Identity))
	assert.Check(q, cmp.Equal(check.TableRow(q, d.Ctr("tasks", "ls").Stdout, id)[2], "RUNNING"))
	assert.Check(q, cmp.Equal(file.Read(q, filepath.Join(out, "logged")), told+"\nstdout: word 1"))
	q.Fact("the task", "RUNNING")

	q.Answer("Into a pipe, and on by the shim to a FIFO or a file, or straight to a logger. If nobody reads, the program stops.")
}

// unread asks what happens to a program whose output nobody reads.
func unread(q *lab.Q, d *ctrd.Daemon, ref string) {
	q.Helper()
	// Whole pages, for a pipe is full when it has no page left.
	block, blocks := os.Getpagesize(), 100
	writer := fmt.Sprintf(`mkfifo /told; exec 3<>/told; read -r go <&3
dd if=/dev/zero bs=%d count=%d 2>/dev/null; exec sleep 300`, block, blocks)

	q.Step("detached, with a FIFO that nobody reads: the program writes until all is full, and then sleeps in write(2)")
	id := q.ID("cdb-fifo")
	// It begins when it is told to: until it ends, ctr reads the FIFO, detached or not.
	init, shim := startShell(q, d, ref, id, writer, "--fifo-dir", d.FifoDir)
	q.SendLine(init, "go")
	pipe := init.FDs[1]
	var fifo string
	for _, target := range check.FDTargets(shim) {
		if strings.HasPrefix(target, d.FifoDir) && strings.HasSuffix(target, "stdout") {
			fifo = target
		}
	}
	assert.Assert(q, fifo != "", "the shim holds no FIFO in %s: %v", d.FifoDir, check.FDTargets(shim))
	assert.Check(q, strings.HasPrefix(pipe, "pipe:"), "the program's stdout is %s", pipe)
	assert.Check(q, cmp.DeepEqual(holds(q, shim, pipe), []string{"read"}), "how the shim holds the program's %s", pipe)
	// It holds the FIFO's reading end, too, so that it can open and write, whoever comes and goes at the other.
	assert.Check(q, cmp.DeepEqual(holds(q, shim, fifo), []string{"read", "write"}), "how the shim holds %s", fifo)
	q.Fact("the program's stdout", "a pipe")
	q.Fact("the shim holds", "the pipe to read, the FIFO to write and to read")

	pipeEnd := openReader(q, "/proc/"+fmt.Sprint(shim.PID)+"/fd/"+fmt.Sprint(fdOf(q, shim, pipe, "read")))
	reader := openReader(q, fifo)
	proc.WaitFor(q, full(reader))
	proc.WaitFor(q, full(pipeEnd))
	dd := proc.Snapshot(q, childOf(q, init, "dd"))
	proc.WaitFor(q, proc.SleepsIn(dd.PID, unix.SYS_WRITE))
	inPipe, inFIFO := capacity(pipeEnd), capacity(reader)
	wrote := written(q, dd.PID)
	const buffer = 32 << 10 // what the shim has read and not yet written
	assert.Check(q, wrote >= inPipe+inFIFO && wrote <= inPipe+inFIFO+buffer && wrote < block*blocks,
		"%d bytes are written, %d are in the pipe, %d in the FIFO", wrote, inPipe, inFIFO)
	assert.Check(q, cmp.Equal(proc.CurrentSyscall(q, dd.PID).Args[0], uint64(1)), "the descriptor that it writes to")
	channel := proc.WaitChannel(q, dd.PID)
	assert.Check(q, channel == "0" || strings.Contains(channel, "pipe"), "it sleeps in %s", channel)
	q.Fact("bytes in pipe and FIFO", []int{inPipe, inFIFO})
	q.Fact("bytes written", lab.Chance(strconv.Itoa(wrote)))
	q.Fact("it sleeps in write to descriptor", proc.CurrentSyscall(q, dd.PID).Args[0])

	q.Step("the FIFO is read by hand: the program goes on, and not one byte is lost")
	assert.NilError(q, pipeEnd.Close())
	q.LogCommand("cat %s | head -c %d | wc -c", fifo, block*blocks)
	assert.NilError(q, reader.SetReadDeadline(time.Now().Add(proc.Patience)))
	got := make([]byte, block*blocks)
	n, err := io.ReadFull(reader, got)
	assert.NilError(q, err, "%d bytes", n)
	assert.Check(q, cmp.Equal(len(bytes.Trim(got, "\x00")), 0), "bytes that are not what was written")
	proc.WaitFor(q, proc.Dead(dd.Identity))
	proc.WaitFor(q, proc.Runs(init.PID, "sleep"))
	assert.Check(q, cmp.Equal(backlog(reader), 0))
	q.Fact("bytes read", n)

	q.Control("with --null-io the same program never blocks, and there is no pipe")
	null, _ := startShell(q, d, ref, q.ID("cdb-null"), writer, "--null-io")
	q.SendLine(null, "go")
	proc.WaitFor(q, proc.Runs(null.PID, "sleep"))
	assert.Check(q, cmp.Equal(null.FDs[1], "/dev/null"))
	q.Fact("its stdout", null.FDs[1])
}

// talker says what it is told, and notes in the file /failed what it could not. It holds both ends of the FIFO, which
// so never ends, whoever comes and goes.
const talker = `mkfifo /told; exec 3<>/told; while read -r word <&3; do echo "$word" || echo "$word" > /failed; done`

// startShell starts a task that runs a script of the shell's; with options of tasks start that say where its output goes.
func startShell(q *lab.Q, d *ctrd.Daemon, ref, id, script string, options ...string) (init, shim proc.Process) {
	q.Helper()
	d.CreateContainer(ref, id, "sh", "-c", script)
	d.Ctr(append(append([]string{"tasks", "start", "-d"}, options...), id)...)
	proc.WaitFor(q, proc.Runs(d.TaskPID(id), "sh"))
	init = proc.Snapshot(q, d.TaskPID(id))
	return init, proc.Snapshot(q, init.Parent)
}

// holds lists how a process holds a file, to read, to write or both; sorted, without repetition.
func holds(q *lab.Q, p proc.Process, target string) []string {
	q.Helper()
	out := []string{}
	for fd, t := range p.FDs {
		if t != target {
			continue
		}
		if mode := accessMode(q, p, fd); mode != "path" { // O_PATH: to name it, neither to read nor to write
			out = append(out, mode)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// fdOf is a descriptor of the process by which it holds a file so.
func fdOf(q *lab.Q, p proc.Process, target, mode string) int {
	q.Helper()
	for fd, t := range p.FDs {
		if t == target && accessMode(q, p, fd) == mode {
			return fd
		}
	}
	q.Fatalf("process %d holds no %s to %s: %v", p.PID, target, mode, p.FDs)
	return -1
}

// accessMode reads a descriptor's flags in /proc/PID/fdinfo, which are in octal.
func accessMode(q *lab.Q, p proc.Process, fd int) string {
	q.Helper()
	for line := range strings.Lines(proc.File(q, p.PID, "fdinfo/"+fmt.Sprint(fd))) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "flags:" {
			flags, err := strconv.ParseUint(f[1], 8, 32)
			assert.NilError(q, err)
			if flags&unix.O_PATH != 0 {
				return "path"
			}
			return []string{"read", "write", "both", "none"}[flags&unix.O_ACCMODE]
		}
	}
	q.Fatalf("descriptor %d of process %d has no flags", fd, p.PID)
	return ""
}

// openReader opens a pipe or a FIFO to read, without waiting for a writer.
func openReader(q *lab.Q, path string) *os.File {
	q.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	assert.NilError(q, err)
	q.TB.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			q.Errorf("close %s: %v", path, err)
		}
	})
	return f
}

// backlog is how many bytes are in a pipe (FIONREAD of pipe(7), which has another name, too).
func backlog(f *os.File) int {
	return control(f, func(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCINQ) })
}

// capacity is how many bytes a pipe takes.
func capacity(f *os.File) int {
	return control(f, func(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0) })
}

// control asks the kernel about an open file; -1 where it does not say.
func control(f *os.File, ask func(fd int) (int, error)) int {
	n := -1
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if got, err := ask(int(fd)); err == nil {
				n = got
			}
		})
	}
	if err != nil {
		return -1
	}
	return n
}

// full is a poll check: the pipe is full.
func full(f *os.File) poll.Check {
	return func(poll.LogT) poll.Result {
		if n, all := backlog(f), capacity(f); n <= 0 || n != all {
			return poll.Continue("%d bytes are in %s, which takes %d", n, f.Name(), all)
		}
		return poll.Success()
	}
}

// written is how many bytes a process has written by system calls that have returned (wchar of proc_pid_io(5)).
func written(q *lab.Q, pid proc.PID) int {
	q.Helper()
	for line := range strings.Lines(proc.File(q, pid, "io")) {
		if f := strings.Fields(line); f[0] == "wchar:" {
			return check.Int(q, f[1])
		}
	}
	q.Fatalf("/proc/%d/io has no wchar", pid)
	return -1
}

// childOf is the child of a process that runs a program.
func childOf(q *lab.Q, p proc.Process, comm string) proc.PID {
	q.Helper()
	for _, child := range proc.Children(q, p.PID) {
		if proc.File(q, child, "comm") == comm {
			return child
		}
	}
	q.Fatalf("no child of %d runs %s", p.PID, comm)
	return -1
}
