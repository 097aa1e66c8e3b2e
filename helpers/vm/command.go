//go:build linux

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"cdblab/helpers/slowness"
	"cdblab/helpers/vm/protocol"
)

// Variables, so that a test can make them shorter.
var (
	bootTimeout    = 2 * time.Minute  // under emulation, with the host's CPUs busy
	silenceTimeout = time.Minute      // pid 1 sends a message every two seconds
	exitTimeout    = 10 * time.Second // for QEMU to end after the guest's control port has ended
	drainTimeout   = 5 * time.Minute  // for the output that is still in the queues when the command has ended
	timeoutMargin  = 90 * time.Second // after the test binary's own -test.timeout, which prints the goroutine dump
)

// AllowForSlowness makes the deadlines longer where this machine is slow. cmd/lab calls it before it runs a command. Only the first call
// has an effect.
func AllowForSlowness() { allowForSlowness() }

var allowForSlowness = sync.OnceFunc(func() {
	// `true` is a hundredth of the work of a boot, but every machine has it. A busy machine starts it ten times as slowly as usual.
	slowness.Set(slowness.Measure(nil, "true"))
	for _, deadline := range []*time.Duration{
		&bootTimeout, &silenceTimeout, &exitTimeout, &drainTimeout, &timeoutMargin, &probeTimeout, &quickLimit, &aptLimit, &buildLimit,
		&diskBootTimeout, &diskLoginTimeout,
	} {
		*deadline = slowness.Scale(*deadline)
	}
})

// A Command is a command that runs in a throw-away VM. Like an exec.Cmd, it holds the input of one run, and [Command.Run]
// runs it.
type Command struct {
	Config
	Args   []string // a test binary and its arguments; none: a shell on a terminal
	Cache  *Cache
	Log    func(format string, args ...any) // reports progress to the person at the terminal
	Stdout io.Writer
	Stderr io.Writer // may be the same file as Stdout; the order of the lines is then kept
	Stdin  io.Reader // for a command on a terminal; may be nil

	Terminal bool // a test binary gets a terminal: Stdin and Stdout. A shell always has one.

	OnReady func() // called when the guest has booted; may be nil

	// Requests to the command: signals, and the size of the terminal. May be nil.
	Requests <-chan protocol.Request
}

// A Result is the result of a command that ended by itself.
type Result struct {
	ExitCode int
	Tests    TestCount // for a test binary
	Config   Config    // the settings that were used: Accel is kvm or tcg, and CPUs is never 0
	Release  string    // of the kernel, as uname -r prints it
	Spare    int       // the least memory that the guest had left at a heartbeat, in MiB; 0 if no heartbeat came
}

// Memory returns the memory of the machine, and how much of it was never used, for the closing line of a run.
func (r *Result) Memory() string {
	if r.Spare == 0 {
		return fmt.Sprintf("%d MB", r.Config.Memory)
	}
	return fmt.Sprintf("%d MB (%d never used)", r.Config.Memory, r.Spare)
}

// Advice returns what to do about a guest that was short of memory, or "".
func (r *Result) Advice() string {
	if r.Spare == 0 || r.Spare >= lowMemory {
		return ""
	}
	return "the VM was short of memory: then it reads its programs from the disk again and again, and may stand still; " +
		moreMemory(r.Config.Memory)
}

// TestSummary returns the number of tests, for the closing line of a run.
func (r *Result) TestSummary() string {
	if r.Tests.Passed == 0 && r.ExitCode == 0 {
		return "no test was seen to run (go test prints their names only with -v)"
	}
	return r.Tests.String()
}

// Stopped is the cause of a context that was cancelled because the user stopped the run.
type Stopped struct{ Code int }

func (s *Stopped) Error() string { return "stopped; the VM is gone" }

// Run boots the VM, runs the command and waits for its end. An error means that nothing is known about the command: it
// is a [*Stopped], or a failure of the machine such as a [*Fault].
func (c *Command) Run(ctx context.Context) (*Result, error) {
	result, err := c.run(ctx)
	if stopped, ok := errors.AsType[*Stopped](context.Cause(ctx)); ok && err != nil {
		return nil, stopped // and not what the stop broke
	}
	return result, err
}

