//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/proc"
)

// Result is the result of a command: its exit code and what it wrote.
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

// Exec notes a command, runs it in the question's directory as a reader would, and returns its result, whatever the exit code
// is. A command that has not ended by its deadline fails the question. The message lists the processes that ran then.
//
// The command writes to files, not to pipes. A container that `runc create` or `runc run -d` leaves behind keeps the
// descriptors that it inherited, so a reader of a pipe would wait until the container ends.
func (q *Q) Exec(argv ...string) Result {
	q.Helper()
	q.notes.command(quote(argv), quote(argv)+inputOf(argv))
	return q.run(argv, func(*exec.Cmd) {})
}

// ExecAs is [Q.Exec] for a command of an ordinary user that is in no group except gid. It runs in the cgroup [Q.UserCgroup].
//
// The user may not be able to reach the program by its path, which may be below a home directory. So the program is passed as a
// descriptor.
func (q *Q) ExecAs(uid, gid uint32, argv ...string) Result {
	q.Helper()
	as := append([]string{"setpriv", "--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(gid), "--clear-groups"}, argv...)
	q.notes.command(quote(as), quote(as)+inputOf(argv))
	return q.runFor(uid, gid, argv, func(cmd *exec.Cmd) {
		program, err := os.Open(cmd.Path)
		if err != nil {
			q.Fatal(err)
		}
		q.TB.Cleanup(func() { program.Close() })
		const firstExtraFD = 3
		cmd.ExtraFiles, cmd.Path = []*os.File{program}, fmt.Sprintf("/proc/self/fd/%d", firstExtraFD)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	})
}

// ExecFor is [Q.Exec] for a command of root that becomes this ordinary user by itself, such as su. It runs in the cgroup [Q.UserCgroup].
func (q *Q) ExecFor(uid, gid uint32, argv ...string) Result {
	q.Helper()
	q.notes.command(quote(argv), quote(argv)+inputOf(argv))
	return q.runFor(uid, gid, argv, func(*exec.Cmd) {})
}

// runFor is [Q.run] in the cgroup of the user, who may write to the files of the command.
func (q *Q) runFor(uid, gid uint32, argv []string, prepare func(*exec.Cmd)) Result {
	q.Helper()
	group := cgroup.Of(q, q.UserCgroup(uid))
	if _, err := os.Stat(group.Dirs()[0]); err != nil {
		group.Make()
	}
	return q.runBy(group.Start, argv, func(cmd *exec.Cmd) {
		prepare(cmd)
		for _, output := range []any{cmd.Stdout, cmd.Stderr} { // the user may open /dev/stdout again
			if err := output.(*os.File).Chown(int(uid), int(gid)); err != nil {
				q.Fatal(err)
			}
		}
	})
}

// UserCgroup returns the cgroup of the commands of an ordinary user, in one hierarchy. By it a sweep finds a process of theirs that does
// not have the mark of the question in its environment: runc init has no mark, and a rootless container has no cgroup of its own.
func (q *Q) UserCgroup(uid uint32) string { return fmt.Sprintf("%s/user-%d", q.Cgroup, uid) }

// run runs a command, which prepare may change before. Its files are those of [Q.Exec].
func (q *Q) run(argv []string, prepare func(*exec.Cmd)) Result {
	q.Helper()
	return q.runBy((*exec.Cmd).Start, argv, prepare)
}

// runBy is [Q.run] for a command that start starts.
func (q *Q) runBy(start func(*exec.Cmd) error, argv []string, prepare func(*exec.Cmd)) Result {
	q.Helper()
	stdout, stderr := q.memfd("stdout"), q.memfd("stderr")
	defer stdout.Close()
	defer stderr.Close()

	ctx, cancel := context.WithTimeoutCause(context.Background(), commandTimeout(), errDeadline)
	defer cancel()
	cmd := q.Cmd(ctx, argv...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	prepare(cmd)
	var running string
	cmd.Cancel = func() error {
		running = q.running()
		return cmd.Process.Kill()
	}
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	result := Result{Argv: argv, Code: cmd.ProcessState.ExitCode(), Stdout: readAll(q, stdout), Stderr: readAll(q, stderr)}
	var exit *exec.ExitError
	switch {
	case context.Cause(ctx) == errDeadline:
		q.Fatalf("the command had not ended after %v (%s sets another deadline), and was killed. These processes ran:\n%s%s",
			commandTimeout(), timeoutEnv, running, result)
	case err != nil && !errors.As(err, &exit):
		q.Fatalf("run %s: %v", quote(argv), err)
	}
	return result
}

// inputOf returns a redirection for the transcript. Commands of a question have no standard input. In a transcript that is pasted, or
// read from standard input, runc exec and the like would take the rest of the transcript for their input.
func inputOf(argv []string) string {
	attaches := func(arg string) bool { return arg == "exec" || arg == "run" || arg == "start" }
	if (argv[0] == "runc" || argv[0] == "ctr") && slices.ContainsFunc(argv, attaches) {
		return " </dev/null"
	}
	return ""
}

// Must is [Q.Exec] for a command that has to succeed. Another exit code than 0 fails the question.
func (q *Q) Must(argv ...string) Result {
	q.Helper()
	result := q.Exec(argv...)
	if result.Code != 0 {
		q.Fatalf("this command had to succeed:\n%s", result)
	}
	return result
}

// Cmd prepares a command with the question's environment and directory. It is for programs that run beside the question, such
// as a daemon. For other commands use [Q.Must] and [Q.Exec].
func (q *Q) Cmd(ctx context.Context, argv ...string) *exec.Cmd {
	q.Helper()
	path, err := q.session.lookPath(argv[0])
	if p, ok := q.used()[argv[0]]; ok {
		path, err = p.Path, nil
	}
	if err != nil {
		q.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Dir = q.Dir
	cmd.Env = q.Environ()
	return cmd
}

// SetCommandEnv sets an environment variable for the question's commands. Of the caller's environment they inherit only PATH,
// HOME and the like.
func (q *Q) SetCommandEnv(key, value string) {
	q.env.pairs = append(q.env.pairs, [2]string{key, value})
}

// Export is [Q.SetCommandEnv] for a variable that a reader has to set before pasting the commands: it notes an export command.
func (q *Q) Export(key, value string) {
	q.SetCommandEnv(key, value)
	export := "export " + key + "=" + quote([]string{value})
	q.logSetUp(export, export)
}

// Environ returns the environment of the question's commands.
func (q *Q) Environ() []string {
	path := q.session.binDir() + ":" + os.Getenv("PATH")
	if q.used() != nil {
		path = q.programsDir() + ":" + path
	}
	env := q.session.environ(path)
	for _, p := range q.env.pairs {
		env = append(env, p[0]+"="+p[1])
	}
	return env
}

// running describes the processes that the question has now, with the kernel function in which each sleeps.
func (q *Q) running() string {
	processes, err := host.Processes()
	if err != nil {
		return err.Error() + "\n"
	}
	var out strings.Builder
	for _, p := range processes {
		if p.OwnedBy(q.Owner) {
			wchan, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", p.PID))
			fmt.Fprintf(&out, "  %s, sleeping in %s\n", p, wchan)
		}
	}
	return out.String()
}

// Output returns what a program under test prints, to learn what it can do. It is no command of a question, but has the same
// environment. A program that does not end is killed: it is there to be tested.
func Output(program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = cleanEnviron()
	cmd.WaitDelay = time.Second // a child of it may hold the pipe
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end within %v", proc.Patience)
	}
	return out, err
}

var errDeadline = errors.New("deadline of the command")

// memfd makes a file without a name, so that nothing is left of it.
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
	// The command and this process share the file's offset, so this reads from the beginning.
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		q.Fatalf("read the %s of the command: %v", f.Name(), err)
	}
	return string(data)
}

// Terminate sends SIGTERM to the process of cmd and waits until it ends. wait receives the result of cmd.Wait. A process that
// has not ended within the deadline of a command is killed, and Terminate returns an error.
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
