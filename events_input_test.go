//go:build linux && vmlab

package cdblab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/pipe"
	"cdblab/helpers/proc"
)

// A client writes the input into a FIFO. The shim copies it from there into a pipe, and the program reads the pipe. The input ends when a
// client has called CloseIO and no client has the FIFO open for writing: read(2) of the program then returns 0.
//
// CloseIO is a call of containerd's API, by which a client ends the input. The shim itself has the FIFO open for reading and for writing.
// So the input goes on when a client closes the FIFO or dies, and another client may write. CloseIO makes the shim close its writing end.
// Nothing is lost that was written before. If no client ever calls CloseIO, the program waits for ever. ctr calls CloseIO when its own
// input ends. With --null-io there is no FIFO: the program's stdin is /dev/null, which has no bytes. CloseIO must not come too early:
// TestEvents_WhatIfCloseIOComesTooEarly shows what happens then.
//
// Hint: `ls -l /proc/SHIM/fd` while `ctr tasks exec … cat` waits for input; field 1 of /proc/PID/syscall of the cat.
// Spec: https://github.com/containerd/containerd/blob/main/api/services/tasks/v1/tasks.proto
// Kernel: https://man7.org/linux/man-pages/man7/pipe.7.html, "I/O on pipes and FIFOs"
func TestEvents_HowDoesInputReachTheProgramAndWhenDoesItEnd(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does input reach the program, and when does it end?")
	defer q.Recover()
	ctx := context.Background()
	d := ctrd.Shared(q)
	ref, id := d.PullImage(), q.ID(ctrd.ContainerID)

	q.Step("start a task by the Go client: the client writes into a FIFO, the shim copies from it into a pipe, and the program reads")
	container := d.CreateContainerByClient(ctrd.ClientOptions{}, ref, id, "sh", "-c", "cat > /got; exec sleep 3600")
	client := newInputClient(q, d)
	task, err := container.NewTask(ctx, client.create)
	assert.NilError(q, err)
	assert.NilError(q, task.Start(ctx))
	init := proc.Snapshot(q, proc.PID(task.Pid()))
	got := fmt.Sprintf("/proc/%d/root/got", init.PID)
	client.write("line 1\n")
	proc.WaitFor(q, file.HasContent(got, "line 1"))
	cat := proc.Snapshot(q, proc.FindChild(q, init.PID, "cat"))
	shim := proc.Snapshot(q, init.Parent)
	fifo, stdin := client.config.Stdin, cat.FDs[0]
	recordStdinEnds(q, shim, cat, fifo)

	q.Step("close the FIFO in the client, as if the client had died: the program still waits, because the shim holds a writing end")
	client.close()
	assert.Check(q, cmp.Len(proc.AccessModes(q, proc.Self(q), fifo), 0), "the client still holds the FIFO")
	assertWaitsForInput(q, cat) // it could still be about to receive the end: that line 2 arrives shows that it does not
	holds := proc.AccessModes(q, proc.Snapshot(q, shim.PID), fifo)
	assert.Check(q, cmp.DeepEqual(holds, []string{"read", "write"}), "how the shim holds the FIFO without a client")
	q.Fact("client closed: how the shim holds the FIFO", holds)

	q.Step("let another client write into the FIFO: the program receives this as well")
	second := pipe.OpenWriter(q, fifo)
	q.TB.Cleanup(func() { second.Close() }) // without effect when it is closed already
	_, err = second.WriteString("line 2\n")
	assert.NilError(q, err)
	proc.WaitFor(q, file.HasContent(got, "line 1\nline 2"))

	q.Step("call CloseIO while this client has the FIFO open: the shim closes its writing end, and the client can still write")
	q.LogCommand("# Go client: task.CloseIO(ctx, WithStdinCloser)")
	assert.NilError(q, task.CloseIO(ctx, containerd.WithStdinCloser))
	proc.WaitFor(q, proc.HasAccessModes(shim.PID, fifo, "read"))
	_, err = second.WriteString("line 3\n")
	assert.NilError(q, err)
	proc.WaitFor(q, file.HasContent(got, "line 1\nline 2\nline 3"))
	assertWaitsForInput(q, cat)
	q.Fact("CloseIO: how the shim holds the FIFO", proc.AccessModes(q, proc.Snapshot(q, shim.PID), fifo))

	q.Step("close the FIFO in this client, the last writer: the shim closes the pipe, and read(2) of the program returns 0")
	assert.NilError(q, second.Close())
	proc.WaitFor(q, proc.Runs(init.PID, "sleep")) // the shell goes on when cat has ended
	proc.WaitFor(q, proc.HasAccessModes(shim.PID, fifo))
	ofPipe := proc.AccessModes(q, proc.Snapshot(q, shim.PID), stdin)
	assert.Check(q, !slices.Contains(ofPipe, "write"), "the shim still holds the writing end of the pipe")
	_, err = os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
	assert.Check(q, cmp.ErrorIs(err, unix.ENXIO), "open the FIFO for writing, which no process reads any more")
	q.Fact("last writer closed: the program has read", strings.Fields(file.Read(q, got)))
	q.Fact("last writer closed: error of opening the FIFO for writing", fmt.Sprint(errors.Unwrap(err)))

	q.Step("fill the FIFO of an exec that does not read yet, close it, and call CloseIO: later the program reads all bytes")
	spec := *d.Spec(id).Process
	spec.Args = []string{"sh", "-c", "mkfifo /told; exec 3<>/told; read -r go <&3; wc -c > /count"}
	input := newInputClient(q, d)
	exec, err := task.Exec(ctx, "counts", &spec, input.create)
	assert.NilError(q, err)
	exited, err := exec.Wait(ctx)
	assert.NilError(q, err)
	assert.NilError(q, exec.Start(ctx))
	size := 3 * 16 * os.Getpagesize() / 2 // a pipe has 16 pages: more than a pipe holds, and less than a pipe and a FIFO hold
	input.write(strings.Repeat("x", size))
	input.close()
	assert.NilError(q, exec.CloseIO(ctx, containerd.WithStdinCloser))
	proc.WaitFor(q, proc.HasAccessModes(shim.PID, input.config.Stdin, "read"))
	q.SendLine(init, "go")
	status := statuses(q, map[string]<-chan containerd.ExitStatus{"counts": exited})
	assert.Check(q, cmp.DeepEqual(status, map[string]uint32{"counts": 0}), "exit status")
	count := file.Read(q, fmt.Sprintf("/proc/%d/root/count", init.PID))
	assert.Check(q, cmp.Equal(count, fmt.Sprint(size)), "bytes that the program has read until the end")
	q.Fact("CloseIO before an exec reads: bytes that it reads later", count)
	_, err = exec.Delete(ctx)
	assert.NilError(q, err)

	q.Step("run `ctr tasks exec` with input that ends: ctr calls CloseIO, and the program ends by itself")
	typed := q.Must("sh", "-c", fmt.Sprintf(
		"{ echo typed; while [ ! -s %s ]; do sleep 0.1; done; } | ctr -n %s tasks exec --fifo-dir %s --exec-id typed %s tee /typed",
		fmt.Sprintf("/proc/%d/root/typed", init.PID), d.Namespace, d.FifoDir, id))
	assert.Check(q, cmp.Equal(typed.Stdout, "typed\n"), "what ctr prints: %s", typed)
	q.Fact("ctr tasks exec … tee: output of ctr", strings.TrimSpace(typed.Stdout))

	q.Control("a task with --null-io: its input is /dev/null, which is at its end")
	null := q.ID("cdb-null")
	d.CreateContainer(ref, null, "sh", "-c", "cat > /got; exec sleep 3600")
	d.Ctr("tasks", "start", "-d", "--null-io", null)
	proc.WaitFor(q, proc.Runs(d.TaskPID(null), "sleep"))
	nullStdin := proc.Snapshot(q, d.TaskPID(null)).FDs[0]
	assert.Check(q, cmp.Equal(nullStdin, "/dev/null"), "stdin with --null-io")
	q.Fact("with --null-io: stdin", nullStdin)

	q.Answer("A client writes into a FIFO, the shim copies from it into a pipe, and the program reads the pipe. The input ends when CloseIO " +
		"was called and no client has the FIFO open for writing.")
}

