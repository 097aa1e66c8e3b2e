//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The runtime refuses what the state of the container does not allow, such as starting it twice or signalling a stopped
// container. It also refuses an id that is in use, and an operation on an unknown id.
//
// A refused operation has no effect: the process and the state are the same as before. runc allows two operations that the
// specification forbids: a created container can be deleted, and a paused one gets signals. It also creates a container without a
// path to the bundle: it takes the current directory.
//
// Hint: draw the states, and an arrow for each operation. Which arrows are missing?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#operations
// Kernel: https://man7.org/linux/man-pages/man2/kill.2.html
func TestLifecycle_WhichTransitionsAreRefused(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which transitions are refused?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	allowedIn := map[string][]specs.ContainerState{} // by operation, as observed

	for _, state := range []specs.ContainerState{"none", "created", "running", "paused", "stopped"} {
		q.Run(string(state), func(q *lab.Q) {
			q.Step("a container that is %s", state)
			c := runc.Variant(q, b, string(state))
			p := bringInto(q, c, state)
			for _, row := range transitions {
				if row.succeeds(q, c, p, state) {
					allowedIn[row.operation] = append(allowedIn[row.operation], state)
					p = restoreState(q, c, p, row.operation, state)
				}
			}
			if file.Exists(c.StateDir()) {
				c.Must("delete", "--force")
			}
		})
	}
	for _, operation := range slices.Sorted(maps.Keys(allowedIn)) {
		q.Fact(operation+" is allowed when", allowedIn[operation])
	}
	q.Clause("Start: Attempting to start a container that is not created MUST have no effect on the "+
		"container and MUST generate an error.", lab.Met)
	q.Clause("Query State: Attempting to query a container that does not exist MUST generate an error.", lab.Met)

	q.Step("call each operation without an id: it fails")
	c := runc.Variant(q, b, "nameless")
	for _, operation := range []string{"create", "start", "state", "kill", "delete"} {
		withoutID := q.Exec("runc", "--root", c.Root, operation)
		assert.Check(q, withoutID.Code != 0, "%s without an id succeeds:\n%s", operation, withoutID)
	}
	assert.Check(q, !file.Exists(c.StateDir()))
	q.Clause("Start: This operation MUST generate an error if it is not provided the container ID.", lab.Met)

	q.Step("call create without a path to the bundle, in the directory of a bundle: runc takes this directory")
	unnamed := runc.Variant(q, b, "unnamed")
	createUnnamed := q.Exec("sh", "-c", "cd "+unnamed.Bundle.Name+"; exec runc --root "+unnamed.Root+" create "+unnamed.ID)
	if createUnnamed.Code == 0 {
		bundleDir := unnamed.State().Bundle
		assert.Check(q, cmp.Equal(bundleDir, unnamed.Bundle.Dir), "the bundle of a container that was created without --bundle")
		q.Fact("create without --bundle: bundle", bundleDir)
		unnamed.Must("delete", "--force")
	}
	q.Clause("Create: This operation MUST generate an error if it is not provided a path to the bundle and "+
		"the container ID to associate with the container.",
		lab.DeviatesUnless(createUnnamed.Code != 0, "create without an id fails; without a path to the bundle it takes the current directory"))

	q.Step("create with an id that is in use, and with invalid ids: it fails, and the running container is not disturbed")
	first := runc.Variant(q, b, "first")
	p := first.CreateAndStart()
	second := runc.Named(q, b.Variant("second", "cdb-runc-second"), "root-second", first.ID)
	second.Root = first.Root // the same runtime, the same id, another bundle
	createSecond := second.Try("create")
	assert.Check(q, createSecond.Code != 0, "a second container of the same id is created:\n%s", createSecond)
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, p.PID).Identity, p.Identity))
	check.NoCgroup(q, second.Bundle.Spec.Linux.CgroupsPath)
	q.Fact("create with an id in use: error", runc.LastLogMessage(createSecond))
	for _, id := range []string{"", "a/b", "..", "a b", strings.Repeat("x", 2000)} {
		create := q.Exec("runc", "--root", c.Root, "create", "--bundle", c.Bundle.Name, id)
		assert.Check(q, create.Code != 0, "a container of the id %q is created:\n%s", id, create)
		q.Fact(fmt.Sprintf("create with the id %.10q: exit code", id), create.Code)
	}
	check.NoCgroup(q, c.Bundle.Spec.Linux.CgroupsPath)
	q.Control("create of the same bundle with a valid id: it succeeds, and makes the cgroup")
	createValid := c.Try("create")
	assert.Check(q, cmp.Equal(createValid.Code, 0), "create with the id %q:\n%s", c.ID, createValid)
	assertDirsExist(q, cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Dirs(), "no cgroup %s after create with a valid id")
	q.Fact("create with a valid id: exit code", createValid.Code)
	c.Must("delete", "--force")
	check.NoCgroup(q, c.Bundle.Spec.Linux.CgroupsPath)
	q.Clause("Create: If the ID provided is not unique across all containers within the scope of the "+
		"runtime, or is not valid in any other way, the implementation MUST generate an error and a "+
		"new container MUST NOT be created.", lab.Met)
	q.Clause("Scope of a Container: The entity using a runtime to create a container MUST be able to use "+
		"the operations defined in this specification against that same container.", lab.Met)
	q.Clause("Operations: Unless otherwise stated, runtimes MUST support the following operations.", lab.Met)

	q.Control("create with the same id below another --root: it succeeds, and there are two containers of this id on the host")
	twin := runc.Named(q, b.Variant("twin", "cdb-runc-twin"), "root-twin", first.ID)
	createTwin := twin.Try("create")
	if createTwin.Code == 0 {
		twinProcess := twin.Process()
		assert.Check(q, !twinProcess.Same(p.Identity))
		assert.Check(q, cmp.Equal(twin.State().ID, first.State().ID))
		twin.KillAndDelete(twinProcess)
	}
	q.Fact("create with an id that is in use below another root: exit code", createTwin.Code)
	q.Clause("State: This MUST be unique across all containers on this host.",
		lab.DeviatesUnless(createTwin.Code != 0, "an id is unique below one --root; below another one there is a second container of the id"))
	first.KillAndDelete(p)

	q.Answer("The runtime refuses each operation that the state of the container does not allow, and a refused operation has no effect. " +
		"Against the specification, runc deletes a created container and sends signals to a paused one.")
}

