//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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
	"cdblab/helpers/pipe"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
)

// The last output of a program is copied after its exit as well: the shim holds the other ends of the program's pipes, and publishes the
// exit before it has copied everything. The delete of the task waits for the copy, ten seconds at most. Output is lost if the client
// deletes the task before it has read everything, if a logger ends on SIGTERM, or if a log file gets stderr after the end of stdout.
//
// An exit event shows that a process has ended, not that its output has been read. Pipe and FIFO keep unread bytes, because the shim holds
// both ends of the FIFO. But Delete of the client library closes the FIFO before it waits for the copy. A client has to call
// task.IO().Wait() first. `ctr tasks exec` does so; `ctr tasks start` does not. The delete sends SIGTERM at once to a logger, which is a
// program (--log-uri binary://…), and waits 12 seconds for its end. Then the shim kills the logger. A log file (--log-uri file://…) gets
// both streams. The shim closes the file at the end of stdout. Later output on stderr is lost, in all releases up to 2.4.2. This can
// happen to any program: at its exit the two streams end in any order. The file has all of stdout, also if that is more than a pipe
// holds. A logger that reads has all of both streams.
//
// Hint: `ctr tasks start ID | (sleep 5; wc -c)` of a program that writes 120 KiB and ends; the same with `ctr tasks exec`.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#io
// Kernel: https://man7.org/linux/man-pages/man7/pipe.7.html, "I/O on pipes and FIFOs"
func TestEvents_WhatBecomesOfTheLastBytesBeforeTheExit(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What becomes of the last bytes before the exit?")
	defer q.Recover()
	out := q.Mkdir("out")
	// Each logger is one program, cat. They differ in what SIGTERM does to it.
	logger := "echo $$ > " + out + "/$CONTAINER_ID.pid\nexec 5>&-   # ready\nexec cat <&3 > " + out + "/$CONTAINER_ID"
	ends, ignores := q.WriteWrapper("ends", logger), q.WriteWrapper("ignores", "trap '' TERM\n"+logger)
	w := newLastWriter(q, out)

	q.Step("let a program write %d pages (%d KiB) to each stream and exit, while no client reads the FIFOs: its exit is published",
		allPages, allPages*os.Getpagesize()/1024)
	id := q.ID("cdb-late")
	shim := w.run(id, "--fifo-dir", w.d.FifoDir)
	fifos := w.fifos(shim)
	holds := proc.AccessModes(q, shim, fifos["stdout"])
	assert.Check(q, cmp.DeepEqual(holds, []string{"read", "write"}), "how the shim holds the FIFO of stdout after the exit")
	late, lateErr := pipe.OpenReader(q, fifos["stdout"]), pipe.OpenReader(q, fifos["stderr"])
	proc.WaitFor(q, pipe.IsFull(late))
	assert.Check(q, pipe.Capacity(late) < len(w.stdout), "all that the program has written fits into the FIFO, without the pipe")
	q.Fact("after the exit: how the shim holds the FIFO", holds)
	q.Fact("after the exit: bytes in the FIFO, of those that were written", fmt.Sprint(pipe.Buffered(late), " of ", len(w.stdout)))

	q.Step("read late, after the exit: all bytes arrive, stderr apart from stdout, and then the end")
	gotOut, gotErr := pipe.ReadToEnd(q, late), pipe.ReadToEnd(q, lateErr)
	w.assertAll("after the exit: bytes of stdout", gotOut, w.stdout)
	w.assertAll("after the exit: bytes of stderr", gotErr, w.stderr)
	w.d.DeleteTask(id)

	q.Step("write into a log file, close stdout, and then write to stderr: the shim closes the file at the end of stdout, and stderr is lost")
	fromOut, fromErr, closed := w.writeToFile("cdb-file", "stdout", "stderr")
	w.assertAll("file: bytes of stdout, before its end", fromOut, w.stdout)
	few := fewPages * os.Getpagesize()
	if closed {
		assert.Check(q, cmp.Len(fromErr, 0), "bytes of stderr in a file that the shim had closed")
		q.Fact("file: bytes of stderr, after the end of stdout", fmt.Sprint(len(fromErr), " of ", few))
	} else {
		w.assertAll("file: bytes of stderr, after the end of stdout", fromErr, w.stderr[:few])
	}
	q.Fact("file: is closed at the end of stdout", closed)

	q.Control("the other way round, close stderr, and then write to stdout: the file has all bytes of both streams")
	fromOut, fromErr, _ = w.writeToFile("cdb-file-2", "stderr", "stdout")
	w.assertAll("file: bytes of stdout, after the end of stderr", fromOut, w.stdout[:few])
	w.assertAll("file: bytes of stderr, before its end", fromErr, w.stderr)

	q.Step("write all to both streams, and exit at once: the file has all bytes of stdout, and the first ones of stderr")
	w.fileAtTheExit()

	q.Step("the same with a logger that reads: it has all bytes of both streams, before the task is deleted")
	w.loggerAtTheExit()

	q.Step("stop a logger (SIGSTOP), so that it reads late: delete sends SIGTERM, the logger ends, and the bytes in its pipe are lost")
	unread := w.startLateLogger("cdb-ends", ends)
	lost, _ := w.deleteLateLogger(unread, func(log poll.LogT) poll.Result {
		if !unread.Alive() { // after 12 seconds, in which this machine stood still, the shim has killed it: that ends it as well
			return poll.Success()
		}
		return proc.HasPending(unread.PID, unix.SIGTERM)(log)
	})
	assert.Check(q, cmp.Len(lost, 0), "bytes that a logger wrote which SIGTERM ends, before it has read")
	q.Fact("logger that ends on SIGTERM: bytes written", fmt.Sprint(len(lost), " of ", few))

	q.Control("the same logger, but it ignores SIGTERM: it reads to the end, and the delete waits for it")
	var kept []byte
	stopped := killsLoggerAfter
	for tries := 1; stopped >= killsLoggerAfter && tries <= 3; tries++ { // a machine may be so busy that the logger is continued too late
		l := w.startLateLogger(fmt.Sprintf("cdb-ignores-%d", tries), ignores)
		// No access: the shim closes the pipe, and then sends the signal.
		kept, stopped = w.deleteLateLogger(l, proc.HasAccessModes(l.shim.PID, l.stdout))
	}
	assert.Check(q, stopped < killsLoggerAfter, "machine too busy: the logger was continued %v after the delete began; the shim kills it "+
		"after %v", stopped, killsLoggerAfter)
	w.assertAll("logger that ignores SIGTERM: bytes written", kept, w.stdout[:few])

	q.Step("read the output of ctr itself late: `ctr tasks start` deletes the task before it has read all; the FIFO keeps the rest")
	printed, rest, closed, took := w.readCtrLate("cdb-ctr-1")
	for tries := 2; tries <= 3 && took >= shimDrainsFor && len(printed)+len(rest) < len(w.stdout); tries++ {
		printed, rest, closed, took = w.readCtrLate(fmt.Sprintf("cdb-ctr-%d", tries)) // the machine was so busy that the shim had given up
	}
	assert.Check(q, closed || !q.Pinned(), "this ctr did not close the FIFO after the exit, but waited until its own output was read")
	assert.Check(q, !closed || len(rest) > 0, "ctr closed the FIFO and had read all; %d bytes do not fit into ctr and its pipe", len(w.stdout))
	w.assertAll("ctr tasks start, read late: bytes printed, and left in the FIFO", append(printed, rest...), w.stdout)
	q.Fact("ctr tasks start, read late: prints all", len(rest) == 0)

	q.Step("leave the same logger stopped, and a FIFO unread: the deletes give up after 12 and 10 seconds, and the bytes are lost")
	w.deleteUnread(ignores)

	q.Answer("The shim still copies the last bytes after the exit was published, and the delete waits for that, ten seconds at most. Bytes " +
		"are lost if a client deletes the task before it has read all, if a logger ends on SIGTERM, and in a file after the end of stdout.")
}