// recordStdinEnds asserts which ends of the FIFO of stdin and of the program's pipe this process, the shim and the program hold.
func recordStdinEnds(q *lab.Q, shim, cat proc.Process, fifo string) {
	stdin := cat.FDs[0]
	// The shim opens its writing end in a thread of its own, and the client needs only the reading end.
	proc.WaitFor(q, proc.HasAccessModes(shim.PID, fifo, "read", "write"))
	shim = proc.Snapshot(q, shim.PID)
	chain := map[string][]string{
		"client: FIFO": proc.AccessModes(q, proc.Self(q), fifo), "shim: FIFO": proc.AccessModes(q, shim, fifo),
		"shim: pipe": proc.AccessModes(q, shim, stdin), "program: pipe": proc.AccessModes(q, cat, stdin),
	}
	for name, want := range map[string]string{"client: FIFO": "write", "shim: FIFO": "read write", "program: pipe": "read"} {
		assert.Check(q, cmp.Equal(strings.Join(chain[name], " "), want), "ends that it holds, of %s", name)
	}
	// The shim made the pipe, and up to 2.4.2 it keeps the reading end open as well. Only the writing end matters here.
	assert.Check(q, slices.Contains(chain["shim: pipe"], "write"), "ends of the pipe that the shim holds: %v", chain["shim: pipe"])
	assert.Check(q, strings.HasPrefix(stdin, "pipe:"), "the program's stdin is %s", stdin)
	q.Fact("ends of FIFO and pipe", chain)
}

