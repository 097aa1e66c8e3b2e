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

// Creating, created, running, stopped; and paused, which is the runtime's own.
//
// Creating is over before `create` returns, so only a hook sees it. No state is stored anywhere: each is derived, when
// one asks, from the process (is it alive?), the FIFO (is it there?) and the freezer (is it frozen?). The state document
// follows the specification's schema in each but paused, which the schema does not know.
//
// Hint: which three facts of the kernel does one need to tell the states apart?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#core-interface-files, cgroup.freeze
func TestLifecycle_WhichStatesDoesAContainerPassThrough(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which states does a container pass through?")
	b := bundle.Busybox(q, "sleep", "300")
	seen := q.Mkdir("seen")
	c := runc.Variant(q, b, "passing", func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.example.question": "states"}
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/cat > " + seen + "/creating"}}}}
	})
	stateSchema := schema.State(q)
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)

	// The three facts from which the state follows.
	type facts struct{ Alive, FIFO, Frozen bool }
	var pid proc.PID
	var passed []specs.ContainerState
	check := func(document string, want specs.ContainerState, kernel facts) specs.State {
		q.Helper()
		var s specs.State
		assert.NilError(q, json.Unmarshal([]byte(document), &s))
		assert.Check(q, cmp.Equal(s.Status, want))
		assert.Check(q, cmp.Equal(s.ID, c.ID))
		assert.Check(q, cmp.Equal(s.Bundle, c.Bundle.Dir))
		assert.Check(q, s.Version != "")
		assert.Check(q, cmp.Equal(s.Annotations["org.example.question"], "states"), "annotations")
		if pid != 0 {
			got := facts{proc.Alive(pid), file.Exists(c.Fifo()), g.Frozen()}
			assert.Check(q, cmp.DeepEqual(got, kernel), "what the kernel shows of a container that is %s", want)
			q.Fact(string(want), got)
		}
		passed = append(passed, s.Status)
		return s
	}
	valid := func(document string) {
		q.Helper()
		assert.Check(q, schema.Validate(q, stateSchema, document), "the state document against the specification's schema")
	}

	q.Step("creating, as a hook is told on its stdin")
	c.Create()
	creating := file.Read(q, filepath.Join(seen, "creating"))
	s := check(creating, specs.StateCreating, facts{})
	valid(creating)
	hooked := s.Pid

	q.Step("created: alive, and the FIFO is there")
	pid = proc.PID(c.State().Pid)
	assert.Check(q, cmp.Equal(hooked, pid), "the pid of which the hook was told")
	created := c.Must("state").Stdout
	check(created, specs.StateCreated, facts{Alive: true, FIFO: true})
	valid(created)

	q.Step("running: alive, and no FIFO")
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	runs := c.Must("state").Stdout
	s = check(runs, specs.StateRunning, facts{Alive: true})
	assert.Check(q, cmp.Equal(s.Pid, pid))
	valid(runs)

	q.Step("paused: frozen, a state of the runtime's own")
	c.Pause()
	paused := c.Must("state").Stdout
	check(paused, "paused", facts{Alive: true, Frozen: true})
	q.Clause(
		"State: When serialized in JSON, the format MUST adhere to the JSON Schema schema/state-schema.json.", lab.DeviatesUnless(schema.Validate(q, stateSchema, paused) == nil,

			"it does in creating, created, running and stopped; the status paused is none that the schema knows"))

	q.Clause("State: Additional values MAY be defined by the runtime, however, they MUST be used to represent new runtime states not defined above.", lab.Met)
	c.Must("resume")
	check(c.Must("state").Stdout, specs.StateRunning, facts{Alive: true})

	q.Step("stopped: dead")
	p := proc.Snapshot(q, pid)
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	stopped := c.Must("state").Stdout
	s = check(stopped, specs.StateStopped, facts{})
	assert.Check(q, cmp.Equal(s.Pid, 0), "a stopped container has no process, and yet a pid")
	valid(stopped)
	q.Fact("passed", passed)
	q.Clause("Query State: This operation MUST return the state of a container as specified in the State section.", lab.Met)

	q.Control("the schema is not content with anything: a document without its id, and one with an unknown status")
	for _, bad := range []string{`{"ociVersion": "1.0.0", "status": "running", "bundle": "/b"}`, `{"ociVersion": "1.0.0", "id": "x", "status": "lost", "bundle": "/b"}`} {
		assert.Check(q, schema.Validate(q, stateSchema, bad) != nil, "the schema accepts %s", bad)
	}

	q.Step("the states are derived, not stored: state.json has no status")
	var stored map[string]any
	assert.NilError(q, json.Unmarshal([]byte(file.Read(q, filepath.Join(c.StateDir(), "state.json"))), &stored))
	_, has := stored["status"]
	assert.Check(q, !has, "state.json has a status: %v", stored["status"])
	c.Delete()

	q.Step("state without an id")
	none := q.Exec("runc", "--root", c.Root, "state")
	assert.Check(q, none.Code != 0, "state of nothing succeeds:\n%s", none)
	q.Clause("Query State: This operation MUST generate an error if it is not provided the ID of a container.", lab.Met)

	q.Answer("Creating, created, running, stopped, and the runtime's own paused: each derived from process, FIFO and freezer.")
}
