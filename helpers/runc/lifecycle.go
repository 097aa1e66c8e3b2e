//go:build linux

package runc

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Variant prepares another container of the bundle, with the id cdb-runc-<name>. It has its own directory, configuration, id
// and state. It shares the rootfs.
func Variant(q *lab.Q, b *bundle.Bundle, name string, edits ...func(*specs.Spec)) *Container {
	q.Helper()
	return Named(q, b.InSubtest(q).Variant(name, "cdb-runc-"+name, edits...), "root-"+name, "cdb-runc-"+name)
}

// CreateWithPIDFile creates the container and returns the pid of its process, which the runtime writes into a file.
func (c *Container) CreateWithPIDFile() proc.PID {
	c.q.Helper()
	path := filepath.Join(c.Root, c.ID+".pid")
	c.Must("create", "--pid-file", path)
	pid := check.Int(c.q, file.Read(c.q, path))
	file.Remove(c.q, path)
	return proc.PID(pid)
}

// CreateAndStart creates and starts the container, and waits until its program runs.
func (c *Container) CreateAndStart() proc.Process {
	c.q.Helper()
	pid := c.CreateWithPIDFile()
	c.Start()
	proc.WaitFor(c.q, proc.Runs(pid, ProgramName(c.Bundle.Spec.Process.Args)))
	return proc.Snapshot(c.q, pid)
}

// KillAndDelete kills the running container p, waits until its process is dead, asserts that the runtime reports it as
// stopped, and deletes it.
func (c *Container) KillAndDelete(p proc.Process) {
	c.q.Helper()
	c.Kill("KILL")
	proc.WaitFor(c.q, proc.Dead(p.Identity))
	assert.Equal(c.q, c.State().Status, specs.StateStopped)
	c.Delete()
}

// TryPause pauses the container. The freezer of cgroup v1 may miss a process that is busy at that moment: runc retries for a
// while and then reports that it is "unable to freeze". An operator types the command again, and so does TryPause.
func (c *Container) TryPause() lab.Result {
	c.q.Helper()
	result := c.Try("pause")
	for range 50 {
		if result.Code == 0 || !strings.Contains(result.Stderr, "unable to freeze") {
			break
		}
		result = c.Try("pause")
	}
	return result
}

// Pause is [Container.TryPause] for a pause that has to succeed.
func (c *Container) Pause() {
	c.q.Helper()
	if result := c.TryPause(); result.Code != 0 {
		c.q.Fatalf("this command had to succeed:\n%s", result)
	}
}

// HasStatus returns a check that succeeds when the runtime reports this status of the container.
func (c *Container) HasStatus(want specs.ContainerState) poll.Check {
	return func(poll.LogT) poll.Result {
		ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
		defer cancel()
		cmd := c.q.Cmd(ctx, "runc", "--root", c.Root, "state", c.ID)
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		var s specs.State
		if err == nil {
			err = json.Unmarshal(out, &s)
		}
		if err != nil || s.Status != want {
			return poll.Continue("container %s is %q (%v), not yet %q", c.ID, s.Status, err, want)
		}
		return poll.Success()
	}
}

// ProgramName returns the comm that the process has in the end: the program of the last exec in a shell script, if args are
// one with an exec, otherwise the base name of the first argument.
func ProgramName(args []string) string {
	if len(args) == 3 && args[1] == "-c" {
		if m := lastExec.FindStringSubmatch(args[2]); m != nil {
			return m[1]
		}
	}
	return filepath.Base(args[0])
}

// lastExec matches an exec of a program at the end of a script. An exec of redirections alone runs no program.
var lastExec = regexp.MustCompile(`exec ([a-z]+)[^;]*$`)

// ExecSleep runs `sleep 3601` in the container by a detached exec, with flags such as --env, and returns its process. The pid
// file is <name>.pid.
func ExecSleep(q *lab.Q, c *Container, name string, flags ...string) proc.Process {
	q.Helper()
	return c.execSleep(name, flags, func(argv []string) { q.Must(argv...) })
}

// ExecSleepAfter is [ExecSleep] by a caller that has changed itself before, by a command of the shell such as "exec 9< /".
func ExecSleepAfter(q *lab.Q, c *Container, name, change string, flags ...string) proc.Process {
	q.Helper()
	return c.execSleep(name, flags, func(argv []string) { q.Must("sh", "-c", change+"; exec "+shellescape.QuoteCommand(argv)) })
}

func (c *Container) execSleep(name string, flags []string, run func(argv []string)) proc.Process {
	q := c.q
	q.Helper()
	path := filepath.Join(q.Dir, name+".pid")
	argv := append([]string{"runc", "--root", c.Root, "exec", "--detach", "--pid-file", path}, flags...)
	run(append(argv, c.ID, "sleep", "3601"))
	pid, err := strconv.Atoi(file.Read(q, path))
	assert.NilError(q, err)
	q.Cleanup(func() { file.Remove(q, path) })
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
	return proc.Snapshot(q, proc.PID(pid))
}

// ExecProcess runs `runc exec --process` in the container, detached, with this process in the file, and returns it.
func ExecProcess(q *lab.Q, c *Container, p *specs.Process) proc.Process {
	q.Helper()
	file, pidFile := filepath.Join(q.Dir, c.ID+"-process.json"), filepath.Join(q.Dir, c.ID+"-process.pid")
	data, err := json.Marshal(p)
	assert.NilError(q, err)
	q.Cleanup(func() { // also after an exec that failed: it has written no pid
		for _, name := range []string{file, pidFile} {
			if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
				assert.Check(q, err)
			}
		}
	})
	q.WriteLine(file, string(data))
	q.Must("runc", "--root", c.Root, "exec", "--detach", "--process", file, "--pid-file", pidFile, c.ID)
	text, err := os.ReadFile(pidFile)
	assert.NilError(q, err)
	pid := proc.PID(check.Int(q, string(text)))
	proc.WaitFor(q, proc.Runs(pid, ProgramName(p.Args)))
	return proc.Snapshot(q, pid)
}