// The numbers of pages that a program writes. Whole pages, because a pipe is full when it has no page left.
const (
	allPages = 30 // more than a pipe of 16 pages, and less than a pipe and a FIFO
	fewPages = 12 // fit into a pipe: a program that writes them ends even if no process reads the pipe
)

// killsLoggerAfter is how long a shim waits for a logger to which it has sent SIGTERM: its binaryIOProcTermTimeout.
const killsLoggerAfter = 12 * time.Second

// shimDrainsFor is how long the shim's delete waits for the copy of the output.
const shimDrainsFor = 10 * time.Second

// lastWriter runs programs that write to both streams and then exit.
type lastWriter struct {
	q              *lab.Q
	d              *ctrd.Daemon
	ref            string
	stream         *ctrd.Stream
	out            string // directory of what loggers write
	stdout, stderr []byte // what the program writes
}

func newLastWriter(q *lab.Q, out string) *lastWriter {
	q.Helper()
	w := &lastWriter{q: q, d: ctrd.Shared(q), out: out}
	w.ref = w.d.PullImage()
	w.stream = w.d.Listen()
	random := rand.New(rand.NewPCG(15, 3))
	for range allPages * os.Getpagesize() { // the two streams have no byte in common: in one file each byte shows its stream
		w.stdout, w.stderr = append(w.stdout, byte(random.IntN(128))), append(w.stderr, byte(128+random.IntN(128)))
	}
	return w
}

