//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
	"cdblab/helpers/schema"
)

// A container is creating, created, running and stopped. The status paused is runc's own.
//
// The status is creating while the hooks prestart, createRuntime and createContainer run. Only they and a seccomp agent read it: `runc
// state` finds no container before create has written state.json. The hooks poststart and startContainer read created. runc does not store
// the status. It derives the status from three facts of the kernel: is the process alive, does the FIFO exist, is the cgroup frozen? The
// state document follows the specification's schema, except in the status paused, which the schema does not have.
//
// Hint: which three facts of the kernel tell the states apart?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#core-interface-files, cgroup.freeze
func TestLifecycle_WhichStatesDoesAContainerPassThrough(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which states does a container pass through?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	seen := q.Mkdir("seen")
	c := runc.Variant(q, b, "passing", func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.example.question": "states"}
		writeStdin := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/cat > " + seen + "/creating"}}
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{writeStdin}}
	})
	observer := &stateObserver{Container: c, q: q, schema: schema.State(q)}
	checkKernel := func(status string, want kernelFacts) {
		q.Helper()
		got := observer.kernelFacts()
		assert.Check(q, cmp.DeepEqual(got, want), "what the kernel shows of a container that is %s", status)
		q.Fact(status, map[string]bool{"process alive": got.Alive, "exec.fifo": got.FIFO, "frozen": got.Frozen})
	}

	q.Step("creating: a hook of create reads this status from its stdin")
	c.Create()
	creating := file.Read(q, filepath.Join(seen, "creating"))
	pidInHook := observer.checkState(creating, specs.StateCreating).Pid
	observer.checkSchema(creating)

	q.Step("created: the process is alive, and the FIFO exists")
	pid := c.PID()
	observer.pid = pid
	assert.Check(q, cmp.Equal(proc.PID(pidInHook), pid), "the pid in the state document of the hook")
	created := c.Must("state").Stdout
	observer.checkState(created, specs.StateCreated)
	q.Covers("annotations")
	checkKernel("created", kernelFacts{Alive: true, FIFO: true})
	observer.checkSchema(created)

	q.Step("running: the process is alive, and the FIFO does not exist")
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	running := c.Must("state").Stdout
	assert.Check(q, cmp.Equal(proc.PID(observer.checkState(running, specs.StateRunning).Pid), pid))
	checkKernel("running", kernelFacts{Alive: true})
	observer.checkSchema(running)

	q.Step("paused: the cgroup is frozen; the specification does not have this status")
	c.Pause()
	paused := c.Must("state").Stdout
	observer.checkState(paused, "paused")
	checkKernel("paused", kernelFacts{Alive: true, Frozen: true})
	q.Clause("State: When serialized in JSON, the format MUST adhere to the JSON Schema schema/state-schema.json.",
		lab.DeviatesUnless(schema.Validate(q, observer.schema, paused) == nil,
			"it does in creating, created, running and stopped; the schema has no status paused"))
	q.Clause("State: Additional values MAY be defined by the runtime, however, they MUST be used to "+
		"represent new runtime states not defined above.", lab.Met)
	c.Must("resume")
	observer.checkState(c.Must("state").Stdout, specs.StateRunning)
	checkKernel("running after resume", kernelFacts{Alive: true})

	q.Step("stopped: the process has ended")
	p := proc.Snapshot(q, pid)
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	stopped := c.Must("state").Stdout
	stoppedPID := observer.checkState(stopped, specs.StateStopped).Pid
	assert.Check(q, cmp.Equal(stoppedPID, 0), "a stopped container has no process, but state reports a pid")
	checkKernel("stopped", kernelFacts{})
	observer.checkSchema(stopped)
	q.Fact("passed", observer.passed)
	q.Clause("Query State: This operation MUST return the state of a container as specified in the State section.", lab.Met)

	q.Control("the schema does not accept every document: not one without its id, and not one with an unknown status")
	for _, bad := range []string{
		`{"ociVersion": "1.0.0", "status": "running", "bundle": "/b"}`,
		`{"ociVersion": "1.0.0", "id": "x", "status": "lost", "bundle": "/b"}`,
	} {
		assert.Check(q, schema.Validate(q, observer.schema, bad) != nil, "the schema accepts %s", bad)
	}

	if runc.IsRunc(q) {
		q.Step("runc does not store the status: state.json has none")
		var stored map[string]any
		assert.NilError(q, json.Unmarshal([]byte(file.Read(q, c.StateFile())), &stored))
		_, hasStatus := stored["status"]
		assert.Check(q, !hasStatus, "state.json has a status: %v", stored["status"])
	}
	c.Delete()

	q.Step("call state without an id: it fails")
	withoutID := q.Exec("runc", "--root", c.Root, "state")
	assert.Check(q, withoutID.Code != 0, "state without an id succeeds:\n%s", withoutID)
	q.Clause("Query State: This operation MUST generate an error if it is not provided the ID of a container.", lab.Met)

	q.Answer("A container is creating, created, running and stopped, and paused between pause and resume. The runtime derives the status " +
		"from the process, the FIFO and the freezer.")
}

// stateObserver compares what the runtime, the kernel and the schema say of a container, from state to state.
type stateObserver struct {
	*runc.Container
	q      *lab.Q
	schema *jsonschema.Schema
	pid    proc.PID               // 0 until create has returned
	passed []specs.ContainerState // as the runtime has reported them
}

// kernelFacts is what the kernel shows, and from which the status follows.
type kernelFacts struct{ Alive, FIFO, Frozen bool }

// checkState asserts that a state document is that of the container, and has the status.
func (o *stateObserver) checkState(document string, want specs.ContainerState) specs.State {
	o.q.Helper()
	var state specs.State
	assert.NilError(o.q, json.Unmarshal([]byte(document), &state))
	assert.Check(o.q, cmp.Equal(state.Status, want))
	assert.Check(o.q, cmp.Equal(state.ID, o.ID))
	assert.Check(o.q, cmp.Equal(state.Bundle, o.Bundle.Dir))
	assert.Check(o.q, state.Version != "", "the state document has no ociVersion")
	assert.Check(o.q, cmp.Equal(state.Annotations["org.example.question"], "states"), "annotations")
	o.passed = append(o.passed, state.Status)
	return state
}

// kernelFacts returns what the kernel shows of the container.
func (o *stateObserver) kernelFacts() kernelFacts {
	o.q.Helper()
	group := cgroup.Of(o.q, o.Bundle.Spec.Linux.CgroupsPath)
	return kernelFacts{proc.Alive(o.pid), file.Exists(o.Fifo()), group.Frozen()}
}

// checkSchema asserts that a state document follows the specification's schema.
func (o *stateObserver) checkSchema(document string) {
	o.q.Helper()
	assert.Check(o.q, schema.Validate(o.q, o.schema, document), "the state document against the specification's schema")
}