func (c *Command) run(ctx context.Context) (*Result, error) {
	program := shellProgram()
	switch {
	case c.Disk != "":
		program = diskProgram(c.Config, c.Args, c.Terminal || len(c.Args) == 0)
	case len(c.Args) > 0:
		var err error
		if program, err = testProgram(ctx, c.Args, c.Log); err != nil {
			return nil, err
		}
		program.terminal = c.Terminal
	}
	if c.Terminal {
		program.timeout = 0 // a person at the terminal has no deadline
	}
	conf := c.Config
	if err := conf.check(); err != nil {
		return nil, err
	}
	release, err := c.Cache.use(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	q, err := findQEMU(ctx)
	if err != nil {
		return nil, err
	}
	start := c.startLab
	if conf.Disk != "" {
		start = c.startDisk
	}
	result := new(Result)
	m, job, err := start(ctx, q, &conf, program, result)
	if err != nil {
		return nil, err
	}
	defer m.kill()
	result.Config = conf
	tests := new(testCounter)
	if result.ExitCode, err = c.follow(ctx, m, job, program, tests); err != nil {
		return nil, err
	}
	result.Tests, result.Spare = tests.count, m.spare
	return result, nil
}

// guestPorts are the ports that lab-init opens.
var guestPorts = []string{protocol.ControlPort, protocol.StdoutPort, protocol.StderrPort, protocol.ResultsPort}

// startLab starts the lab's own VM, and returns the job for it. It completes the settings.
func (c *Command) startLab(
	ctx context.Context, q *qemu, conf *Config, program *guestProgram, result *Result,
) (*machine, *protocol.Job, error) {
	init, err := c.Cache.buildInit(ctx, c.Log)
	if err != nil {
		return nil, nil, err
	}
	k, err := c.Cache.findKernel(ctx, conf.Kernel, c.Log)
	if err != nil {
		return nil, nil, err
	}
	result.Release = k.release
	if conf.Accel, err = c.Cache.chooseAccelerator(ctx, q, conf.Accel, q.probe(k, init), c.Log); err != nil {
		return nil, nil, err
	}
	conf.setDefaultCPUs()
	toolsImage, toolEnv, err := c.Cache.toolsImage(ctx, k, c.Log)
	if err != nil {
		return nil, nil, err
	}
	var disks machineDisks
	if disks.initrd, err = c.Cache.initrd(k, init); err != nil {
		return nil, nil, err
	}
	defer disks.initrd.Close()
	if disks.tools, err = os.Open(toolsImage); err != nil {
		return nil, nil, err
	}
	defer disks.tools.Close()
	if disks.work, err = c.Cache.workImage(program.files); err != nil {
		return nil, nil, err
	}
	defer disks.work.Close()
	job := newJob(program, *conf, append([]string{"CDB_CGROUP=" + conf.Cgroup}, toolEnv...), sameFile(c.Stdout, c.Stderr))
	job.Cgroup = conf.Cgroup
	c.Log("booting Linux %s in the VM", k.release) // without KVM this takes long enough for a reader to wonder
	m, err := q.start(*conf, k, disks, "", guestPorts...)
	return m, job, err
}

// follow sends the job to the guest, copies the command's output, and returns the command's exit code. tests receives a
// copy of the command's stdout.
func (c *Command) follow(ctx context.Context, m *machine, job *protocol.Job, p *guestProgram, tests io.Writer) (int, error) {
	archive, err := unnamedFile(c.Cache.dir, nil)
	if err != nil {
		return 0, diskFault("create a file for the results", c.Cache.dir, err)
	}
	defer archive.Close()
	left := make(chan struct{})
	defer close(left)
	messages, garbage := receiveMessages(m.ports[protocol.ControlPort], left)
	// A guest that does not read its port must not hold up a run that was stopped.
	stop := context.AfterFunc(ctx, func() { _ = m.ports[protocol.ControlPort].SetWriteDeadline(time.Now()) })
	defer stop()
	var (
		stdout  = startCopy(m.ports[protocol.StdoutPort], io.MultiWriter(tests, c.Stdout))
		stderr  = startCopy(m.ports[protocol.StderrPort], c.Stderr)
		results = startCopy(m.ports[protocol.ResultsPort], &limitedWriter{archive, maxResultBytes})
		control = json.NewEncoder(m.ports[protocol.ControlPort])
		silence = newSilenceTimer(bootTimeout)
		ready   = false
		look    <-chan time.Time // at the console, while a disk of the user boots
		late    <-chan time.Time // the tests did not end after their own -timeout
		tried   = "boot the VM"
		watch   = again + ". If it happens again, watch the console with CDB_VM_CONSOLE=1"
	)
	defer silence.Stop()
	if p.boot != nil {
		silence.Stop() // what the console shows tells more
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case msg, ok := <-messages:
			silence.heard(m.silence())
			switch {
			case !ok:
				select {
				case <-m.exited:
				case <-ctx.Done():
				case <-time.After(exitTimeout):
				}
				return 0, m.fault(tried, "the guest ended before it reported how the command ended: "+m.exitState(), watch)
			case msg.Ready && ready:
				return 0, m.fault(tried, "the guest booted again while the command ran", watch)
			case msg.Ready:
				ready, tried = true, "run "+job.Args[0]+" in the VM"
				look = nil
				if p.timeout > 0 {
					// From now on: the boot has limits of its own, and a disk of the user may boot for half an hour. The guest's
					// pid 1 sets up the machine before it starts the tests, so the time of a boot is added.
					late = time.After(p.timeout + timeoutMargin + bootTimeout)
				}
				job.Now = time.Now().UnixNano() // not the time before the boot: a clock that is right would be set back
				if err := control.Encode(job); err != nil {
					return 0, m.fault("send the job to the guest", err.Error(), again)
				}
				if c.OnReady != nil {
					c.OnReady()
				}
				if c.Stdin != nil {
					go func() { _, _ = io.Copy(m.ports[protocol.StdoutPort], c.Stdin) }()
				}
			case msg.Alive:
				m.heartbeat(msg.Available)
			case msg.Note != "":
				c.Log("%s", msg.Note)
			case msg.Fault != "":
				return 0, m.fault(tried, "the guest reports: "+msg.Fault, "")
			case msg.Exit != nil && !ready:
				return 0, m.fault(tried, "the guest reported the end of a command before it had received one", watch)
			case msg.Exit != nil && msg.Exit.Results > maxResultBytes:
				return 0, tooManyResults(fmt.Sprintf("the guest sent more than %d MiB", maxResultBytes>>20))
			case msg.Exit != nil:
				for _, output := range []struct {
					name string
					*copier
					size int64
				}{{"standard output", stdout, msg.Exit.Stdout}, {"standard error", stderr, msg.Exit.Stderr}, {"the result files", results, msg.Exit.Results}} {
					if err := output.waitFor(ctx, output.size, drainTimeout); err != nil {
						return 0, m.fault("receive "+output.name, err.Error(), "check that the disk is not full, and run it again")
					}
				}
				if msg.Exit.Results > 0 {
					if err := writeResults(archive, msg.Exit.Results, p); err != nil {
						return 0, err
					}
				}
				if msg.Exit.Signal != 0 {
					c.Log("the command was killed by signal %d", msg.Exit.Signal)
				}
				return msg.Exit.Code, nil
			}
		case err := <-garbage:
			return 0, m.fault(tried, err.Error(), watch)
		case <-results.failed:
			if err := results.waitFor(ctx, 0, 0); !errors.Is(err, errTooMuch) {
				return 0, diskFault("receive the result files", c.Cache.dir, err)
			}
			return 0, tooManyResults(fmt.Sprintf("the guest sent more than %d MiB", maxResultBytes>>20))
		case request := <-c.Requests:
			if ready {
				_ = control.Encode(request)
			}
		case <-look:
			// QEMU has stopped the guest, so its console shows nothing more.
			if full := c.Cache.spaceFault(); full != "" {
				return 0, m.fault(tried, full, makeRoom)
			}
			if seen, do := p.boot.check(m.console.String()); seen != "" {
				return 0, m.fault(tried, seen, do)
			}
		case <-silence.C:
			if !silence.tick() {
				continue
			}
			if p.boot != nil { // the lab's own VM writes to no disk
				if full := c.Cache.spaceFault(); full != "" {
					return 0, m.fault(tried, full, makeRoom)
				}
			}
			return 0, m.fault(tried, fmt.Sprintf("the guest was silent for %v", silence.limit), watch+", or use ACCEL=tcg")
		case <-late:
			return 0, m.fault(tried,
				fmt.Sprintf("the tests did not end %v after their own -timeout of %v", timeoutMargin+bootTimeout, p.timeout), "")
		case <-ctx.Done():
			return 0, m.fault(tried, context.Cause(ctx).Error(), "")
		}
	}
}

