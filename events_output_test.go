//go:build linux && vmlab

package cdblab

import (
	"bytes"
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

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/pipe"
	"cdblab/helpers/proc"
)

// The program writes into a pipe, and the shim copies from the pipe to a FIFO or a file. The options of ctr's `tasks start` decide that.
// A logger, which is any program that reads output, may read the pipe instead of the shim.
//
// containerd is never in between, so output goes on while it is down. The client that started the task reads the FIFO. A logger
// (--log-uri binary://) is a child of the shim, and has the pipes of stdout and stderr as its descriptors 3 and 4.
//
// A FIFO that has a reader which does not read becomes full: the program writes until pipe, shim and FIFO are full, and then sleeps
// in write(2). The shim itself holds such a reading end. A pipe that has lost its only reader is something else: when the logger dies,
// the program's next write fails with EPIPE.
//
// Hint: `ls -l /proc/PID/fd` of program, shim and logger; /proc/PID/{syscall,wchan,io} of a program that hangs.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#io
// Kernel: https://man7.org/linux/man-pages/man7/pipe.7.html, "Pipe capacity"
func TestEvents_WhereDoesTheProgramsOutputGo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does the program's output go?")
	defer q.Recover()
	out := q.Mkdir("out")
	logger := q.WriteWrapper("logger", `exec >> `+out+`/logged 2>&1
echo "id=$CONTAINER_ID namespace=$CONTAINER_NAMESPACE arguments=$*"
echo $$ > `+out+`/pid
exec 5>&-   # closed: the shim waits for this before it starts the task
while read -r line; do echo "stdout: $line"; done <&3`)

	d := ctrd.Start(q)
	ref := d.PullImage()

	q.Step("start a task that is attached: ctr makes FIFOs, reads them, and prints what it reads")
	attached := q.ID("cdb-attached")
	// It stays until its words are there: when a program ends, ctr deletes the task, and may lose what it has not read yet.
	d.CreateContainer(ref, attached, "sh", "-c", "echo said by "+attached+"; exec sleep 3600")
	printed := filepath.Join(out, "printed")
	ctr := q.StartBackground("sh", "-c", fmt.Sprintf("exec ctr -n %s tasks start --fifo-dir %s %s > %s", d.Namespace, d.FifoDir, attached, printed))
	proc.WaitFor(q, file.HasContent(printed, "said by "+attached))
	d.Ctr("tasks", "kill", "-s", "SIGKILL", attached)
	assert.Check(q, cmp.Equal(ctr.ExitCode(), 128+int(unix.SIGKILL)), "exit code of ctr: %s", ctr.Stderr())
	q.Fact("ctr prints", file.Read(q, printed))

	outputWithoutReader(q, d, ref)

	q.Step("start a task with a file for its output: the shim copies from the pipe into it")
	path := filepath.Join(out, "file")
	id := q.ID("cdb-file")
	init, shim := startScript(q, d, ref, id, echoScript, "--log-uri", "file://"+path)
	stdout := init.FDs[1]
	holdsPipe, holdsFile := proc.AccessModes(q, shim, stdout), proc.AccessModes(q, shim, path)
	assert.Check(q, cmp.DeepEqual(holdsPipe, []string{"read"}), "how the shim holds the program's %s", stdout)
	assert.Check(q, slices.Contains(holdsFile, "write"), "how the shim holds %s: %v", path, holdsFile)
	q.SendLine(init, "word 1")
	proc.WaitFor(q, file.HasContent(path, "word 1"))
	q.Fact("with a file: how the shim holds the pipe", holdsPipe)
	q.Fact("with a file: how the shim holds the file", slices.Compact(holdsFile))

	q.Step("kill containerd: the output goes on, because the daemon had no part in it")
	daemon := proc.Snapshot(q, d.PID())
	assert.Check(q, cmp.Len(proc.AccessModes(q, daemon, stdout), 0), "the daemon holds the pipe")
	assert.Check(q, cmp.Len(proc.AccessModes(q, daemon, path), 0), "the daemon holds the file")
	d.Kill()
	q.SendLine(init, "word 2")
	proc.WaitFor(q, file.HasContent(path, "word 1\nword 2"))
	d.Start()
	q.SendLine(init, "word 3")
	proc.WaitFor(q, file.HasContent(path, "word 1\nword 2\nword 3"))
	q.Fact("written before, during and after the kill", strings.ReplaceAll(file.Read(q, path), "\n", ", "))

	q.Step("start a task with a binary logger: it has the pipe's other end, and is a child of the shim, outside of the container")
	id = q.ID("cdb-binary")
	init, shim = startScript(q, d, ref, id, echoScript, "--log-uri", "binary://"+logger+"?level=high")
	loggerProcess := proc.Snapshot(q, proc.PID(check.Int(q, file.Read(q, filepath.Join(out, "pid")))))
	assert.Check(q, cmp.Equal(loggerProcess.Parent, shim.PID), "the logger's parent")
	assert.Check(q, cmp.DeepEqual(loggerProcess.Cgroups, shim.Cgroups), "the logger's cgroup, and the shim's")
	assert.Check(q, cmp.Len(loggerProcess.OwnNamespaces(proc.Self(q).Identity), 0), "namespaces of the logger's own")
	assert.Check(q, cmp.Equal(loggerProcess.FDs[3], init.FDs[1]), "the logger's descriptor 3, and the program's stdout")
	assert.Check(q, cmp.Equal(loggerProcess.FDs[4], init.FDs[2]), "the logger's descriptor 4, and the program's stderr")
	assert.Check(q, cmp.Equal(proc.AccessMode(q, loggerProcess.PID, 3), "read"))
	q.SendLine(init, "word 1")
	environment := "id=" + id + " namespace=" + d.Namespace + " arguments=level high"
	proc.WaitFor(q, file.HasContent(filepath.Join(out, "logged"), environment+"\nstdout: word 1"))
	q.Fact("the logger's parent", loggerProcess.Parent)
	q.Fact("the shim", shim.PID)
	names := map[string]string{init.FDs[1]: "the program's stdout", init.FDs[2]: "the program's stderr"}
	q.Fact("the logger's descriptors 3 and 4", []string{names[loggerProcess.FDs[3]], names[loggerProcess.FDs[4]]})
	given, _, _ := strings.Cut(file.Read(q, filepath.Join(out, "logged")), "\n")
	q.Fact("the logger is given", given)

	q.Step("kill the logger: no other is started, and the program's next write fails")
	ofShim := proc.AccessModes(q, shim, init.FDs[1])
	assert.Check(q, !slices.Contains(ofShim, "read"), "the shim holds the reading end of the pipe as well, and does not read: %v", ofShim)
	q.KillProcess(loggerProcess)
	proc.WaitFor(q, proc.Dead(loggerProcess.Identity))
	q.SendLine(init, "word 2")
	// Pid 1 of a pid namespace is not killed by SIGPIPE, so it lives to see EPIPE.
	unwritten := filepath.Join("/proc", fmt.Sprint(init.PID), "root", "failed")
	proc.WaitFor(q, file.HasContent(unwritten, "word 2"))
	q.Fact("what the program could not write, because the pipe has no reader", file.Read(q, unwritten))
	assert.Check(q, proc.Snapshot(q, init.PID).Same(init.Identity))
	status := check.TableCell(q, d.Ctr("tasks", "ls").Stdout, id, 2)
	assert.Check(q, cmp.Equal(status, "RUNNING"), "status of the task without its logger")
	assert.Check(q, cmp.Equal(file.Read(q, filepath.Join(out, "logged")), environment+"\nstdout: word 1"))
	q.Fact("the task: status", status)

	q.Answer("The program's output goes into a pipe. The shim reads the pipe and writes to a FIFO or a file, or a logger reads the pipe " +
		"directly. If no process reads the FIFO, the program waits. If the logger is dead, the program's writes fail.")
}

