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

// Through a FIFO, which the shim copies into a pipe. The input ends when a client has called CloseIO and no client has the FIFO open for
// writing any more: the program then reads 0 bytes.
//
// The shim has both ends of the FIFO open. So the end of a client is not the end of the input, and another client can go on. CloseIO takes
// the shim's writing end away, and nothing that was written is lost by it. A client that closes its end, or dies, and never calls CloseIO
// leaves a program that waits for ever. ctr calls it when its own input ends. An empty input ends before the exec has begun, which is too
// early: `ctr tasks exec … cat < /dev/null` waits. Without a FIFO the input is /dev/null itself.
//
// Hint: `ls -l /proc/SHIM/fd` while `ctr tasks exec … cat < /dev/null` waits; field 1 of /proc/PID/syscall of the cat.
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
	chain := map[string][]string{
		"client: FIFO": proc.AccessModes(q, proc.Self(q), fifo), "shim: FIFO": proc.AccessModes(q, shim, fifo),
		"shim: pipe": proc.AccessModes(q, shim, stdin), "program: pipe": proc.AccessModes(q, cat, stdin),
	}
	for name, want := range map[string]string{"client: FIFO": "write", "shim: FIFO": "read write", "program: pipe": "read"} {
		assert.Check(q, cmp.Equal(strings.Join(chain[name], " "), want), "ends that it holds, of %s", name)
	}
	assert.Check(q, slices.Contains(chain["shim: pipe"], "write"), "ends of the pipe that the shim holds: %v", chain["shim: pipe"])
	assert.Check(q, strings.HasPrefix(stdin, "pipe:"), "the program's stdin is %s", stdin)
	q.Fact("ends of FIFO and pipe", chain)

	q.Step("close the client's end, as when a client dies: the program still waits, because the shim holds a writing end")
	client.close()
	assert.Check(q, cmp.Len(proc.AccessModes(q, proc.Self(q), fifo), 0), "the client still holds the FIFO")
	assertWaitsForInput(q, cat)
	holds := proc.AccessModes(q, proc.Snapshot(q, shim.PID), fifo)
	assert.Check(q, cmp.DeepEqual(holds, []string{"read", "write"}), "how the shim holds the FIFO without a client")
	q.Fact("client closed: how the shim holds the FIFO", holds)

	q.Step("let another client write into the FIFO: the program reads on")
	second := pipe.OpenWriter(q, fifo)
	_, err = second.WriteString("line 2\n")
	assert.NilError(q, err)
	proc.WaitFor(q, file.HasContent(got, "line 1\nline 2"))

	q.Step("call CloseIO while this client has the FIFO open: the shim gives up its writing end, and the input still goes on")
	q.LogCommand("# Go client: task.CloseIO(ctx, WithStdinCloser)")
	assert.NilError(q, task.CloseIO(ctx, containerd.WithStdinCloser))
	proc.WaitFor(q, proc.HasAccessModes(shim.PID, fifo, "read"))
	_, err = second.WriteString("line 3\n")
	assert.NilError(q, err)
	proc.WaitFor(q, file.HasContent(got, "line 1\nline 2\nline 3"))
	assertWaitsForInput(q, cat)
	q.Fact("CloseIO: how the shim holds the FIFO", proc.AccessModes(q, proc.Snapshot(q, shim.PID), fifo))

	q.Step("close the last writer: the shim closes the pipe, and the program reads the end of its input")
	assert.NilError(q, second.Close())
	proc.WaitFor(q, proc.Runs(init.PID, "sleep")) // the shell goes on when cat has ended
	proc.WaitFor(q, proc.HasAccessModes(shim.PID, fifo))
	ofPipe := proc.AccessModes(q, proc.Snapshot(q, shim.PID), stdin)
	assert.Check(q, !slices.Contains(ofPipe, "write"), "the shim still holds the writing end of the pipe")
	_, err = os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
	assert.Check(q, cmp.ErrorIs(err, unix.ENXIO), "open the FIFO for writing, which no process reads any more")
	q.Fact("closed: the program has read", strings.Fields(file.Read(q, got)))
	q.Fact("closed: a further client that opens the FIFO", fmt.Sprint(errors.Unwrap(err)))

	q.Control("an exec: fill the FIFO, close it, and call CloseIO at once: not one byte is lost")
	spec := *d.Spec(id).Process
	spec.Args = []string{"sh", "-c", "mkfifo /told; exec 3<>/told; read -r go <&3; wc -c > /count"}
	input := newInputClient(q, d)
	exec, err := task.Exec(ctx, "counts", &spec, input.create)
	assert.NilError(q, err)
	exited, err := exec.Wait(ctx)
	assert.NilError(q, err)
	assert.NilError(q, exec.Start(ctx))
	const size = 100_000 // more than a pipe has, less than a pipe and a FIFO
	input.write(strings.Repeat("x", size))
	input.close()
	assert.NilError(q, exec.CloseIO(ctx, containerd.WithStdinCloser))
	proc.WaitFor(q, proc.HasAccessModes(shim.PID, input.config.Stdin, "read"))
	q.SendLine(init, "go")
	status := statuses(q, map[string]<-chan containerd.ExitStatus{"counts": exited})
	assert.Check(q, cmp.DeepEqual(status, map[string]uint32{"counts": 0}), "exit status")
	count := file.Read(q, fmt.Sprintf("/proc/%d/root/count", init.PID))
	assert.Check(q, cmp.Equal(count, fmt.Sprint(size)), "bytes that the program has read until the end")
	q.Fact("an exec, CloseIO before it reads: bytes read", count)
	_, err = exec.Delete(ctx)
	assert.NilError(q, err)

	q.Step("type an exec whose input ends: ctr calls CloseIO, and the program ends by itself")
	typed := q.Must("sh", "-c", fmt.Sprintf(
		"{ echo typed; while [ ! -s %s ]; do sleep 0.1; done; } | ctr -n %s tasks exec --fifo-dir %s --exec-id typed %s tee /typed",
		fmt.Sprintf("/proc/%d/root/typed", init.PID), d.Namespace, d.FifoDir, id))
	assert.Check(q, cmp.Equal(typed.Stdout, "typed\n"), "what ctr prints: %s", typed)
	q.Fact("ctr tasks exec … tee: prints", strings.TrimSpace(typed.Stdout))

	q.Step("type an exec whose input is empty: it ends before the exec begins, too early for ctr's CloseIO, and the program waits")
	ctr := q.StartBackground("ctr", "-n", d.Namespace, "tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "empty", id, "cat")
	waits := false
	proc.WaitFor(q, func(t poll.LogT) poll.Result {
		fifos, _ := filepath.Glob(filepath.Join(d.FifoDir, "*", "empty-stdin"))
		if len(fifos) == 1 { // ctr has no end of it, and the shim has both
			waits = proc.HasAccessModes(ctr.PID(), fifos[0])(t).Done() && proc.HasAccessModes(shim.PID, fifos[0], "read", "write")(t).Done()
		}
		if waits || ctr.Ended() {
			return poll.Success()
		}
		return poll.Continue("ctr has not ended, and the shim has not both ends of its FIFO %v", fifos)
	})
	if waits {
		process, err := task.LoadProcess(ctx, "empty", nil)
		assert.NilError(q, err)
		q.LogCommand("# Go client: process.CloseIO(ctx, WithStdinCloser)   # of exec empty")
		assert.NilError(q, process.CloseIO(ctx, containerd.WithStdinCloser))
	}
	assert.Check(q, cmp.Equal(ctr.ExitCode(), 0), "exit code of ctr tasks exec … cat: %s", ctr.Stderr())
	outcome := map[bool]string{true: "another client had to call CloseIO", false: "ctr has called CloseIO"}[waits]
	q.Fact("ctr tasks exec … cat < /dev/null", lab.Chance(outcome))

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
