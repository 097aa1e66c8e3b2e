//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/host"
)

// Result is what a command left: its exit code and what it wrote.
type Result struct {
	Argv   []string
	Code   int // 0 to 255; -1 for a command that a signal ended
	Stdout string
	Stderr string
}

func (r Result) String() string {
	return fmt.Sprintf("$ %s\nexit code %d\nstdout: %s\nstderr: %s", quote(r.Argv), r.Code,
		strings.TrimSpace(r.Stdout), strings.TrimSpace(r.Stderr))
}

// Exec runs a command as the reader would type it in the question's directory, notes it, and returns what came of it,
// whatever that is. A command that has not ended by its deadline fails the question with what was running then.
//
// The command writes to files, not to pipes: a container that `runc create` or `runc run -d` leaves behind goes on
// holding what it inherited, and who reads a pipe to its end would wait for the container's.
func (q *Q) Exec(argv ...string) Result {
	q.Helper()
	q.notes.command(quote(argv), quote(argv))
	stdout, stderr := q.memfd("stdout"), q.memfd("stderr")
	defer stdout.Close()
	defer stderr.Close()

	ctx, cancel := context.WithTimeoutCause(context.Background(), commandTimeout(), errDeadline)
	defer cancel()
	cmd := q.Cmd(ctx, argv...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	var running string
	cmd.Cancel = func() error {
		running = q.running()
		return cmd.Process.Kill()
	}
	err := cmd.Run()
	r := Result{Argv: argv, Code: cmd.ProcessState.ExitCode(), Stdout: readAll(q, stdout), Stderr: readAll(q, stderr)}
	var exit *exec.ExitError
	switch {
	case context.Cause(ctx) == errDeadline:
		q.Fatalf("no end after %v (%s sets another deadline). It was killed. What was running:\n%s%s",
			commandTimeout(), timeoutEnv, running, r)
	case err != nil && !errors.As(err, &exit):
		q.Fatalf("run %s: %v", quote(argv), err)
	}
	return r
}

// Must runs a command that has to succeed.
func (q *Q) Must(argv ...string) Result {
	q.Helper()
	r := q.Exec(argv...)
	if r.Code != 0 {
		q.Fatalf("this command had to succeed:\n%s", r)
	}
	return r
}

// Cmd prepares a command with the question's environment and directory. Prefer [Q.Must] and [Q.Exec]; this is for what
// runs beside the question, such as a daemon.
func (q *Q) Cmd(ctx context.Context, argv ...string) *exec.Cmd {
	q.Helper()
	path, err := q.session.lookPath(argv[0])
	if err != nil {
		q.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Dir = q.Dir
	cmd.Env = q.Environ()
	return cmd
}

// environment is what a question adds to the environment of its commands, in order.
type environment struct {
	pairs     [][2]string
	suggested []string // commands worth typing when the state is kept
}

// Env sets a variable for the question's commands, which inherit the test's own environment besides.
func (q *Q) SetCommandEnv(key, value string) {
	q.env.pairs = append(q.env.pairs, [2]string{key, value})
}

// Export sets a variable as [Q.SetCommandEnv] does, and notes it, for commands that cannot be pasted without.
func (q *Q) Export(key, value string) {
	q.SetCommandEnv(key, value)
	export := "export " + key + "=" + quote([]string{value})
	q.logSetUp(export, export)
}

// Environ is the environment of the question's commands.
func (q *Q) Environ() []string {
	env := append(os.Environ(), "PATH="+q.session.binDir()+":"+os.Getenv("PATH"))
	for _, p := range q.env.pairs {
		env = append(env, p[0]+"="+p[1])
	}
	return env
}

// Cmd is [Q.Cmd] for what serves all questions of the run: it works in a directory of [Session.Mkdir].
func (s *Session) Cmd(dir string, argv ...string) (*exec.Cmd, error) {
	path, err := s.lookPath(argv[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+s.binDir()+":"+os.Getenv("PATH"), host.OwnerEnv+"="+s.run.Dir())
	return cmd, nil
}

// running describes the processes that the question has at this moment.
func (q *Q) running() string {
	ps, err := host.Processes()
	if err != nil {
		return err.Error() + "\n"
	}
	var out strings.Builder
	for _, p := range ps {
		if p.OwnedBy(q.Owner) {
			wchan, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", p.PID))
			fmt.Fprintf(&out, "  %s, sleeping in %s\n", p, wchan)
		}
	}
	return out.String()
}

const timeoutEnv = "CDB_TIMEOUT"

var errDeadline = errors.New("deadline of the command")

// commandTimeout is how long one command may take. Even under emulation none takes a tenth of the default.
func commandTimeout() time.Duration {
	if d, err := time.ParseDuration(os.Getenv(timeoutEnv)); err == nil && d > 0 {
		return d
	}
	return time.Minute
}

// memfd makes a file that has no name and so leaves nothing behind.
func (q *Q) memfd(name string) *os.File {
	q.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		q.Fatalf("memfd_create: %v", err)
	}
	return os.NewFile(uintptr(fd), name)
}

func readAll(q *Q, f *os.File) string {
	q.Helper()
	// The command shared the file's offset with us: read from the beginning.
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		q.Fatalf("read what the command wrote to its %s: %v", f.Name(), err)
	}
	return string(data)
}

// Interrupt asks a process to end and waits for it; one that does not end within the deadline of a command is killed,
// and that is an error.
func Terminate(cmd *exec.Cmd, wait <-chan error) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-wait:
		return nil
	case <-time.After(commandTimeout()):
		_ = cmd.Process.Kill()
		<-wait
		return fmt.Errorf("%s did not end within %v after SIGTERM and was killed", cmd.Path, commandTimeout())
	}
}