// outputWithoutReader asks what happens to a program whose output no process reads.
func outputWithoutReader(q *lab.Q, d *ctrd.Daemon, ref string) {
	q.Helper()
	// Whole pages, because a pipe is full when it has no page left.
	block, blocks := os.Getpagesize(), 100
	writer := fmt.Sprintf(`mkfifo /told; exec 3<>/told; read -r go <&3
dd if=/dev/zero bs=%d count=%d 2>/dev/null; exec sleep 3600`, block, blocks)

	q.Step("start a task with a FIFO that no process reads: the program writes until all is full, and then sleeps in write(2)")
	id := q.ID("cdb-fifo")
	// The program waits for a line before it writes. Even with --detach, ctr reads the FIFO until ctr ends.
	init, shim := startScript(q, d, ref, id, writer, "--fifo-dir", d.FifoDir)
	q.SendLine(init, "go")
	stdout := init.FDs[1]
	var fifo string
	for _, target := range check.FDTargets(shim) {
		if strings.HasPrefix(target, d.FifoDir) && strings.HasSuffix(target, "stdout") {
			fifo = target
		}
	}
	assert.Assert(q, fifo != "", "the shim holds no FIFO in %s: %v", d.FifoDir, check.FDTargets(shim))
	kind, _, _ := strings.Cut(stdout, ":")
	assert.Check(q, cmp.Equal(kind, "pipe"), "the program's stdout is %s", stdout)
	holdsPipe, holdsFIFO := proc.AccessModes(q, shim, stdout), proc.AccessModes(q, shim, fifo)
	assert.Check(q, cmp.DeepEqual(holdsPipe, []string{"read"}), "how the shim holds the program's %s", stdout)
	// It holds the FIFO's reading end, too: so it can open and write the FIFO whether or not another process reads it.
	assert.Check(q, cmp.DeepEqual(holdsFIFO, []string{"read", "write"}), "how the shim holds %s", fifo)
	q.Fact("the program's stdout: its kind", kind)
	q.Fact("with a FIFO: how the shim holds the pipe", holdsPipe)
	q.Fact("with a FIFO: how the shim holds the FIFO", holdsFIFO)

	// Two more readers, which only look how much is in it, change nothing: they do not read yet.
	pipeReader := pipe.OpenReader(q, fmt.Sprintf("/proc/%d/fd/%d", shim.PID, proc.FindFD(q, shim, stdout, "read")))
	fifoReader := pipe.OpenReader(q, fifo)
	proc.WaitFor(q, pipe.IsFull(fifoReader))
	proc.WaitFor(q, pipe.IsFull(pipeReader))
	dd := proc.Snapshot(q, proc.FindChild(q, init.PID, "dd"))
	proc.WaitFor(q, proc.SleepsIn(dd.PID, unix.SYS_WRITE))
	inPipe, inFIFO := pipe.Capacity(pipeReader), pipe.Capacity(fifoReader)
	written := proc.WrittenBytes(q, dd.PID)
	const shimBuffer = 32 << 10 // bytes, at most, that the shim has read and not yet written
	assert.Check(q, written >= inPipe+inFIFO && written <= inPipe+inFIFO+shimBuffer && written < block*blocks,
		"%d bytes are written, %d are in the pipe, %d in the FIFO", written, inPipe, inFIFO)
	assert.Check(q, cmp.Equal(proc.CurrentSyscall(q, dd.PID).Args[0], uint64(1)), "the descriptor that it writes to")
	channel := proc.WaitChannel(q, dd.PID)
	assert.Check(q, channel == "0" || strings.Contains(channel, "pipe"), "it sleeps in %s", channel)
	q.Fact("bytes in pipe and FIFO", []int{inPipe, inFIFO})
	q.Fact("bytes written", lab.Chance(strconv.Itoa(written)))
	q.Fact("it sleeps in write to descriptor", proc.CurrentSyscall(q, dd.PID).Args[0])

	q.Step("read the FIFO: the program goes on, and not one byte is lost")
	assert.NilError(q, pipeReader.Close())
	q.LogCommand("cat %s | head -c %d | wc -c", fifo, block*blocks)
	assert.NilError(q, fifoReader.SetReadDeadline(time.Now().Add(proc.Patience)))
	got := make([]byte, block*blocks)
	n, err := io.ReadFull(fifoReader, got)
	assert.NilError(q, err, "%d bytes", n)
	assert.Check(q, cmp.Equal(len(bytes.Trim(got, "\x00")), 0), "bytes that are not zero, as all that was written")
	proc.WaitFor(q, proc.Dead(dd.Identity))
	proc.WaitFor(q, proc.Runs(init.PID, "sleep"))
	assert.Check(q, cmp.Equal(pipe.Buffered(fifoReader), 0))
	q.Fact("bytes read", n)

	q.Control("start the same program with --null-io: it never blocks, and there is no pipe")
	null, _ := startScript(q, d, ref, q.ID("cdb-null"), writer, "--null-io")
	q.SendLine(null, "go")
	proc.WaitFor(q, proc.Runs(null.PID, "sleep"))
	assert.Check(q, cmp.Equal(null.FDs[1], "/dev/null"))
	q.Fact("with --null-io: the program's stdout", null.FDs[1])
}

// echoScript is a script that writes each line from the FIFO /told to its stdout. A line that it cannot write it writes
// to the file /failed. It holds both ends of the FIFO, so that reading never comes to an end when a writer closes its
// end.
const echoScript = `mkfifo /told; exec 3<>/told; while read -r word <&3; do echo "$word" || echo "$word" > /failed; done`

// startScript starts a task whose program is a shell with this script. The options of tasks start decide where its
// output goes. It returns the processes of the program and of the shim.
func startScript(q *lab.Q, d *ctrd.Daemon, ref, id, script string, options ...string) (init, shim proc.Process) {
	q.Helper()
	d.CreateContainer(ref, id, "sh", "-c", script)
	d.Ctr(append(append([]string{"tasks", "start", "-d"}, options...), id)...)
	proc.WaitFor(q, proc.Runs(d.TaskPID(id), "sh"))
	init = proc.Snapshot(q, d.TaskPID(id))
	return init, proc.Snapshot(q, init.Parent)
}