// silenceTicks is how many ticks a silenceTimer counts.
const silenceTicks = 10

// A silenceTimer counts ticks since the guest's last message. One long timer would be wrong: when this process was stopped (Ctrl-Z) and
// goes on (fg), the timer has expired, although the guest has sent messages that are not read yet. Of the ticks of that time the
// process sees only one.
type silenceTimer struct {
	*time.Ticker
	limit time.Duration
	count int
}

func newSilenceTimer(limit time.Duration) *silenceTimer {
	return &silenceTimer{Ticker: time.NewTicker(limit / silenceTicks), limit: limit}
}

// heard begins to count again, after a message of the guest.
func (s *silenceTimer) heard(limit time.Duration) {
	s.limit, s.count = limit, 0
	s.Reset(limit / silenceTicks)
}

// tick counts a tick, and reports whether the guest was silent for too long.
func (s *silenceTimer) tick() bool {
	s.count++
	return s.count >= silenceTicks
}

// sameFile reports whether a and b write to the same file.
func sameFile(a, b io.Writer) bool {
	if a == b {
		return true
	}
	fileA, okA := a.(*os.File)
	fileB, okB := b.(*os.File)
	if !okA || !okB {
		return false
	}
	infoA, errA := fileA.Stat()
	infoB, errB := fileB.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
