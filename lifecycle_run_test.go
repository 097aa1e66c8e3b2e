//go:build linux && vmlab

package cdblab

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Run is create, start, wait and delete in one command, and it returns the program's exit code.
//
// `run` is not an operation of the specification, but it is what people type. In the foreground the runtime stays. It passes on what
// the program prints, and signals to the program. As the parent it gets the exit code, which create and start do not report. With
// --detach run is only create and start: the runtime exits, and the container stays until it is deleted.
//
// Hint: what is left after `run`, and what after `run --detach`? Which process can wait for the program?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man2/waitpid.2.html
func TestLifecycle_WhatDoesRunAdd(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `run` add?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	q.Step("run returns the program's exit code, prints what the program prints, and leaves nothing")
	leftovers := []string{}
	for _, row := range []struct {
		name, script string
		code         int
		prints       string
	}{
		{"zero", "echo $((40 + 2))", 0, "42"},
		{"seven", "echo to stderr >&2; exit 7", 7, ""},
		// The shell turns the signal that ended its child into an exit code.
		{"killed", "sh -c 'kill -9 $$'; exit $?", 128 + 9, ""},
		{"missing", "no-such-program", 127, ""},
	} {
		c := runc.Variant(q, b, row.name, bundle.Args("sh", "-c", row.script))
		before := q.TakeInventory()
		r := c.Try("run")
		assert.Check(q, cmp.Equal(r.Code, row.code), "%s", r)
		if row.prints != "" {
			assert.Check(q, cmp.Equal(strings.TrimSpace(r.Stdout), row.prints))
		}
		proc.WaitFor(q, c.NoLeftovers(before))
		leftovers = append(leftovers, c.Leftovers(before)...)
		q.Fact("exit code of run: "+row.script, r.Code)
	}
	q.Fact("leftovers of these four", leftovers)

	q.Control("with create and start runc does not wait: it reports no exit code, and the container stays until delete")
	byHand := runc.Variant(q, b, "by-hand", bundle.Args("sh", "-c", "exit 7"))
	byHand.Create()
	p := byHand.Process()
	started := byHand.Try("start")
	assert.Check(q, cmp.Equal(started.Code, 0), "exit code of start; the program exits with 7")
	proc.WaitFor(q, proc.Dead(p.Identity))
	stateDocument := byHand.Must("state").Stdout
	assert.Check(q, cmp.Equal(byHand.State().Status, specs.StateStopped))
	q.Fact("start's exit code", started.Code)
	q.Fact("status after the program's end", byHand.State().Status)
	assert.Check(q, !strings.Contains(stateDocument, "exit"), "the state document has an exit code:\n%s", stateDocument)
	byHand.Delete()

	q.Control("run --detach returns while the program runs, and leaves the container")
	detached := runc.Variant(q, b, "detached")
	detached.Must("run", "--detach")
	pid := detached.PID()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	assert.Check(q, cmp.Equal(detached.State().Status, specs.StateRunning))
	q.Fact("after run --detach", detached.State().Status)
	detached.KillAndDelete(proc.Snapshot(q, pid))

	q.Step("in the foreground the runtime is the program's parent. Send TERM to the runtime: it sends TERM to the program")
	foreground := runc.Variant(q, b, "foreground", bundle.Args("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 3600 & wait $!; done"))
	run := q.StartBackground(foreground.Argv("run")...)
	proc.WaitFor(q, file.DirHas(foreground.StateDir(), "state.json"))
	proc.WaitFor(q, foreground.HasStatus(specs.StateRunning))
	program := foreground.Process()
	assert.Check(q, cmp.Equal(program.Parent, run.PID()))
	q.Fact("parents", proc.Parents(q, map[string]proc.PID{"program": program.PID, "runc run": run.PID()}))
	// Not before: what arrives while the process is still `runc init`, or before the shell has set its trap, is lost, and
	// the runtime then waits for ever. That the runtime misses the end of the program is another matter: runc had that bug
	// (https://github.com/opencontainers/runc/pull/5208), and 1.5.2 has not, for it registers SIGCHLD before all else.
	proc.WaitFor(q, proc.Catches(program.PID, "sh", unix.SIGTERM))
	proc.WaitFor(q, proc.HandlesAllSignals(run.PID()))
	run.Signal(unix.SIGTERM)
	exitCode := run.ExitCode()
	assert.Check(q, cmp.Equal(exitCode, 9), "the exit code of run")
	assert.Check(q, !file.Exists(foreground.StateDir()))
	q.Fact("TERM to runc: exit code of run", exitCode)

	q.Answer("Run adds wait and delete: it is create, start, wait and delete in one command. It returns the program's exit code.")
}
