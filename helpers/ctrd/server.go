//go:build linux

package ctrd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/tools"
)

// server is the process of a containerd, and where its files are.
type server struct {
	Address     string        // path of its gRPC socket
	Root        string        // directory of what survives a reboot: content, snapshots, metadata
	State       string        // directory of what does not: the tasks' bundles
	SocketDir   string        // directory of the shims' sockets
	RuncRoot    string        // directory of the runtime's state (--root), with a subdirectory for each containerd namespace
	StartupTime time.Duration // from the start of the process to its first answer

	dir     string                                  // directory of the configuration and the log
	toml    string                                  // the configuration
	command func(argv ...string) (*exec.Cmd, error) // prepares the command that starts the daemon
	cmd     *exec.Cmd                               // nil if the daemon does not run
	exited  chan error                              // receives the error of cmd when it ends
	service *service                                // how systemd runs the daemon, instead of cmd; nil if it does not

	answered []tools.Program // the daemon, the shim and the ctr that were used when the daemon answered last; nil before
}

// newServer writes the configuration of a containerd whose own directory is dir, which exists.
func newServer(session *lab.Session, programs underTest, dir string, c configuration,
	command func(argv ...string) (*exec.Cmd, error),
) (*server, error) {
	f, err := featuresOf(session, programs)
	if err != nil {
		return nil, err
	}
	settings, err := newSettings(dir, f)
	if err != nil {
		return nil, err
	}
	s := &server{
		Address: settings.Address, Root: settings.Root, State: settings.State,
		SocketDir: settings.SocketDir, RuncRoot: settings.RuncRoot,
		dir: dir, command: command,
	}
	if s.toml, err = c.toml(settings); err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.toml"), []byte(s.toml), 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("write containerd's configuration: %w", err)
	}
	if f.SocketDir {
		err = os.MkdirAll(settings.SocketDir, 0o755)
	}
	return s, err
}

// argv returns the command line of the daemon, which is started from the directory above its own. It has the flag --address although the
// configuration has the address, too: containerd ignores the table [grpc] of a configuration of version 4. Then only the flag names the
// socket of the daemon, and with it the TTRPC socket on which shims report.
func (s *server) argv() []string {
	return []string{"containerd", "--config", filepath.Base(s.dir) + "/config.toml", "--address", s.Address}
}

func (s *server) logPath() string { return filepath.Join(s.dir, "log") }

// start starts the process and waits until the daemon answers. It takes about 50 ms natively, and 3 s under emulation.
func (s *server) start() error {
	if s.service != nil {
		program, err := s.command("containerd")
		if err != nil {
			return err
		}
		return s.service.start(s, program.Path)
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open containerd's log: %w", err)
	}
	defer log.Close()
	cmd, err := s.command(s.argv()...)
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	// In a session of its own, as a service has: a Ctrl-C at the terminal is for the lab, which then stops its daemons in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	exited := make(chan error, 1)
	s.cmd, s.exited = cmd, exited // only now: stop ends a process, and a file that cannot be executed has none
	go func() { exited <- cmd.Wait() }()
	return s.waitReady(begin)
}

func (s *server) waitReady(begin time.Time) error {
	ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
	defer cancel()
	var client *containerd.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	for {
		select {
		case err := <-s.exited:
			s.exited <- err
			return fmt.Errorf("containerd ended before it answered: %v; the end of its log:\n%s", err, s.endOfLog())
		case <-ctx.Done():
			return fmt.Errorf("containerd did not answer on %s within %v; the end of its log:\n%s", s.Address, proc.Patience, s.endOfLog())
		case <-time.After(2 * time.Millisecond): // the interval of proc.WaitFor, which needs a testing.TB
		}
		// gRPC dials only once the socket accepts a connection. After a failure to connect, because the daemon is not ready
		// or because the socket is that of a daemon that has died, it would wait before it dials again.
		if c, err := net.Dial("unix", s.Address); err != nil {
			continue
		} else {
			c.Close()
		}
		if client == nil {
			var err error
			if client, err = containerd.New(s.Address, containerd.WithTimeout(proc.Patience)); err != nil {
				return fmt.Errorf("connect to containerd at %s: %w", s.Address, err)
			}
		}
		if _, err := client.Version(ctx); err == nil {
			s.StartupTime = time.Since(begin)
			return nil
		}
	}
}

// kill ends the process with SIGKILL and waits until it has ended.
func (s *server) kill() error {
	if s.cmd == nil {
		return errors.New("kill containerd: it does not run")
	}
	if err := s.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill containerd: %w", err)
	}
	<-s.exited
	s.cmd = nil
	return nil
}

// stop ends the process with SIGTERM and waits until it has ended.
func (s *server) stop() error {
	if s.service != nil {
		s.service.Do("stop")
		return nil
	}
	if s.cmd == nil {
		return nil
	}
	err := lab.Terminate(s.cmd, s.exited)
	s.cmd = nil
	return err
}

// runs reports whether the daemon was started and has not ended since, by a signal or by itself.
func (s *server) runs() bool {
	if s.service != nil {
		return s.service.Active()
	}
	if s.cmd == nil {
		return false
	}
	select {
	case err := <-s.exited:
		s.exited <- err // for kill and stop, which wait for it
		return false
	default:
		return true
	}
}

// endOfLog returns the last 10 lines of the daemon's log.
func (s *server) endOfLog() string {
	data, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
