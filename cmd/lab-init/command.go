package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/protocol"
)

// runCommand runs the job's command, waits for its end, and returns how it ended. Processes that the command has left may hold its
// pipes open, and nothing waits for them any more: endLeftovers ends them.
func runCommand(c *control, job *protocol.Job, endLeftovers func()) (*protocol.Exit, error) {
	exit := new(protocol.Exit)
	stdin, err := os.Open("/dev/null")
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{Dir: job.Dir, Env: job.Env, Sys: &syscall.SysProcAttr{Setsid: true}}
	var (
		pumps []*outputPump
		term  *terminal
	)
	if job.Terminal {
		if term, err = newTerminal(); err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
		pumps = append(pumps, &term.outputPump)
		attr.Files = []uintptr{term.w.Fd(), term.w.Fd(), term.w.Fd()}
		attr.Sys.Setctty = true
	} else {
		out, err := newOutputPump(protocol.StdoutPort)
		if err != nil {
			return nil, err
		}
		pumps = append(pumps, out)
		errs := out
		if !job.MergeOutput {
			if errs, err = newOutputPump(protocol.StderrPort); err != nil {
				return nil, err
			}
			pumps = append(pumps, errs)
		}
		attr.Files = []uintptr{stdin.Fd(), out.w.Fd(), errs.w.Fd()}
	}
	pid, err := syscall.ForkExec(job.Args[0], job.Args, attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", job.Args[0], err)
	}
	if term != nil {
		term.startInput()
	}
	for _, p := range pumps {
		p.start()
	}
	go c.sendHeartbeats()
	go c.handleRequests(func(r protocol.Request) {
		switch {
		case r.Signal != 0:
			_ = unix.Kill(pid, unix.Signal(r.Signal))
		case r.Rows != 0 && term != nil:
			term.resize(r.Rows, r.Cols)
		}
	})
	status, err := reapUntil(pid)
	if err != nil {
		return nil, err
	}
	exit.Code = status.ExitStatus()
	if status.Signaled() {
		exit.Signal, exit.Code = int(status.Signal()), 128+int(status.Signal())
	}
	endLeftovers()
	for i, p := range pumps {
		n, err := p.finish()
		if err != nil {
			return nil, err
		}
		*[]*int64{&exit.Stdout, &exit.Stderr}[i] = n
	}
	return exit, nil
}

// reapUntil reaps every child process as soon as it ends, orphans as well, and returns when the process pid has ended.
// Pid 1 of a container host has to do that: a zombie holds its pid and its cgroup.
func reapUntil(pid int) (unix.WaitStatus, error) {
	for {
		var s unix.WaitStatus
		switch got, err := unix.Wait4(-1, &s, 0, nil); {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case got == pid:
			// Other processes are still reaped until the machine is switched off.
			go func() {
				for {
					if _, err := unix.Wait4(-1, nil, 0, nil); err == unix.ECHILD {
						time.Sleep(10 * time.Millisecond)
					}
				}
			}()
			return s, nil
		}
	}
}

// outputPump copies a pipe of the command to a port. The command gets a pipe, as it would from a shell. One write to the
// port carries many writes of the command: each write to the port costs an exit from the VM.
type outputPump struct {
	r, w, port *os.File
	sent       int64 // bytes written to the port
	err        error
	done       chan struct{}
}

// lastOutputDelay is how long the pipe may stay open after the command has ended and all processes were killed. A process
// in a frozen cgroup does not die of SIGKILL, and keeps its pipe open.
var lastOutputDelay = 2 * time.Second

func newOutputPump(port string) (*outputPump, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	to, err := openPort(port)
	return &outputPump{r: r, w: w, port: to, done: make(chan struct{})}, err
}

// start begins to copy. The command has the write end of the pipe by now.
func (p *outputPump) start() {
	p.w.Close()
	go func() {
		defer close(p.done)
		// Not io.Copy: it would try splice(2), which a port does not support.
		buf := make([]byte, 64<<10)
		for {
			n, err := p.r.Read(buf)
			if os.IsTimeout(err) {
				n, err = p.readNow(buf)
			}
			if n > 0 {
				w, werr := p.port.Write(buf[:n])
				p.sent += int64(w)
				if werr != nil {
					p.err = werr
					return
				}
			}
			if err != nil {
				// A terminal reports EIO when its last user has closed it.
				if err != io.EOF && !errors.Is(err, unix.EIO) {
					p.err = err
				}
				return
			}
		}
	}()
}

// readNow reads what is in the pipe, also after the deadline: while a slow reader on the host held up the port, the
// command's last output waited in the pipe. It returns io.EOF when the pipe is empty.
func (p *outputPump) readNow(buf []byte) (n int, err error) {
	conn, err := p.r.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	err = conn.Control(func(fd uintptr) { n, readErr = unix.Read(int(fd), buf) })
	switch {
	case err != nil:
		return 0, err
	case readErr == unix.EAGAIN, readErr == nil && n == 0:
		return 0, io.EOF
	case readErr == unix.EINTR:
		return 0, nil
	}
	return max(n, 0), readErr
}

// finish waits for the last output, and returns how many bytes were sent. It waits as long as the host takes to read them.
func (p *outputPump) finish() (int64, error) {
	_ = p.r.SetReadDeadline(time.Now().Add(lastOutputDelay))
	<-p.done
	return p.sent, p.err
}
