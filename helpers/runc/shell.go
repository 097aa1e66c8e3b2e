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

	"al.essio.dev/pkg/shellescape"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cdblab/helpers/bundle"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// shellScript is a program that runs commands: it reads them from one FIFO of the rootfs, and writes their output and exit
// code into another FIFO. A FIFO can be written also on a file system that is read-only.
const shellScript = `exec 3<>/.ask-$0 4<>/.tell-$0; while read -r line <&3; do eval "$line" >&4 2>&1; echo "=$?" >&4; done`

// Shell is a shell that runs as the program of a container. Commands are sent to it through a FIFO.
type Shell struct {
	q                 *lab.Q
	commands, replies *os.File
	lines             *bufio.Reader
}

// Reply is the result of a command in a [Shell].
type Reply struct {
	Out  string // stdout and stderr
	Code int
}

// UseShell makes the program of the container a shell, and returns it. Call it before Create.
func (c *Container) UseShell() *Shell {
	c.q.Helper()
	c.Bundle.Edit(func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", shellScript, c.ID} })
	s := &Shell{q: c.q}
	s.commands, s.replies = s.makeFIFO(c.Bundle.Rootfs(".ask-"+c.ID)), s.makeFIFO(c.Bundle.Rootfs(".tell-"+c.ID))
	s.lines = bufio.NewReader(s.replies)
	return s
}

// makeFIFO makes a FIFO and opens it.
func (s *Shell) makeFIFO(path string) *os.File {
	s.q.Helper()
	_ = os.Remove(path)
	if err := unix.Mkfifo(path, 0o666); err != nil {
		s.q.Fatalf("make a FIFO: %v", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // Mkfifo applied the umask, but the program may have another user id
		s.q.Fatal(err)
	}
	// It is opened for reading and writing, so that neither side waits for the other, and non-blocking, so that deadlines work.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		s.q.Fatalf("open a FIFO: %v", err)
	}
	s.q.TB.Cleanup(func() { f.Close() })
	s.q.Cleanup(func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // the same path may be used twice
			s.q.Errorf("remove a FIFO: %v", err)
		}
	})
	s.q.LogCommand("mkfifo -m 666 %s", strings.TrimPrefix(path, s.q.Dir+"/"))
	return f
}

// Send sends a command to the shell, and does not wait for its reply.
func (s *Shell) Send(command string) {
	s.q.Helper()
	s.q.LogCommand("echo %s > %s", shellescape.Quote(command), filepath.Base(s.commands.Name()))
	if _, err := s.commands.WriteString(command + "\n"); err != nil {
		s.q.Fatalf("send the command %q to the shell in the container: %v", command, err)
	}
}

// Run sends a command to the shell, and waits for its reply.
func (s *Shell) Run(command string) Reply {
	s.q.Helper()
	s.Send(command)
	reply, err := s.Receive()
	if err != nil {
		s.q.Fatalf("the shell in the container has not replied to %q within %v (%v); it has written %q", command, proc.Patience, err, reply.Out)
	}
	return reply
}

// Receive waits for the reply to the command that was sent last.
func (s *Shell) Receive() (Reply, error) {
	if err := s.replies.SetReadDeadline(time.Now().Add(proc.Patience)); err != nil {
		return Reply{}, err
	}
	var out strings.Builder
	for {
		line, err := s.lines.ReadString('\n')
		if at := strings.LastIndex(line, "="); at >= 0 && err == nil {
			// The last line that the command wrote may have no newline.
			if code, notANumber := strconv.Atoi(strings.TrimSpace(line[at+1:])); notANumber == nil {
				out.WriteString(line[:at])
				return Reply{Out: strings.TrimSpace(out.String()), Code: code}, nil
			}
		}
		out.WriteString(line)
		if err != nil {
			return Reply{Out: out.String()}, errors.Join(errors.New("the reply has no end"), err)
		}
	}
}

// StartWithShell creates and starts another container of the bundle, whose program is a [Shell].
func StartWithShell(q *lab.Q, b *bundle.Bundle, name string, edits ...func(*specs.Spec)) (*Container, *Shell, proc.Process) {
	q.Helper()
	c := Variant(q, b, name, edits...)
	sh := c.UseShell()
	return c, sh, c.CreateAndStart()
}
