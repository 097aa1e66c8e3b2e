//go:build linux

// Package runc drives an OCI runtime by its command line, as a reader would type it. The runtime is runc, or the one that
// CDB_RUNC names.
package runc

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/opencontainers/runtime-spec/specs-go"

	"cdblab/helpers/bundle"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
)

// Container is a container of a bundle. The runtime need not have created it yet.
type Container struct {
	ID     string
	Root   string // the runtime's state directory (--root), absolute; below the question's directory
	Bundle *bundle.Bundle

	q *lab.Q
}

// New prepares the container cdb-runc of a bundle. Nothing of it exists before Create. If it still exists at the end of the
// question, it is deleted by force.
func New(q *lab.Q, b *bundle.Bundle) *Container {
	q.Helper()
	return Named(q, b, "root", bundle.ID)
}

// Named is [New] for a container with another id, whose state is below another root.
func Named(q *lab.Q, b *bundle.Bundle, root, id string) *Container {
	q.Helper()
	c := &Container{q: q, ID: id, Root: q.Mkdir(root), Bundle: b}
	q.SuggestCommand("runc --root " + c.Root + " state " + id)
	q.Cleanup(func() {
		if _, err := os.Stat(c.StateDir()); err == nil {
			c.Must("delete", "--force")
		}
		left, err := os.ReadDir(c.Root)
		if err != nil {
			q.Errorf("look for leftovers of the runtime: %v", err)
		}
		for _, entry := range left {
			q.Errorf("the question left something behind in the runtime's state directory: %s", filepath.Join(c.Root, entry.Name()))
		}
	})
	return c
}

// InSubtest returns the same container for the use in a subtest: its commands appear in the notes of the subtest, and its
// failures fail the subtest.
func (c *Container) InSubtest(q *lab.Q) *Container {
	sub := *c
	sub.q = q
	sub.Bundle = c.Bundle.InSubtest(q)
	return &sub
}

// StateDir returns the directory in which the runtime keeps the state of the container.
func (c *Container) StateDir() string { return filepath.Join(c.Root, c.ID) }

// Fifo returns the path of the FIFO exec.fifo. The `runc init` of a created container waits there until `runc start`.
func (c *Container) Fifo() string { return filepath.Join(c.StateDir(), "exec.fifo") }

// Try runs an operation of the runtime with the container's id, and returns its result, whatever the exit code is.
func (c *Container) Try(operation string, args ...string) lab.Result {
	c.q.Helper()
	return c.q.Exec(c.argv(operation, args)...)
}

// Must is [Container.Try] for an operation that has to succeed.
func (c *Container) Must(operation string, args ...string) lab.Result {
	c.q.Helper()
	if operation == "delete" {
		return c.mustDelete(args)
	}
	return c.q.Must(c.argv(operation, args)...)
}

// MustDelete is [lab.Q.Must] for a command line that deletes a container. It repeats a delete that has not waited for long enough.
func MustDelete(q *lab.Q, argv ...string) lab.Result {
	q.Helper()
	result := tryDelete(q, argv)
	if result.Code != 0 {
		q.Fatalf("this command had to succeed:\n%s", result)
	}
	return result
}

// TryDelete is [Container.Try] for a delete, which may also fail. It repeats only a delete that has not waited for long enough.
func (c *Container) TryDelete(args ...string) lab.Result {
	c.q.Helper()
	return tryDelete(c.q, c.argv("delete", args))
}

// tryDelete calls the command line of a delete until the delete succeeds, or fails for another reason than the kernel's delay.
//
// A process that was killed counts as stopped as soon as it is a zombie, and the kernel takes it out of its cgroup a moment later, when the
// scheduler has left it for the last time. runc tries for a second to remove the cgroup, and then its delete fails. delete --force also
// waits at most ten seconds until the killed process is gone. On a busy machine both may be too short, so such a delete is repeated.
func tryDelete(q *lab.Q, argv []string) (result lab.Result) {
	q.Helper()
	retry.Until(proc.Patience, func() bool {
		result = q.Exec(argv...)
		busy := result.Code != 0 && isTooEarly.MatchString(result.Stderr)
		if busy {
			q.Logf("the kernel had not ended the process, or had not let go of its cgroup, so delete is repeated: %s", result.Stderr)
		}
		return !busy
	})
	return result
}

// isTooEarly matches the messages of a delete of runc that has not waited for long enough.
var isTooEarly = regexp.MustCompile("unable to remove container's cgroup|container init still running")

// mustDelete is [MustDelete] for this container.
func (c *Container) mustDelete(args []string) lab.Result {
	c.q.Helper()
	result := MustDelete(c.q, c.argv("delete", args)...)
	// Here, because a delete --force at the end of the question would remove what this delete has left.
	if _, err := os.Lstat(c.StateDir()); err == nil {
		c.q.Errorf("the state directory still exists after delete: %s", c.StateDir())
	}
	return result
}

// Argv returns the command line of an operation, for a command that runs in the background.
func (c *Container) Argv(operation string, args ...string) []string { return c.argv(operation, args) }

// argv returns the command line: runc --root ROOT OPERATION [--bundle bundle] [args] cdb-runc. The runtime wants flags before
// the id. Only kill has its argument, the signal, after the id.
func (c *Container) argv(operation string, args []string) []string {
	argv := []string{"runc", "--root", c.Root, operation}
	switch operation {
	case "create", "run":
		argv = append(argv, "--bundle", c.Bundle.Name)
	case "kill":
		return append(append(argv, c.ID), args...)
	}
	return append(append(argv, args...), c.ID)
}

// Exec runs a program in the container, and returns the result, whatever the exit code is.
func (c *Container) Exec(args ...string) lab.Result {
	c.q.Helper()
	return c.q.Exec(append([]string{"runc", "--root", c.Root, "exec", c.ID}, args...)...)
}

// Create creates the container.
func (c *Container) Create() { c.q.Helper(); c.Must("create") }

// Start starts the created container.
func (c *Container) Start() { c.q.Helper(); c.Must("start") }

// Kill sends a signal, such as "KILL", to the container's process.
func (c *Container) Kill(signal string) { c.q.Helper(); c.Must("kill", signal) }

// Delete deletes the container.
func (c *Container) Delete() { c.q.Helper(); c.Must("delete") }

// State returns the state document of the container (runtime.md, "State").
func (c *Container) State() specs.State {
	c.q.Helper()
	out := c.Must("state").Stdout
	s, err := parseState(out)
	if err != nil {
		c.q.Fatalf("runc state does not print a state document: %v. It printed:\n%s", err, out)
	}
	return s
}

// parseState reads a state document. It returns an error if a field that the specification requires is missing.
func parseState(document string) (specs.State, error) {
	var s specs.State
	if err := json.Unmarshal([]byte(document), &s); err != nil {
		return specs.State{}, err
	}
	for _, p := range []struct{ name, value string }{
		{"ociVersion", s.Version}, {"id", s.ID}, {"status", string(s.Status)}, {"bundle", s.Bundle},
	} {
		if p.value == "" {
			return specs.State{}, fmt.Errorf("it has no %s", p.name)
		}
	}
	if s.Pid < 0 {
		return specs.State{}, fmt.Errorf("its pid is %d", s.Pid)
	}
	return s, nil
}