// transition is an operation, and the states in which it succeeds. In other states it is refused.
type transition struct {
	operation string
	allowed   []specs.ContainerState
	args      []string
}

// transitions lists the operations. The specification has the first five; pause, resume and exec are runc's own.
var transitions = []transition{
	{"create", []specs.ContainerState{"none"}, nil},
	{"start", []specs.ContainerState{"created"}, nil},
	{"kill", []specs.ContainerState{"created", "running", "paused"}, []string{"WINCH"}},
	{"delete", []specs.ContainerState{"created", "stopped"}, nil},
	{"state", []specs.ContainerState{"created", "running", "paused", "stopped"}, nil},
	{"pause", []specs.ContainerState{"created", "running"}, nil},
	{"resume", []specs.ContainerState{"paused"}, nil},
	{"exec", []specs.ContainerState{"created", "running"}, []string{"true"}},
}

// bringInto brings a container that does not exist into a state. It returns its process, or nil for the state none.
func bringInto(q *lab.Q, c *runc.Container, state specs.ContainerState) *proc.Process {
	q.Helper()
	if state == "none" {
		return nil
	}
	p := proc.Snapshot(q, c.CreateWithPIDFile())
	if state == specs.StateCreated {
		return &p
	}
	c.Start()
	proc.WaitFor(q, proc.Runs(p.PID, "sleep"))
	switch state {
	case "paused":
		c.Pause()
	case specs.StateStopped:
		c.Kill("KILL")
		proc.WaitFor(q, proc.Dead(p.Identity))
	}
	return &p
}

// observeContainer describes what the kernel and the file system show of a container, to compare before and after.
func observeContainer(q *lab.Q, c *runc.Container, p *proc.Process) string {
	q.Helper()
	if !file.Exists(c.StateDir()) {
		return "no state directory"
	}
	frozen := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Frozen()
	description := fmt.Sprintf("FIFO %v, frozen %v", file.Exists(c.Fifo()), frozen)
	if proc.Alive(p.PID) {
		now := proc.Snapshot(q, p.PID)
		description += fmt.Sprintf(", process %d of %v is %s", now.PID, now.Start, now.Comm)
	}
	return description
}

// succeeds calls the operation for a container that is in a state, asserts that it succeeds in this state or is refused without an effect,
// and reports whether it has succeeded.
func (t transition) succeeds(q *lab.Q, c *runc.Container, p *proc.Process, state specs.ContainerState) bool {
	q.Helper()
	before := observeContainer(q, c, p)
	result := t.call(c)
	if result.Code != 0 {
		assert.Check(q, cmp.Equal(observeContainer(q, c, p), before), "%s was refused, but had an effect", t.operation)
	}
	want := slices.Contains(t.allowed, state)
	assert.Check(q, cmp.Equal(result.Code == 0, want), "%s of a container that is %s:\n%s", t.operation, state, result)
	return result.Code == 0
}

// call calls the operation for a container.
func (t transition) call(c *runc.Container) lab.Result {
	switch t.operation {
	case "exec":
		return c.Exec(t.args...)
	case "pause":
		return c.TryPause()
	case "delete":
		return c.TryDelete()
	default:
		return c.Try(t.operation, t.args...)
	}
}

// restoreState brings the container back into a state, after an operation that succeeded. It returns the container's process.
func restoreState(q *lab.Q, c *runc.Container, p *proc.Process, operation string, state specs.ContainerState) *proc.Process {
	q.Helper()
	switch operation {
	case "state", "kill", "exec":
		return p
	case "pause":
		c.Must("resume")
		return p
	case "resume":
		c.Pause()
		return p
	}
	if file.Exists(c.StateDir()) {
		c.Must("delete", "--force")
	}
	if p != nil {
		proc.WaitFor(q, proc.Dead(p.Identity))
	}
	return bringInto(q, c, state)
}