// lastWords is a script that executes the lines that it reads from the FIFO /told.
const lastWords = `mkfifo /told; exec 3<>/told; while read -r line <&3; do eval "$line"; done`

// copyTo returns the command that writes so many pages to a stream.
func copyTo(stream string, pages int) string {
	fd := map[string]int{"stdout": 1, "stderr": 2}[stream]
	return fmt.Sprintf("dd if=/%s bs=%d count=%d >&%d 2>/dev/null", stream, os.Getpagesize(), pages, fd)
}

// run starts a task, lets its program write all pages to each stream and end, and waits for the event of its exit. It returns the shim's
// process, as it is then.
func (w *lastWriter) run(id string, options ...string) proc.Process {
	w.q.Helper()
	init, _ := startScript(w.q, w.d, w.ref, id, lastWords, options...)
	w.write(init, copyTo("stderr", allPages), copyTo("stdout", allPages), "exit")
	proc.WaitFor(w.q, w.stream.ReceivedExit(id))
	return proc.Snapshot(w.q, init.Parent)
}

// write gives the program of a task what it has to write, and has it execute commands.
func (w *lastWriter) write(init proc.Process, commands ...string) {
	w.q.Helper()
	for name, data := range map[string][]byte{"stdout": w.stdout, "stderr": w.stderr} {
		assert.NilError(w.q, os.WriteFile(fmt.Sprintf("/proc/%d/root/%s", init.PID, name), data, 0o644))
	}
	w.q.SendLine(init, strings.Join(commands, "; "))
}

// writeToFile runs a task with a file for its output. Its program writes all of the first stream and closes it, and then a few pages of the
// second. When the first one is stdout, it waits in between until the shim has closed the file. writeToFile returns what the file has of
// each stream, and whether the shim had closed it.
func (w *lastWriter) writeToFile(name, first, second string) (fromOut, fromErr []byte, closed bool) {
	q := w.q
	q.Helper()
	id, path := q.ID(name), filepath.Join(w.out, name)
	init, shim := startScript(q, w.d, w.ref, id, lastWords, "--log-uri", "file://"+path)
	closeFirst := map[string]string{"stdout": "exec >&-", "stderr": "exec 2>&-"}[first]
	w.write(init, copyTo(first, allPages), closeFirst)
	proc.WaitFor(q, w.hasAll(path, first))
	if first == "stdout" {
		// No release up to 2.4.2 keeps the file open. Of one that does, no state would show that it will not close the file later.
		closed = retry.Until(proc.Patience, func() bool {
			return !slices.Contains(check.FDTargets(proc.Snapshot(q, shim.PID)), path)
		})
	}
	q.SendLine(init, copyTo(second, fewPages)+"; exit")
	proc.WaitFor(q, w.stream.ReceivedExit(id))
	w.d.DeleteTask(id)
	fromOut, fromErr, err := streamsIn(path)
	assert.NilError(q, err)
	return fromOut, fromErr, closed
}