// A CloseIO that comes before the exec is started succeeds, but has no effect: the program waits for input until CloseIO is called again.
// So `ctr tasks exec … cat < /dev/null` mostly does not end. A CloseIO during the start is not lost, if the client has the FIFO open:
// containerd waits for the start.
//
// CloseIO makes the shim close its writing end of the FIFO. The shim opens the FIFO when it starts the exec, and does not remember an
// earlier CloseIO. ctr calls CloseIO once, when its own input ends. An empty input ends at once: mostly before ctr has started the exec, or
// even before ctr can call CloseIO. `ctr run` and `ctr tasks start` have the second problem: an input that ends before the task is
// created ends before ctr can call CloseIO.
//
// During the start, the shim holds a lock of the exec, and containerd asks the shim for the exec's state before it passes CloseIO on. So
// the call returns after the start. But the shim opens both ends of the FIFO in the background. If no client has the FIFO open, a CloseIO
// between the two leaves the reading end waiting for a writer, and the program for its input. A client should call CloseIO after Start
// has returned, or give no stdin (cio.NullIO) if it has no input. Then stdin is /dev/null.
//
// Hint: `ls -l /proc/SHIM/fd` while `ctr tasks exec … cat < /dev/null` waits: how does the shim hold the FIFO of stdin?
// Spec: https://github.com/containerd/containerd/blob/main/api/services/tasks/v1/tasks.proto
// Kernel: https://man7.org/linux/man-pages/man7/fifo.7.html
func TestEvents_WhatIfCloseIOComesTooEarly(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What if CloseIO comes too early?")
	defer q.Recover()
	ctx, cancel := context.WithTimeout(context.Background(), 10*proc.Patience) // so that no call hangs
	defer cancel()
	d := ctrd.Shared(q)
	d.EndShimsIfFailed()
	id := q.ID(ctrd.ContainerID)
	d.CreateContainer(d.PullImage(), id, "sleep", "3600")
	shim := d.StartTaskAndWait(id).Parent
	proxy := d.StartProxy() // it shows that containerd has received a call
	client, err := ctrd.NewClient(proxy.Address, d.Namespace)
	assert.NilError(q, err)
	defer client.Close()
	container, err := client.LoadContainer(ctx, id)
	assert.NilError(q, err)
	task, err := container.Task(ctx, nil)
	assert.NilError(q, err)
	closeIO := func(p containerd.Process) error {
		q.LogCommand("# Go client: process.CloseIO(ctx, WithStdinCloser)   # of exec %s", p.ID())
		return p.CloseIO(ctx, containerd.WithStdinCloser)
	}

	q.Step("add an exec, call CloseIO, and then start the exec: CloseIO succeeds, and the program waits for input")
	process, input, exited := addCat(ctx, q, d, task, "early")
	pipe.OpenReader(q, input.config.Stdout)
	pipe.OpenReader(q, input.config.Stderr)
	err = closeIO(process)
	assert.NilError(q, err, "CloseIO before the start")
	assert.NilError(q, process.Start(ctx))
	proc.WaitFor(q, proc.HasAccessModes(shim, input.config.Stdin, "read", "write"))
	proc.WaitFor(q, proc.Runs(proc.PID(process.Pid()), "cat"))
	cat := proc.Snapshot(q, proc.PID(process.Pid()))
	assertWaitsForInput(q, cat)
	q.Fact("CloseIO before the start: error", err)
	q.Fact("CloseIO before the start: how the shim holds the FIFO", proc.AccessModes(q, proc.Snapshot(q, shim), input.config.Stdin))

	q.Step("call CloseIO again: the program ends")
	assert.NilError(q, closeIO(process))
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if cat.Alive() {
			return poll.Continue("the program of exec early waits for input, after a second CloseIO")
		}
		return poll.Success()
	})
	assertCatEnds(ctx, q, process, exited)
	q.Fact("CloseIO again: the program is alive", cat.Alive())

	q.Step("run `ctr tasks exec` with empty input: it does not end, unless ctr happens to call CloseIO late enough")
	ctr := q.StartBackground("ctr", "-n", d.Namespace, "tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "empty", id, "cat")
	waits := waitForEmptyExec(q, d, task, shim, ctr)
	if waits {
		process, err := task.LoadProcess(ctx, "empty", nil)
		assert.NilError(q, err)
		assert.NilError(q, closeIO(process))
	}
	assert.Check(q, cmp.Equal(ctr.ExitCode(), 0), "exit code of ctr tasks exec … cat: %s", ctr.Stderr())
	by := map[bool]string{true: "another client, which called CloseIO", false: "ctr"}[waits]
	q.Fact("ctr tasks exec … cat < /dev/null: ended by", lab.Chance(by))

	q.Control("call CloseIO while the shim starts the exec, and waits for a reader of stdout: it is not lost, and the program ends")
	var started, closed error
	for tries := 1; tries == 1 || isDeadline(started) && tries <= 3; tries++ { // for as long as the shim waits, the machine may stand still
		process, input, exited = addCat(ctx, q, d, task, fmt.Sprint("during-", tries))
		started, closed = closeIODuringStart(ctx, q, shim, proxy, process, input, closeIO)
	}
	assert.NilError(q, started)
	assert.NilError(q, closed)
	assertCatEnds(ctx, q, process, exited)
	q.Fact("CloseIO during the start: the program is alive", proc.Alive(proc.PID(process.Pid())))

	q.Answer("A CloseIO that comes before the exec is started has no effect, and the program waits for input until CloseIO is called again. " +
		"`ctr tasks exec` with empty input mostly calls it too early, or not at all. A CloseIO during the start waits for the start.")
}

