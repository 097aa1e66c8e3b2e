package main

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/wire"
)

// command runs the job's command to its end and returns how it ended.
func command(c *control, job *wire.Job) (*wire.Exit, error) {
	exit := new(wire.Exit)
	stdin, err := os.Open("/dev/null")
	if err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{Dir: job.Dir, Env: job.Env, Sys: &syscall.SysProcAttr{Setsid: true}}
	var (
		pumps []*pump
		term  *terminal
	)
	if job.Terminal {
		if term, err = newTerminal(); err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
		attr.Files = []uintptr{term.slave.Fd(), term.slave.Fd(), term.slave.Fd()}
		attr.Sys.Setctty = true
	} else {
		out, err := newPump(wire.Stdout)
		if err != nil {
			return nil, err
		}
		pumps = append(pumps, out)
		errs := out
		if !job.Merge {
			if errs, err = newPump(wire.Stderr); err != nil {
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
		term.start()
	}
	for _, p := range pumps {
		p.start()
	}
	go c.heartbeat()
	go c.obey(func(o wire.Order) {
		switch {
		case o.Signal != 0:
			_ = unix.Kill(pid, unix.Signal(o.Signal))
		case o.Rows != 0 && term != nil:
			term.resize(o.Rows, o.Cols)
		}
	})
	status, err := reap(pid)
	if err != nil {
		return nil, err
	}
	exit.Code = status.ExitStatus()
	if status.Signaled() {
		exit.Signal, exit.Code = int(status.Signal()), 128+int(status.Signal())
	}
	// What the command left behind may hold its pipes open, and nobody waits for it any more.
	_ = unix.Kill(-1, unix.SIGKILL)
	for i, p := range pumps {
		n, err := p.finish()
		if err != nil {
			return nil, err
		}
		*[]*int64{&exit.Stdout, &exit.Stderr}[i] = n
	}
	if term != nil {
		exit.Stdout = term.finish()
	}
	return exit, nil
}

// reap waits for every child, its own and those that lost their parent, at once, and returns when pid is gone. Pid 1
// of a container host has to: a zombie holds its pid and its cgroup.
func reap(pid int) (unix.WaitStatus, error) {
	var main unix.WaitStatus
	for {
		var s unix.WaitStatus
		switch got, err := unix.Wait4(-1, &s, 0, nil); {
		case err == unix.EINTR:
		case err != nil:
			return main, fmt.Errorf("wait: %w", err)
		case got == pid:
			// Others keep being reaped until the machine is switched off.
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

// pump carries a pipe of the command to a port. The command gets a pipe, as it would from a shell, and one write to
// the port carries many of the command's: each costs an exit from the VM.
type pump struct {
	r, w, port *os.File
	n          int64
	err        error
	done       chan struct{}
}

func newPump(port string) (*pump, error) {
	p := &pump{done: make(chan struct{})}
	var err error
	if p.r, p.w, err = os.Pipe(); err != nil {
		return nil, err
	}
	p.port, err = openPort(port)
	return p, err
}

func (p *pump) start() {
	p.w.Close()
	go func() {
		defer close(p.done)
		// Not io.Copy: it would try to splice, and a port can't.
		buf := make([]byte, 64<<10)
		for {
			n, err := p.r.Read(buf)
			if n > 0 {
				w, werr := p.port.Write(buf[:n])
				p.n += int64(w)
				if werr != nil {
					p.err = werr
					return
				}
			}
			if err != nil {
				if err != io.EOF && !os.IsTimeout(err) {
					p.err = err
				}
				return
			}
		}
	}()
}

func (p *pump) finish() (int64, error) {
	// A process that a frozen cgroup holds does not die of SIGKILL, and its pipe stays open.
	_ = p.r.SetReadDeadline(time.Now().Add(2 * time.Second))
	<-p.done
	return p.n, p.err
}