// hasAll returns a check that succeeds when a file has as many bytes of a stream as a program writes to it.
func (w *lastWriter) hasAll(path, stream string) poll.Check {
	return func(poll.LogT) poll.Result {
		fromOut, fromErr, err := streamsIn(path)
		got := map[string][]byte{"stdout": fromOut, "stderr": fromErr}[stream]
		if err != nil || len(got) < len(w.stdout) {
			return poll.Continue("%s has %d of %d bytes of %s (%v)", path, len(got), len(w.stdout), stream, err)
		}
		return poll.Success()
	}
}

// streamsIn returns what a file has of each stream.
func streamsIn(path string) (fromOut, fromErr []byte, err error) {
	content, err := os.ReadFile(path)
	isStderr := func(b byte) bool { return b >= 128 }
	fromOut = slices.DeleteFunc(slices.Clone(content), isStderr)
	return fromOut, slices.DeleteFunc(content, func(b byte) bool { return !isStderr(b) }), err
}

// fileAtTheExit runs a task with a file for its output, whose program writes all pages to both streams just before its exit.
func (w *lastWriter) fileAtTheExit() {
	q := w.q
	q.Helper()
	id, path := q.ID("cdb-file-3"), filepath.Join(w.out, "cdb-file-3")
	w.run(id, "--log-uri", "file://"+path)
	proc.WaitFor(q, w.hasAll(path, "stdout")) // before the delete, which waits only for ten seconds
	w.d.DeleteTask(id)
	fromOut, fromErr, err := streamsIn(path)
	assert.NilError(q, err)
	w.assertAll("file, all just before the exit: bytes of stdout", fromOut, w.stdout)
	// The copy of stderr goes on until the copy of stdout ends, and no order of the two is promised.
	assert.Check(q, bytes.HasPrefix(w.stderr, fromErr), "the file has %d bytes of stderr, and not the first ones", len(fromErr))
	q.Fact("file, all just before the exit: bytes of stderr", lab.Chance(fmt.Sprint(len(fromErr), " of ", len(w.stderr))))
}

// loggerAtTheExit runs a task with a logger that reads both streams, whose program writes all pages to both just before its exit.
func (w *lastWriter) loggerAtTheExit() {
	q := w.q
	q.Helper()
	id := q.ID("cdb-works")
	files := map[string]string{"stdout": filepath.Join(w.out, id), "stderr": filepath.Join(w.out, id+".err")}
	// It has read everything before SIGTERM comes, and ignores the signal, so that it does not matter when it ends.
	logger := q.WriteWrapper("works", fmt.Sprintf("trap '' TERM\nexec 5>&-   # ready\ncat <&3 > %s & cat <&4 > %s; wait",
		files["stdout"], files["stderr"]))
	w.run(id, "--log-uri", "binary://"+logger)
	for stream, path := range files {
		proc.WaitFor(q, w.hasAll(path, stream))
	}
	w.d.DeleteTask(id)
	for stream, want := range map[string][]byte{"stdout": w.stdout, "stderr": w.stderr} {
		got, err := os.ReadFile(files[stream])
		assert.NilError(q, err)
		w.assertAll("logger, all just before the exit: bytes of "+stream, got, want)
	}
}

// fifos returns the paths of the FIFOs that the shim holds, by the name of the stream.
func (w *lastWriter) fifos(shim proc.Process) map[string]string {
	w.q.Helper()
	found := map[string]string{}
	for _, target := range check.FDTargets(shim) {
		if strings.HasPrefix(target, w.d.FifoDir) {
			found[target[strings.LastIndex(target, "-")+1:]] = target
		}
	}
	assert.Assert(w.q, found["stdout"] != "" && found["stderr"] != "", "the shim holds the FIFOs %v, want stdout and stderr", found)
	return found
}

