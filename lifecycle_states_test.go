//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
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
	stateSchema := schema.State(q)
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)

	// What the kernel shows, and from which the status follows.
	type kernelFacts struct{ Alive, FIFO, Frozen bool }
	var pid proc.PID // 0 until create has returned
	var passed []specs.ContainerState
	checkState := func(document string, want specs.ContainerState) specs.State {
		q.Helper()
		var state specs.State
		assert.NilError(q, json.Unmarshal([]byte(document), &state))
		assert.Check(q, cmp.Equal(state.Status, want))
		assert.Check(q, cmp.Equal(state.ID, c.ID))
		assert.Check(q, cmp.Equal(state.Bundle, c.Bundle.Dir))
		assert.Check(q, state.Version != "", "the state document has no ociVersion")
		assert.Check(q, cmp.Equal(state.Annotations["org.example.question"], "states"), "annotations")
		passed = append(passed, state.Status)
		return state
	}
	checkKernel := func(status string, want kernelFacts) {
		q.Helper()
		got := kernelFacts{proc.Alive(pid), file.Exists(c.Fifo()), g.Frozen()}
		assert.Check(q, cmp.DeepEqual(got, want), "what the kernel shows of a container that is %s", status)
		q.Fact(status, map[string]bool{"process alive": got.Alive, "exec.fifo": got.FIFO, "frozen": got.Frozen})
	}
	checkSchema := func(document string) {
		q.Helper()
		assert.Check(q, schema.Validate(q, stateSchema, document), "the state document against the specification's schema")
	}

	q.Step("creating: a hook of create reads this status from its stdin")
	c.Create()
	creating := file.Read(q, filepath.Join(seen, "creating"))
	pidInHook := checkState(creating, specs.StateCreating).Pid
	checkSchema(creating)

	q.Step("created: the process is alive, and the FIFO exists")
	pid = c.PID()
	assert.Check(q, cmp.Equal(proc.PID(pidInHook), pid), "the pid in the state document of the hook")
	created := c.Must("state").Stdout
	checkState(created, specs.StateCreated)
	q.Covers("annotations")
	checkKernel("created", kernelFacts{Alive: true, FIFO: true})
	checkSchema(created)

	q.Step("running: the process is alive, and the FIFO does not exist")
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	running := c.Must("state").Stdout
	assert.Check(q, cmp.Equal(proc.PID(checkState(running, specs.StateRunning).Pid), pid))
	checkKernel("running", kernelFacts{Alive: true})
	checkSchema(running)

	q.Step("paused: the cgroup is frozen; the specification does not have this status")
	c.Pause()
	paused := c.Must("state").Stdout
	checkState(paused, "paused")
	checkKernel("paused", kernelFacts{Alive: true, Frozen: true})
	q.Clause("State: When serialized in JSON, the format MUST adhere to the JSON Schema schema/state-schema.json.",
		lab.DeviatesUnless(schema.Validate(q, stateSchema, paused) == nil,
			"it does in creating, created, running and stopped; the schema has no status paused"))
	q.Clause("State: Additional values MAY be defined by the runtime, however, they MUST be used to "+
		"represent new runtime states not defined above.", lab.Met)
	c.Must("resume")
	checkState(c.Must("state").Stdout, specs.StateRunning)
	checkKernel("running after resume", kernelFacts{Alive: true})

	q.Step("stopped: the process has ended")
	p := proc.Snapshot(q, pid)
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	stopped := c.Must("state").Stdout
	stoppedPID := checkState(stopped, specs.StateStopped).Pid
	assert.Check(q, cmp.Equal(stoppedPID, 0), "a stopped container has no process, but state reports a pid")
	checkKernel("stopped", kernelFacts{})
	checkSchema(stopped)
	q.Fact("passed", passed)
	q.Clause("Query State: This operation MUST return the state of a container as specified in the State section.", lab.Met)

	q.Control("the schema does not accept every document: not one without its id, and not one with an unknown status")
	for _, bad := range []string{
		`{"ociVersion": "1.0.0", "status": "running", "bundle": "/b"}`,
		`{"ociVersion": "1.0.0", "id": "x", "status": "lost", "bundle": "/b"}`,
	} {
		assert.Check(q, schema.Validate(q, stateSchema, bad) != nil, "the schema accepts %s", bad)
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