// closeIODuringStart starts an exec, and calls CloseIO while the shim waits for a reader of stdout. Then it opens stdout and stderr, so
// that the start can go on. It returns the errors of the start and of CloseIO. The shim waits for 30 seconds. After that, the start has
// failed, and closeIODuringStart deletes the exec.
func closeIODuringStart(ctx context.Context, q *lab.Q, shim proc.PID, proxy *ctrd.Proxy, process containerd.Process, input *inputClient,
	closeIO func(containerd.Process) error,
) (startErr, closeErr error) {
	q.Helper()
	// A client like ctr has the FIFO open. Without one, each end that the shim opens waits for the other, and a CloseIO in between ends
	// the wait of only one.
	held, err := os.OpenFile(input.config.Stdin, os.O_RDWR, 0)
	assert.NilError(q, err)
	defer held.Close()
	outputs := []*os.File{} // by descriptors that can neither read nor write: when a start fails, the client library removes the FIFOs
	for _, path := range []string{input.config.Stdout, input.config.Stderr} {
		output, err := os.OpenFile(path, unix.O_PATH, 0)
		assert.NilError(q, err)
		defer output.Close()
		outputs = append(outputs, output)
	}
	started := lab.Go(func() error { return process.Start(ctx) })
	proc.WaitFor(q, func(t poll.LogT) poll.Result {
		if len(started) > 0 {
			return poll.Success()
		}
		return proc.HasFile(shim, input.config.Stdout)(t) // the shim has opened its writing end of stdin before
	})
	proxy.TakeCalls()
	closed := lab.Go(func() error { return closeIO(process) })
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if !proxy.HasCall("Tasks/CloseIO") {
			return poll.Continue("the client has not called CloseIO")
		}
		return poll.Success()
	})
	early := len(started) > 0
	for _, output := range outputs {
		pipe.OpenReader(q, fmt.Sprint("/proc/self/fd/", output.Fd()))
	}
	startErr, closeErr = <-started, <-closed
	if isDeadline(startErr) {
		_, err := process.Delete(ctx)
		assert.NilError(q, err)
		return startErr, closeErr
	}
	assert.Check(q, !early, "the start is done, although no process reads the FIFO of stdout; its error: %v", startErr)
	if startErr == nil {
		proc.WaitFor(q, proc.HasAccessModes(shim, input.config.Stdin, "read")) // the shim has closed its writing end
	}
	return startErr, closeErr
}