// assertAll asserts that all bytes have arrived, and records it.
func (w *lastWriter) assertAll(fact string, got, want []byte) {
	w.q.Helper()
	same := 0
	for same < min(len(got), len(want)) && got[same] == want[same] {
		same++
	}
	assert.Check(w.q, bytes.Equal(got, want), "%s: %d of %d bytes arrived; the first %d are as written", fact, len(got), len(want), same)
	w.q.Fact(fact, fmt.Sprint(len(got), " of ", len(want)))
}

// lateLogger is the process of a logger that is stopped.
type lateLogger struct {
	proc.Process
	id     string // of the container
	shim   proc.Process
	stdout string // the pipe from which the logger reads
}

// startLateLogger runs a task with a binary logger that is stopped from the beginning, until the program has ended.
func (w *lastWriter) startLateLogger(name, logger string) lateLogger {
	q := w.q
	q.Helper()
	id := q.ID(name)
	init, shim := startScript(q, w.d, w.ref, id, lastWords, "--log-uri", "binary://"+logger)
	process := proc.Snapshot(q, proc.PID(check.Int(q, file.Read(q, filepath.Join(w.out, id+".pid")))))
	proc.WaitFor(q, proc.Runs(process.PID, "cat"))
	w.signal(process, unix.SIGSTOP)
	proc.WaitFor(q, proc.IsInState(process.PID, "T"))
	w.write(init, copyTo("stdout", fewPages), copyTo("stderr", fewPages), "exit")
	proc.WaitFor(q, w.stream.ReceivedExit(id))
	assert.Check(q, cmp.DeepEqual(proc.AccessModes(q, proc.Snapshot(q, shim.PID), init.FDs[1]), []string{"write"}),
		"how the shim holds the logger's pipe after the exit")
	return lateLogger{process, id, shim, init.FDs[1]}
}

func (w *lastWriter) signal(logger proc.Process, s unix.Signal) {
	w.q.Helper()
	w.q.LogCommand("kill -%d %d   # the logger", int(s), logger.PID)
	assert.NilError(w.q, proc.Signal(logger.Identity, s))
}

// startDelete begins to delete the task of a logger. The function that it returns waits for the end, and returns what the logger has
// written.
func (w *lastWriter) startDelete(l lateLogger) (wait func() []byte) {
	q := w.q
	q.Helper()
	deleting := q.StartBackground("ctr", "-n", w.d.Namespace, "tasks", "delete", l.id)
	return func() []byte {
		q.Helper()
		assert.Check(q, cmp.Equal(deleting.ExitCode(), 0), "ctr tasks delete: %s", deleting.Stderr())
		proc.WaitFor(q, proc.Dead(l.Identity))
		written, err := os.ReadFile(filepath.Join(w.out, l.id))
		assert.NilError(q, err)
		return written
	}
}

// deleteLateLogger deletes the task of a logger. The logger is continued, if it is alive, when the condition holds. deleteLateLogger
// returns what the logger has written, and how long it was stopped after the delete had begun.
func (w *lastWriter) deleteLateLogger(l lateLogger, condition poll.Check) (written []byte, stopped time.Duration) {
	w.q.Helper()
	begin := time.Now()
	wait := w.startDelete(l)
	proc.WaitFor(w.q, condition)
	if l.Alive() {
		w.signal(l.Process, unix.SIGCONT)
	}
	stopped = time.Since(begin)
	return wait(), stopped
}

