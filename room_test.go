//go:build linux && vmlab

package cdblab

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// What several rooms of the chapter do with a container.

// variant prepares another container of the bundle, by its short name: its own directory, configuration, id and state,
// over the same rootfs.
func variant(q *lab.Q, b *bundle.Bundle, name string, edits ...func(*specs.Spec)) *runc.Container {
	q.Helper()
	return runc.Named(q, b.InSubtest(q).Variant(name, "cdb-runc-"+name, edits...), "root-"+name, "cdb-runc-"+name)
}

// running creates and starts a container and waits until its program runs.
func running(q *lab.Q, c *runc.Container) proc.Process {
	q.Helper()
	pid := create(q, c)
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, program(c.Bundle.Spec.Process.Args)))
	return proc.Snapshot(q, pid)
}

// create creates a container and returns the pid of its process, as the runtime writes it into a file.
func create(q *lab.Q, c *runc.Container) proc.PID {
	q.Helper()
	file := filepath.Join(c.Root, c.ID+".pid")
	c.Must("create", "--pid-file", file)
	pid := proc.PID(atoi(q, contents(q, file)))
	rm(q, file)
	return pid
}

// program is what runs in the end: the program of a script's last exec, if it has one, else the first word.
func program(args []string) string {
	if len(args) == 3 && args[1] == "-c" {
		if m := lastExec.FindStringSubmatch(args[2]); m != nil {
			return m[1]
		}
	}
	return filepath.Base(args[0])
}

// lastExec finds an exec of a program at a script's end; an exec of redirections alone runs none.
var lastExec = regexp.MustCompile(`exec ([a-z]+)[^;]*$`)

// obedient starts another container of the bundle, whose program does what the shell tells it.
func obedient(q *lab.Q, b *bundle.Bundle, name string, edits ...func(*specs.Spec)) (*runc.Container, *runc.Shell, proc.Process) {
	q.Helper()
	c := variant(q, b, name, edits...)
	sh := c.UseShell()
	return c, sh, running(q, c)
}

// end kills a running container, sees that its process is dead and that the runtime agrees, and deletes it.
func end(q *lab.Q, c *runc.Container, p proc.Process) {
	q.Helper()
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	assert.Equal(q, c.State().Status, specs.StateStopped)
	c.Delete()
}

// exists says whether there is a file of this path; only its absence is a no.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// picture looks at the host.
func picture(q *lab.Q) host.Inventory {
	q.Helper()
	p, err := host.TakeInventoryOf(q.Owner)
	assert.NilError(q, err)
	return p
}

// left lists what a container has left on the host since the picture was taken.
func left(q *lab.Q, before host.Inventory, c *runc.Container) []string {
	q.Helper()
	return leftovers(q, before, picture(q), c)
}

// nothing is a poll check: the container has left nothing. What a runtime's processes held is let go of a moment after
// they have ended.
func nothing(q *lab.Q, before host.Inventory, c *runc.Container) poll.Check {
	return func(poll.LogT) poll.Result {
		after, err := host.TakeInventoryOf(q.Owner)
		if err != nil {
			return poll.Error(err)
		}
		if out := leftovers(q, before, after, c); len(out) > 0 {
			return poll.Continue("%s", strings.Join(out, ", "))
		}
		return poll.Success()
	}
}

func leftovers(q *lab.Q, before, after host.Inventory, c *runc.Container) []string {
	var out []string
	for _, change := range host.OwnedBy(host.Diff(before, after), before, q.Owner) {
		switch {
		case change.Kind == "cgroup" && !strings.Contains(change.Name, c.ID):
			// A cgroup above its own: the runtime makes them on its way down, and removes only its own.
		case strings.HasPrefix(change.Name, q.Dir) && !strings.HasPrefix(change.Name, c.Root):
			// What the question or the program wrote; the container's state is below its root.
		default:
			out = append(out, change.String())
		}
	}
	return out
}

// contents reads a file whole, without its last newline.
func contents(q *lab.Q, path string) string {
	q.Helper()
	data, err := os.ReadFile(path)
	assert.NilError(q, err)
	return strings.TrimSpace(string(data))
}

// withoutNamespace is an edit: the container stays in the host's namespace of that type.
func withoutNamespace(ns specs.LinuxNamespaceType) func(*specs.Spec) {
	return func(s *specs.Spec) {
		var rest []specs.LinuxNamespace
		for _, n := range s.Linux.Namespaces {
			if n.Type != ns {
				rest = append(rest, n)
			}
		}
		s.Linux.Namespaces = rest
	}
}

// said picks the message out of the last line that the runtime logged.
func said(r lab.Result) string {
	lines := strings.Split(strings.TrimSpace(r.Stderr), "\n")
	return message(lines[len(lines)-1])
}

func readTrimmed(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

// sameFile says whether both paths lead to the same file.
func sameFile(a, b string) bool {
	sa, err1 := os.Stat(a)
	sb, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(sa, sb)
}

// kill ends a process of the container by its pid, past the runtime.
func kill(q *lab.Q, p proc.Process) {
	q.Helper()
	q.LogCommand("kill -KILL %d", p.PID)
	assert.NilError(q, unix.Kill(int(p.PID), unix.SIGKILL))
}

func rm(q *lab.Q, path string) {
	q.Helper()
	assert.Check(q, os.Remove(path))
}

func atoi(q *lab.Q, s string) int {
	q.Helper()
	n, err := strconv.Atoi(s)
	assert.NilError(q, err)
	return n
}

// another finds a program of this machine that is not under test, and without which a part cannot be asked.
func another(q *lab.Q, name string) string {
	q.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		q.Skipf("no %s on this machine: install it to see this part (make deps does, where the distribution has it)", name)
	}
	return path
}

// pause pauses a container. The freezer of cgroup v1 may miss a process that is busy just then: runc tries again for a
// while, then says that it is unable to freeze, and whoever typed the command types it again.
func pause(q *lab.Q, c *runc.Container) lab.Result {
	q.Helper()
	r := c.Try("pause")
	for range 50 {
		if r.Code == 0 || !strings.Contains(r.Stderr, "unable to freeze") {
			break
		}
		r = c.Try("pause")
	}
	return r
}

// mustPause is [pause] for a container that can be paused.
func mustPause(q *lab.Q, c *runc.Container) {
	q.Helper()
	if r := pause(q, c); r.Code != 0 {
		q.Fatalf("this command had to succeed:\n%s", r)
	}
}