// isDeadline reports whether an error says that a deadline has passed. The shim reports that of its own only in the text of the error.
func isDeadline(err error) bool {
	return err != nil && strings.Contains(err.Error(), "deadline exceeded")
}

// addCat adds an exec of cat to a task, and does not start it.
func addCat(ctx context.Context, q *lab.Q, d *ctrd.Daemon, task containerd.Task, exec string) (
	containerd.Process, *inputClient, <-chan containerd.ExitStatus,
) {
	q.Helper()
	q.LogCommand("# Go client: task.Exec(ctx, %q, cat, …)", exec)
	spec := *d.Spec(task.ID()).Process
	spec.Args = []string{"cat"}
	input := newInputClient(q, d)
	process, err := task.Exec(ctx, exec, &spec, input.makeFIFOs)
	assert.NilError(q, err)
	exited, err := process.Wait(ctx)
	assert.NilError(q, err)
	return process, input, exited
}

// assertCatEnds asserts that the program of an exec ends, and deletes the exec.
func assertCatEnds(ctx context.Context, q *lab.Q, process containerd.Process, exited <-chan containerd.ExitStatus) {
	q.Helper()
	got := statuses(q, map[string]<-chan containerd.ExitStatus{process.ID(): exited})
	assert.Check(q, cmp.DeepEqual(got, map[string]uint32{process.ID(): 0}), "exit status of a cat whose input has ended")
	_, err := process.Delete(ctx)
	assert.NilError(q, err)
}

