//go:build linux

package ctrd

import (
	"bytes"
	"context"
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
)

// server is a containerd's process and its places.
type server struct {
	Address   string        // of its gRPC socket
	Root      string        // what survives a reboot: content, snapshots, metadata
	State     string        // what does not: the tasks' bundles
	SocketDir string        // the shims' sockets
	RuncRoot  string        // the runtime's state directory (--root), one below for each namespace
	Ready     time.Duration // from the start of the process to the first answer

	dir     string
	toml    string // the configuration, which is in dir/config.toml
	command func(argv ...string) (*exec.Cmd, error)
	cmd     *exec.Cmd
	exited  chan error
}

// newServer writes the configuration of a containerd whose places are below dir, which exists.
func newServer(session *lab.Session, dir string, extra []string, command func(argv ...string) (*exec.Cmd, error)) (*server, error) {
	as, err := featuresOf(session)
	if err != nil {
		return nil, err
	}
	p, err := newPaths(dir, as)
	if err != nil {
		return nil, err
	}
	p.Extra = extra
	var toml bytes.Buffer
	if err := config.Execute(&toml, p); err != nil {
		return nil, fmt.Errorf("write containerd's configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), toml.Bytes(), 0o644); err != nil {
		return nil, fmt.Errorf("write containerd's configuration: %w", err)
	}
	if as.SocketDir {
		err = os.MkdirAll(p.SocketDir, 0o755)
	}
	return &server{
		Address: p.Address, Root: p.Root, State: p.State, SocketDir: p.SocketDir, RuncRoot: p.RuncRoot,
		dir: dir, toml: toml.String(), command: command,
	}, err
}

// argv is how the daemon is started, from the directory above its own. --address besides the configuration's, because the
// address of the shims' callbacks is derived from the flag.
func (s *server) argv() []string {
	return []string{"containerd", "--config", filepath.Base(s.dir) + "/config.toml", "--address", s.Address}
}

func (s *server) log() string { return filepath.Join(s.dir, "log") }

// readyTimeout is how long a daemon may take to answer: natively it takes some 50 ms, under emulation 3 s.
const readyTimeout = time.Minute

// start starts the process and waits until it answers.
func (s *server) start() error {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open containerd's log: %w", err)
	}
	defer log.Close()
	if s.cmd, err = s.command(s.argv()...); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	// A Ctrl-C at the terminal is for the lab, which then ends its daemons in order.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	cmd, exited := s.cmd, make(chan error, 1)
	s.exited = exited
	go func() { exited <- cmd.Wait() }()
	return s.waitReady(begin)
}

func (s *server) waitReady(begin time.Time) error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
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
			return fmt.Errorf("containerd ended before it was ready: %v; its last words:\n%s", err, s.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer on %s after %v; its last words:\n%s", s.Address, readyTimeout, s.lastWords())
		case <-time.After(2 * time.Millisecond):
		}
		// To let gRPC dial earlier, or at the socket of a daemon that has died, would only make it wait before it dials again.
		if c, err := net.Dial("unix", s.Address); err != nil {
			continue
		} else {
			c.Close()
		}
		if client == nil {
			var err error
			if client, err = containerd.New(s.Address, containerd.WithTimeout(readyTimeout)); err != nil {
				return fmt.Errorf("connect to containerd at %s: %w", s.Address, err)
			}
		}
		if _, err := client.Version(ctx); err == nil {
			s.Ready = time.Since(begin)
			return nil
		}
	}
}

// kill ends the process with SIGKILL and waits until it has gone.
func (s *server) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill containerd: %w", err)
	}
	<-s.exited
	s.cmd = nil
	return nil
}

// stop ends the process with SIGTERM and waits until it has gone.
func (s *server) stop() error {
	if s.cmd == nil {
		return nil
	}
	err := lab.Terminate(s.cmd, s.exited)
	s.cmd = nil
	return err
}

func (s *server) lastWords() string {
	data, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