// deleteUnread deletes two tasks at once, whose output no process reads: one has a logger that stays stopped, the other one a FIFO. At
// once, because each delete takes more than ten seconds.
func (w *lastWriter) deleteUnread(logger string) {
	q := w.q
	q.Helper()
	stuck, id := w.startLateLogger("cdb-stuck", logger), q.ID("cdb-lost")
	shim := w.run(id, "--fifo-dir", w.d.FifoDir)
	fifos := w.fifos(shim)

	begin := time.Now()
	wait := w.startDelete(stuck)
	var stopped time.Duration
	watch := lab.Go(func() error {
		retry.Until(killsLoggerAfter+proc.Patience, func() bool { return !stuck.Alive() })
		stopped = time.Since(begin)
		return nil
	})
	beginFIFO := time.Now()
	w.d.DeleteTask(id)
	waited := time.Since(beginFIFO)
	assert.Check(q, waited > 9*time.Second, "a delete with output that no process reads took %v", waited)
	proc.WaitFor(q, proc.Dead(shim.Identity)) // the last process that holds the FIFO
	assert.Check(q, !file.Exists(fifos["stdout"]) && !file.Exists(fifos["stderr"]), "a FIFO is still there after the delete: %v", fifos)
	q.Fact("delete, while no client reads: took", lab.Elapsed(waited))
	q.Fact("delete, while no client reads: FIFO exists", file.Exists(fifos["stdout"]))

	assert.NilError(q, <-watch)
	lost := wait()
	assert.Check(q, stopped > killsLoggerAfter-time.Second, "the shim has killed the logger after %v", stopped)
	assert.Check(q, cmp.Len(lost, 0), "bytes that a logger wrote which was stopped until its end")
	q.Fact("logger that stays stopped: is killed after", lab.Elapsed(stopped))
	q.Fact("logger that stays stopped: bytes written", fmt.Sprint(len(lost), " of ", fewPages*os.Getpagesize()))
}

// readCtrLate starts a task by ctr, without -d, and reads the output of ctr only when ctr does not read the task's output any more, or has
// read all of it. It returns what ctr has printed, what was left in the FIFO, whether ctr had closed the FIFO by then, and how long it took
// from the program's last command to the end of the FIFO.
func (w *lastWriter) readCtrLate(name string) (printed, rest []byte, closed bool, took time.Duration) {
	q, d := w.q, w.d
	q.Helper()
	id := q.ID(name)
	d.CreateContainer(w.ref, id, "sh", "-c", lastWords)
	gate, output := filepath.Join(w.out, name+".gate"), filepath.Join(w.out, name+".printed")
	assert.NilError(q, unix.Mkfifo(gate, 0o600))
	q.Cleanup(func() { file.Remove(q, gate) })
	shell := q.StartBackground("sh", "-c", fmt.Sprintf("ctr -n %s tasks start --fifo-dir %s %s | { read -r go < %s; cat > %s; }",
		d.Namespace, d.FifoDir, id, gate, output))
	pidFile := filepath.Join(d.Bundle(id), "init.pid")
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if text, err := file.TryRead(pidFile); errors.Is(err, fs.ErrNotExist) || text == "" {
			return poll.Continue("%s does not exist yet; ctr: %s", pidFile, shell.Stderr())
		}
		return poll.Success()
	})
	proc.WaitFor(q, proc.Runs(d.TaskPID(id), "sh"))
	init := proc.Snapshot(q, d.TaskPID(id))
	fifo := w.fifos(proc.Snapshot(q, init.Parent))["stdout"]
	late := pipe.OpenReader(q, fifo)
	ctr := proc.FindChild(q, shell.PID(), "ctr")
	begin := time.Now()
	w.write(init, copyTo("stdout", allPages), "exit")
	// The FIFO is looked at, and not the exit event: ctr may have read nothing yet when it learns of the exit. Then it deletes at once, and
	// the delete can come before the shim has published the exit. The event waits until the delete has given up, and the bytes are lost.
	// No release up to 2.4.2 waits for the output. Of one that does, no state would show that it will not close the FIFO later.
	closed = retry.Until(proc.Patience, func() bool {
		p, err := proc.Read(ctr)
		return err != nil || !slices.Contains(check.FDTargets(p), fifo)
	})
	pipe.WriteLine(q, gate, "go")
	if closed {
		rest, took = pipe.ReadToEnd(q, late), time.Since(begin)
	}
	assert.Check(q, cmp.Equal(shell.ExitCode(), 0), "ctr tasks start: %s", shell.Stderr())
	printed, err := os.ReadFile(output)
	assert.NilError(q, err)
	return printed, rest, closed, took
}