// waitForEmptyExec waits until ctr has ended, which runs the exec "empty", or until it has closed its end of the FIFO of stdin and the shim
// has both. Then the exec waits for input, and waitForEmptyExec returns true.
func waitForEmptyExec(q *lab.Q, d *ctrd.Daemon, task containerd.Task, shim proc.PID, ctr *lab.Background) (waits bool) {
	q.Helper()
	isRunning := func() bool {
		process, err := task.LoadProcess(context.Background(), "empty", nil)
		if err != nil {
			return false
		}
		status, err := process.Status(context.Background())
		return err == nil && status.Status == containerd.Running
	}
	proc.WaitFor(q, func(t poll.LogT) poll.Result {
		fifos, _ := filepath.Glob(filepath.Join(d.FifoDir, "*", "empty-stdin"))
		if len(fifos) == 1 {
			// If ctr calls CloseIO, then before it closes the FIFO. So what the shim holds after that is final.
			opened := proc.HasAccessModes(shim, fifos[0], "read", "write")
			closedByCtr := proc.HasNoFile(ctr.PID(), fifos[0])(t).Done()
			waits = opened(t).Done() && closedByCtr && opened(t).Done()
			if closedByCtr && !waits && isRunning() {
				// An end of the shim may wait for the other, which CloseIO has ended. A writer that comes and goes ends the wait.
				writer, err := os.OpenFile(fifos[0], os.O_RDWR, 0)
				if err != nil {
					return poll.Error(err)
				}
				_ = writer.Close()
			}
		}
		if waits || ctr.Ended() {
			return poll.Success()
		}
		return poll.Continue("ctr has not ended, and has not closed its end of the FIFO while the shim has both: %v", fifos)
	})
	return waits
}

// inputClient is a client that has the other ends of the FIFOs of a task, or of an exec.
type inputClient struct {
	q      *lab.Q
	d      *ctrd.Daemon
	io     *cio.DirectIO
	config cio.Config
}

func newInputClient(q *lab.Q, d *ctrd.Daemon) *inputClient { return &inputClient{q: q, d: d} }

// create makes the FIFOs and opens them. It is a cio.Creator.
func (c *inputClient) create(id string) (cio.IO, error) {
	fifos, err := cio.NewFIFOSetInDir(c.d.FifoDir, id, false)
	if err != nil {
		return nil, err
	}
	c.config = fifos.Config
	c.io, err = cio.NewDirectIO(context.Background(), fifos)
	c.q.TB.Cleanup(func() { c.io.Close() })
	return c.io, err
}

// makeFIFOs makes the FIFOs and opens none of them. It is a cio.Creator.
func (c *inputClient) makeFIFOs(id string) (cio.IO, error) {
	fifos, err := cio.NewFIFOSetInDir(c.d.FifoDir, id, false)
	if err != nil {
		return nil, err
	}
	c.config = fifos.Config
	c.q.TB.Cleanup(func() { assert.Check(c.q, fifos.Close()) })
	for _, path := range []string{c.config.Stdin, c.config.Stdout, c.config.Stderr} {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return nil, err
		}
	}
	return cio.Load(fifos)
}

// write writes into the FIFO of stdin.
func (c *inputClient) write(text string) {
	c.q.Helper()
	c.q.LogCommand("# write %d bytes into %s", len(text), c.config.Stdin)
	_, err := c.io.Stdin.Write([]byte(text))
	assert.NilError(c.q, err)
}

// close closes the FIFO of stdin.
func (c *inputClient) close() {
	c.q.Helper()
	assert.NilError(c.q, c.io.Stdin.Close())
}

// assertWaitsForInput asserts that a process sleeps in read(2) of its stdin.
func assertWaitsForInput(q *lab.Q, p proc.Process) {
	q.Helper()
	proc.WaitFor(q, proc.SleepsIn(p.PID, unix.SYS_READ))
	assert.Check(q, cmp.Equal(proc.CurrentSyscall(q, p.PID).Args[0], uint64(0)), "the descriptor that %s reads", p.Comm)
}
