//go:build linux

package runc

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// obey is a program that does what it is told: it reads commands from one FIFO of the rootfs and writes what came of them
// to another. A FIFO can be written also where the file system is read-only.
const shellScript = `exec 3<>/.ask-$0 4<>/.tell-$0; while read -r line <&3; do eval "$line" >&4 2>&1; echo "=$?" >&4; done`

// Shell speaks with an obedient program.
type Shell struct {
	q                 *lab.Q
	commands, replies *os.File
	lines             *bufio.Reader
}

// Reply is what came of a command.
type Reply struct {
	Out  string // stdout and stderr
	Code int
}

// Obey makes the container's program one that does what the shell tells it. Call it before Create.
func (c *Container) UseShell() *Shell {
	c.q.Helper()
	c.Bundle.Edit(func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", shellScript, c.ID} })
	s := &Shell{q: c.q}
	s.commands, s.replies = s.fifo(c.Bundle.Rootfs(".ask-"+c.ID)), s.fifo(c.Bundle.Rootfs(".tell-"+c.ID))
	s.lines = bufio.NewReader(s.replies)
	return s
}

func (s *Shell) fifo(path string) *os.File {
	s.q.Helper()
	_ = os.Remove(path)
	if err := unix.Mkfifo(path, 0o666); err != nil {
		s.q.Fatalf("make a FIFO: %v", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // past the umask: the program may be another user
		s.q.Fatal(err)
	}
	// For both reading and writing, so that neither side waits for the other; non-blocking, so that deadlines work.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		s.q.Fatalf("open a FIFO: %v", err)
	}
	s.q.TB.Cleanup(func() { f.Close() })
	s.q.LogCommand("mkfifo -m 666 %s", strings.TrimPrefix(path, s.q.Dir+"/"))
	return f
}

// Tell has the program run a command, and does not wait.
func (s *Shell) Send(command string) {
	s.q.Helper()
	s.q.LogCommand("echo %s > %s", quote(command), filepath.Base(s.commands.Name()))
	if _, err := s.commands.WriteString(command + "\n"); err != nil {
		s.q.Fatalf("tell the program %q: %v", command, err)
	}
}

// Ask has the program run a command, and waits for what comes of it.
func (s *Shell) Run(command string) Reply {
	s.q.Helper()
	s.Send(command)
	r, err := s.receive()
	if err != nil {
		s.q.Fatalf("the container's program did not answer to %q within %v (%v); it said %q", command, proc.Patience, err, r.Out)
	}
	return r
}

// Answer waits for what comes of the command that was told last.
func (s *Shell) Receive() (Reply, error) { return s.receive() }

func (s *Shell) receive() (Reply, error) {
	if err := s.replies.SetReadDeadline(time.Now().Add(proc.Patience)); err != nil {
		return Reply{}, err
	}
	var out strings.Builder
	for {
		line, err := s.lines.ReadString('\n')
		if at := strings.LastIndex(line, "="); at >= 0 && err == nil {
			// What the command wrote may lack its last newline.
			if n, bad := strconv.Atoi(strings.TrimSpace(line[at+1:])); bad == nil {
				out.WriteString(line[:at])
				return Reply{Out: strings.TrimSpace(out.String()), Code: n}, nil
			}
		}
		out.WriteString(line)
		if err != nil {
			return Reply{Out: out.String()}, errors.Join(errors.New("no end of the answer"), err)
		}
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
