//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

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

// config.json has hooks for six points of the lifecycle. At four of them hooks run in the host's namespaces, at two of them in the
// container's.
//
// prestart, createRuntime and poststart run in the host's namespaces during create, with the bundle as their directory.
// createContainer runs in the container's namespaces before pivot_root, so it still sees the host's files. startContainer runs in
// the container's root file system, right before the program. poststop runs on the host at the end of delete. Each hook reads the
// state document from stdin. The pid in this document is that of the container's process, as the hook's pid namespace counts it: 1
// inside of the container. After the end of the process it is 0. By the specification poststart comes after the program's start, but
// runc runs it during create.
//
// Hint: what does a hook see in /proc/self/ns, as its directory, and as its root?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks
// Kernel: https://man7.org/linux/man-pages/man2/pivot_root.2.html
func TestLifecycle_WhenAndWhereDoHooksRun(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "When and where do hooks run?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	assert.NilError(q, os.WriteFile(b.Rootfs("in-rootfs"), nil, 0o644))
	c, log := runc.WithHooks(q, b, "hooks", func(h *specs.Hooks, dir string) {
		for _, point := range runc.HookPoints {
			first, second := point.Field+".1", point.Field+".2"
			*point.Of(h) = []specs.Hook{runc.ReportingHook(point, dir, first, "0"), runc.ReportingHook(point, dir, second, "0")}
		}
	})

	q.Step("create, start, kill and delete a container with two hooks at each point: which hooks does each command run?")
	operationOf := map[string]string{} // by the name of a hook
	noted := 0
	noteHooks := func(operation string) {
		q.Helper()
		entries := log.Entries()
		for _, name := range entries[noted:] {
			operationOf[name] = operation
		}
		q.Fact(operation, entries[noted:])
		noted = len(entries)
	}
	c.Create()
	pid := c.PID()
	p := proc.Snapshot(q, pid)
	noteHooks("create")
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	noteHooks("start")
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	noteHooks("kill")
	c.Delete()
	noteHooks("delete")

	q.Step("the points follow each other in the order of the lifecycle, and the two hooks of a point in the order of config.json")
	entries := log.Entries()
	expected := []string{"program"}
	for _, point := range runc.HookPoints {
		expected = append(expected, point.Field+".1", point.Field+".2")
	}
	slices.Sort(expected)
	assert.Assert(q, cmp.DeepEqual(slices.Sorted(slices.Values(entries)), expected), "each hook and the program run exactly once")
	for _, point := range runc.HookPoints {
		first, second := point.Field+".1", point.Field+".2"
		inOrder := slices.Index(entries, first) == slices.Index(entries, second)-1
		assert.Check(q, inOrder, "%s does not run right before %s: %q", first, second, entries)
	}
	for _, pair := range [][2]string{
		{"hooks.prestart[].2", "hooks.createRuntime[].1"},
		{"hooks.createRuntime[].2", "hooks.createContainer[].1"},
		{"hooks.createContainer[].2", "hooks.startContainer[].1"},
		{"hooks.startContainer[].2", "program"},
		{"program", "hooks.poststop[].1"},
	} {
		inOrder := slices.Index(entries, pair[0]) < slices.Index(entries, pair[1])
		assert.Check(q, inOrder, "%s does not run before %s: %q", pair[0], pair[1], entries)
	}
	// A hook that ran was found by its path, and its name in the log is one of its args.
	q.Covers("hooks.prestart[].path", "hooks.createRuntime[].path", "hooks.createContainer[].path",
		"hooks.startContainer[].path", "hooks.poststart[].path", "hooks.poststop[].path")
	q.Covers("hooks.prestart[].args", "hooks.createRuntime[].args", "hooks.createContainer[].args",
		"hooks.startContainer[].args", "hooks.poststart[].args", "hooks.poststop[].args")
	q.Clause("Lifecycle: The prestart hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The createRuntime hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The createContainer hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The startContainer hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The poststop hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The poststart hooks MUST be invoked by the runtime.",
		lab.DeviatesUnless(operationOf["hooks.poststart[].1"] == "start", "they are, but during create, before the program runs"))

	q.Step("each hook reports where it runs: its namespaces, root, directory, user and environment, and what it reads from stdin")
	const creating, created, stopped = specs.StateCreating, specs.StateCreated, specs.StateStopped
	inside, outside := "the container's", "the host's"
	namespacesOf := map[string]map[string]proc.Inode{inside: p.NS, outside: proc.Self(q).NS}
	for _, want := range []hookPlace{
		{"hooks.prestart[]", outside, "host", c.Bundle.Dir, pid, creating},
		{"hooks.createRuntime[]", outside, "host", c.Bundle.Dir, pid, creating},
		{"hooks.createContainer[]", inside, "host", b.Rootfs(), 1, creating}, // pid 1 of the container's pid namespace
		{"hooks.startContainer[]", inside, "container", "/", 1, created},
		{"hooks.poststart[]", outside, "host", c.Bundle.Dir, pid, created},
		{"hooks.poststop[]", outside, "host", q.Dir, 0, stopped}, // the caller's directory: the bundle may be gone by now
	} {
		recordReport(q, c, want, log.Report(want.field+".1"), namespacesOf)
	}
	q.Covers("hooks.prestart[].env", "hooks.createRuntime[].env", "hooks.createContainer[].env",
		"hooks.startContainer[].env", "hooks.poststart[].env", "hooks.poststop[].env")

	q.Control("without hooks only the program runs")
	plain, plainLog := runc.WithHooks(q, b, "plain", func(*specs.Hooks, string) {})
	plain.KillAndDelete(plain.CreateAndStart())
	assert.Check(q, cmp.DeepEqual(plainLog.Entries(), []string{"program"}))
	q.Fact("without hooks: what ran", plainLog.Entries())

	q.Answer("Create runs the hooks of prestart, createRuntime and createContainer, start runs those of startContainer, and delete runs "+
		"those of poststop. The hooks of poststart run at %s. createContainer and startContainer run in the container's namespaces, "+
		"the others in the host's.", operationOf["hooks.poststart[].1"])
}

// hookPlace is where a hook has to run, and what it has to read from stdin.
type hookPlace struct {
	field      string // of config.json
	namespaces string // the container's or the host's
	root       string // the owner of the files that it sees
	cwd        string
	pid        proc.PID
	status     specs.ContainerState
}

// recordReport asserts that a hook has run where it has to, as root, with the environment of config.json and with the state on its stdin.
func recordReport(q *lab.Q, c *runc.Container, want hookPlace, report runc.HookReport, namespacesOf map[string]map[string]proc.Inode) {
	namespaces := "neither" // whose namespaces they all are
	for owner, inodes := range namespacesOf {
		same := len(report.Namespaces) > 0
		for ns, link := range report.Namespaces {
			same = same && link == fmt.Sprintf("%s:[%d]", ns, inodes[ns])
		}
		if same {
			namespaces = owner
		}
	}
	assert.Check(q, cmp.Equal(namespaces, want.namespaces), "the namespaces in which %s runs: %q", want.field, report.Namespaces)
	assert.Check(q, cmp.Equal(report.UID, "0"), "the user as which %s runs", want.field)
	assert.Check(q, cmp.Equal(report.Root, want.root), "the owner of the files that %s sees", want.field)
	assert.Check(q, cmp.DeepEqual(report.Env, runc.HookEnv(want.field+".1")), "the environment of %s is that of its env", want.field)
	state := report.State
	assert.Check(q, cmp.Equal(state.ID, c.ID))
	assert.Check(q, cmp.Equal(state.Bundle, c.Bundle.Dir))
	assert.Check(q, cmp.Equal(proc.PID(state.Pid), want.pid), "the pid that %s reads from stdin", want.field)
	if runc.IsRunc(q) { // the specification leaves the directory open
		assert.Check(q, cmp.Equal(report.Cwd, want.cwd), "the directory in which %s runs", want.field)
		assert.Check(q, cmp.Equal(state.Status, want.status), "the status that %s reads from stdin", want.field)
	}
	q.Fact(want.field, map[string]string{"namespaces": namespaces, "root": report.Root, "cwd": report.Cwd})
	var pidFact any = proc.PID(state.Pid)
	if state.Pid <= 1 {
		pidFact = state.Pid // no pid of the host: the same in every run
	}
	q.Fact(want.field+" reads from stdin", map[string]any{"status": state.Status, "pid": pidFact})
}

// If a hook fails before the program runs, the program does not run. A failed create takes down what it has built. After the failure of
// a startContainer hook the container is stopped, and its state and cgroup stay until delete.
//
// When the first of two hooks at a point fails, the second one does not run. After a failed create the poststop hooks have run, and the
// id is free again. A startContainer hook runs when start may have returned already, so start need not report its failure. Then delete
// runs the poststop hooks. The specification says that the failure of a poststop hook is only a warning. But runc does not run the next
// poststop hook. Since 1.2.0 delete also exits with 1, although the container is gone.
//
// Hint: which hooks run after the failing one? Is there a state directory, a cgroup, a process?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man3/exit.3.html
func TestLifecycle_WhatHappensWhenAHookFails(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when a hook fails?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	// prepare makes a container with a hook at each point. At one point it has two, and the first one exits with the code.
	prepare := func(name string, at runc.HookPoint, code string) (*runc.Container, runc.HookLog) {
		return runc.WithHooks(q, b, name, func(h *specs.Hooks, dir string) {
			for _, point := range runc.HookPoints {
				*point.Of(h) = []specs.Hook{runc.ReportingHook(point, dir, point.Field, "0")}
			}
			*at.Of(h) = []specs.Hook{
				runc.ReportingHook(at, dir, at.Field, code),
				runc.ReportingHook(at, dir, at.Field+".second", "0"),
			}
		})
	}

	for _, point := range runc.HookPoints {
		c, log := prepare("fails-"+point.Name(), point, "3")
		before := q.TakeInventory()

		q.Step("the first hook of %s exits with 3", point.Field)
		operation, result := c.RunUntilHookFails(point)
		entries := log.Entries()
		ran := func(name string) bool { return slices.Contains(entries, name) }
		assertFailureOfHook(q, point, operation, result, entries)
		if point.Field == "hooks.startContainer[]" {
			q.Step("the container is stopped: its state and its cgroup are there, and no poststop hook has run. Delete removes both, and runs it")
			deleteAfterFailedStart(q, c, log)
		}
		proc.WaitFor(q, c.NoLeftovers(before))
		assert.Check(q, !file.Exists(c.StateDir()), "the state directory is left")
		q.Fact(point.Field+" fails: leftovers", c.Leftovers(before))

		const noPoststop = "no operation reports an error, or the poststop hooks do not run"
		stoppedWithError := result.Code != 0 && ran("hooks.poststop[]")
		if operation == "create" && runc.IsRunc(q) { // each supported release meets this, and MetIf asserts it of the pinned one only
			assert.Check(q, stoppedWithError, "create fails with the code %d; what ran: %q", result.Code, entries)
		}
		secondRan := ran(point.Field + ".second")
		switch point.Field {
		case "hooks.prestart[]":
			q.Clause("Lifecycle: If any prestart hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.", lab.MetIf(stoppedWithError, noPoststop))
		case "hooks.createRuntime[]":
			q.Clause("Lifecycle: If any createRuntime hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.", lab.MetIf(stoppedWithError, noPoststop))
		case "hooks.createContainer[]":
			q.Clause("Lifecycle: If any createContainer hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.", lab.MetIf(stoppedWithError, noPoststop))
		case "hooks.startContainer[]":
			q.Clause("Lifecycle: If any startContainer hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.",
				lab.DeviatesUnless(stoppedWithError,
					"start has returned 0 by then: the container is stopped, no command reports an error, and poststop hooks run only at delete"))
		case "hooks.poststart[]":
			q.Clause("Lifecycle: If any poststart hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.", lab.MetIf(stoppedWithError, noPoststop))
		case "hooks.poststop[]":
			q.Clause("Lifecycle: If any poststop hook fails, the runtime MUST log a warning, but the remaining "+
				"hooks and lifecycle continue as if the hook had succeeded.",
				lab.DeviatesUnless(secondRan,
					"the next poststop hook does not run, and delete may fail; the container is gone all the same"))
			q.Clause("Warnings: Unless otherwise stated, logging a warning does not change the flow of the "+
				"operation; it MUST continue as if the warning had not been logged.",
				lab.DeviatesUnless(secondRan,
					"the next poststop hook does not run, although the failure of the first one should only be logged as a warning"))
		}
	}

	q.Control("the same hook exits with 0: the hook after it runs, and the program runs")
	c, log := prepare("succeeds", runc.HookPoints[0], "0")
	c.KillAndDelete(c.CreateAndStart())
	for _, name := range []string{"hooks.prestart[].second", "program"} {
		assert.Check(q, cmp.Contains(log.Entries(), name))
	}
	q.Fact("no hook fails: what ran", log.Entries())

	q.Answer("If a hook fails before the program runs, the program does not run. A failed create takes down what it has built, and runs " +
		"the poststop hooks. After a failed startContainer hook, delete does both. If a poststop hook fails, the container is gone all the same.")
}

// assertFailureOfHook asserts which operation has failed because of the first hook of a point, and which hooks have run until then.
func assertFailureOfHook(q *lab.Q, point runc.HookPoint, operation string, result lab.Result, entries []string) {
	q.Helper()
	ran := func(name string) bool { return slices.Contains(entries, name) }
	q.Fact(point.Field+" fails: the operation that runs it", operation)
	q.Fact(point.Field+" fails: what ran", entries)
	if runc.IsRunc(q) {
		assert.Check(q, cmp.Equal(operation, operationThatRuns(point)), "the operation that runs %s", point.Field)
	}
	switch operation {
	case "start": // start may have returned before the hook
		q.Fact(point.Field+" fails: start's exit code", lab.Chance(strconv.Itoa(result.Code)))
	case "delete":
		// A runc that runs the next hook takes the failure as a warning. runc 1.1 exits with 0. 1.2.0-rc.1 is the first one whose features
		// name mountExtensions.
		if runc.IsRunc(q) && runc.KnowsSince(q, "mountExtensions", "1.2.0-rc.1") && !ran(point.Field+".second") {
			assert.Check(q, cmp.Equal(result.Code, 1), "exit code of delete, whose poststop hook fails:\n%s", result)
			runc.AssertMessage(q, result.Stderr, "exit status 3")
		}
		q.Fact(point.Field+" fails: delete's exit code", result.Code)
	default:
		runc.AssertMessage(q, result.Stderr, "exit status 3")
		q.Fact(point.Field+" fails: create's error", runc.LastLogMessage(result))
	}
	assert.Check(q, ran(point.Field), "%s did not run: %q", point.Field, entries)
	assert.Check(q, cmp.Equal(ran("program"), operation == "delete"), "whether the program ran; %s failed at %s: %q",
		point.Field, operation, entries)
	if operation != "delete" {
		assert.Check(q, !ran(point.Field+".second"), "the hook after the failed one ran: %q", entries)
	}
}

// deleteAfterFailedStart asserts that the failure of a startContainer hook takes nothing down, and that delete does.
func deleteAfterFailedStart(q *lab.Q, c *runc.Container, log runc.HookLog) {
	q.Helper()
	const failed, poststop = "hooks.startContainer[] fails", "hooks.poststop[]"
	status, hasState := c.State().Status, file.Exists(c.StateDir())
	hasCgroup := slices.ContainsFunc(cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Dirs(), file.Exists)
	ranPoststop := func() bool { return slices.Contains(log.Entries(), poststop) }
	if runc.IsRunc(q) {
		assert.Check(q, hasState, "there is no state directory any more, before delete")
		assert.Check(q, hasCgroup, "there is no cgroup any more, before delete")
		assert.Check(q, !ranPoststop(), "the poststop hook has run before delete: %q", log.Entries())
	}
	q.Fact(failed+": status", status)
	q.Fact(failed+", before delete: state directory, cgroup, poststop hook has run", []bool{hasState, hasCgroup, ranPoststop()})
	c.Delete()
	if runc.IsRunc(q) {
		assert.Check(q, ranPoststop(), "delete has not run the poststop hook: %q", log.Entries())
	}
	check.NoCgroup(q, c.Bundle.Spec.Linux.CgroupsPath)
	q.Fact(failed+", after delete: what ran", log.Entries())
}

// operationThatRuns returns the operation in which runc runs the hooks of a point, and which therefore fails if one of them fails.
func operationThatRuns(point runc.HookPoint) string {
	switch point.Field {
	case "hooks.startContainer[]":
		return "start"
	case "hooks.poststop[]":
		return "delete"
	default:
		return "create"
	}
}

// The runtime waits for a slow hook. When the hook's timeout is over, the runtime kills it, and the hook has failed. A missing hook
// has failed, too.
//
// Create takes as long as its hooks. A timeout is a whole number of seconds. A startContainer hook is a child of `runc init`,
// which starts it after it has written to exec.fifo. Since 1.2.8 and 1.3.3 `runc init` has closed the FIFO by then, so start returns while
// the hook still runs. An older one keeps it open until execve(2), and start waits for the hook.
//
// Hint: which process waits for which one? Which files does `runc init` have open while its startContainer hook runs?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks
// Kernel: https://man7.org/linux/man-pages/man7/fifo.7.html, https://man7.org/linux/man-pages/man2/waitpid.2.html
func TestLifecycle_WhatHappensWhenAHookIsSlowOrMissing(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when a hook is slow, or missing?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	second := 1
	createRuntime, startContainer := runc.HookPoints[1], runc.HookPoints[3]
	const pastTimeout = "past specified timeout"

	q.Step("create waits for a slow createRuntime hook, and writes state.json afterwards")
	slow, slowLog := withWaitingHook(q, b, "slow", createRuntime, nil)
	create := q.StartBackground(slow.Argv("create")...)
	proc.WaitFor(q, slowLog.HasEntries(1))
	createEnded, hasStateFile := create.Ended(), file.Exists(slow.StateFile())
	assert.Check(q, !createEnded, "create has ended before its hook")
	assert.Check(q, !hasStateFile, "there is a state.json while the container is creating")
	q.Fact("while the hook waits: create has ended, state.json exists", []bool{createEnded, hasStateFile})
	openGate(q, slowLog)
	assert.Check(q, cmp.Equal(create.ExitCode(), 0))
	assert.Check(q, cmp.Equal(slow.State().Status, specs.StateCreated))
	q.Fact("status after the slow hook", slow.State().Status)
	p := slow.Process()
	slow.Must("delete", "--force")
	proc.WaitFor(q, proc.Dead(p.Identity))

	q.Step("a hook with a timeout of one second is killed after it, and create fails")
	late, lateLog := withWaitingHook(q, b, "late", createRuntime, &second)
	before := q.TakeInventory()
	begin := time.Now()
	lateCreate := late.Try("create")
	took := time.Since(begin)
	assert.Check(q, lateCreate.Code != 0, "create succeeds:\n%s", lateCreate)
	runc.AssertMessage(q, lateCreate.Stderr, pastTimeout)
	assert.Check(q, took >= time.Second, "create has failed after %v, before the timeout", took)
	// On a busy machine the hook may be killed before it has written anything.
	entries := lateLog.Entries()
	assert.Check(q, len(entries) == 0 || slices.Equal(entries, []string{"hook"}), "what ran besides the hook: %q", entries)
	q.Covers("hooks.createRuntime[].timeout")
	proc.WaitFor(q, late.NoLeftovers(before))
	q.Fact("create's error", runc.LastLogMessage(lateCreate))
	q.Fact("create fails after", lab.Elapsed(took))

	q.Step("a slow startContainer hook: the program does not run before the hook has ended")
	inside, insideLog := withWaitingHook(q, b, "inside", startContainer, nil)
	inside.Create()
	pid := inside.PID()
	start := q.StartBackground(inside.Argv("start")...)
	proc.WaitFor(q, insideLog.HasEntries(1))
	init := proc.Snapshot(q, pid)
	assert.Check(q, init.Comm != "sleep", "the program runs while its startContainer hook does")
	assert.Check(q, cmp.DeepEqual(insideLog.Entries(), []string{"hook"}))
	q.Fact("while the hook waits, pid 1 is", init.Comm)
	if runc.IsRunc(q) {
		// Start reads from the FIFO until no process has it open for writing.
		keepsFIFO := slices.Contains(slices.Collect(maps.Values(init.FDs)), inside.Fifo())
		if keepsFIFO {
			assert.Check(q, !start.Ended(), "start has returned although runc init has exec.fifo open")
		} else {
			assert.Check(q, cmp.Equal(start.ExitCode(), 0), "start, while the hook waits: %s", start.Stderr())
		}
		q.Fact("while the hook waits: runc init has exec.fifo open, start has returned", []bool{keepsFIFO, start.Ended()})
	}
	openGate(q, insideLog)
	assert.Check(q, cmp.Equal(start.ExitCode(), 0))
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	assert.Check(q, cmp.DeepEqual(insideLog.Entries(), []string{"hook", "program"}))
	q.Fact("what ran", insideLog.Entries())
	inside.KillAndDelete(proc.Snapshot(q, pid))

	q.Step("a hook whose program is missing has failed, at each of the points")
	for _, point := range runc.HookPoints {
		c, log := runc.WithHooks(q, b, "missing-"+point.Name(), func(h *specs.Hooks, _ string) {
			*point.Of(h) = []specs.Hook{{Path: "/no/such/hook"}}
		})
		q.Fact(point.Field+" is missing: the operation that runs it", assertHookFails(q, c, log, point, "no such file"))
	}

	q.Step("a hook that is killed at its timeout has failed, at each of the points")
	for _, point := range runc.HookPoints {
		c, log := withWaitingHook(q, b, "late-"+point.Name(), point, &second)
		q.Fact(point.Field+" times out: the operation that runs it", assertHookFails(q, c, log, point, pastTimeout))
		if !slices.Contains(log.Entries(), "hook") { // not an error: on a machine that stood still for a second, it had no turn
			q.Logf("%s was killed before it wrote anything", point.Field)
		}
	}
	q.Covers("hooks.prestart[].timeout", "hooks.createContainer[].timeout", "hooks.startContainer[].timeout",
		"hooks.poststart[].timeout", "hooks.poststop[].timeout")

	q.Control("a hook that ends before its timeout: create succeeds")
	hour := 3600 // a second may be over before the hook has its turn
	quick, _ := runc.WithHooks(q, b, "quick", func(h *specs.Hooks, _ string) {
		h.CreateRuntime = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 0"}, Timeout: &hour}}
	})
	quick.Create()
	afterQuick := quick.State().Status
	assert.Check(q, cmp.Equal(afterQuick, specs.StateCreated), "status after the quick hook")
	q.Fact("status after the quick hook", afterQuick)

	q.Answer("The runtime waits for a slow hook until its timeout. A hook that is killed at its timeout has failed, and so has a hook " +
		"whose program is missing.")
}

// withWaitingHook makes a container with one hook. The hook logs that it has begun, and then waits until a line is written
// into the FIFO gate of its directory.
func withWaitingHook(q *lab.Q, b *bundle.Bundle, name string, point runc.HookPoint, timeout *int) (*runc.Container, runc.HookLog) {
	c, log := runc.WithHooks(q, b, name, func(h *specs.Hooks, dir string) {
		const script = "echo hook >> $1/order; read -r line < $1/gate"
		args := []string{"sh", "-c", script, "sh", point.Dir(dir)}
		*point.Of(h) = []specs.Hook{{Path: "/bin/sh", Args: args, Timeout: timeout}}
	})
	q.Must("mkfifo", filepath.Join(log.Dir, "gate"))
	q.Cleanup(func() { file.Remove(q, filepath.Join(log.Dir, "gate")) })
	return c, log
}

// openGate ends the hook of withWaitingHook.
func openGate(q *lab.Q, log runc.HookLog) {
	q.Helper()
	q.Must("sh", "-c", "echo > "+filepath.Join(log.Dir, "gate"))
}

// assertHookFails runs a container until its hook fails, and asserts that the program has run only if delete runs the hook. The error of
// runc has to match the message. Start may have returned before its hook fails, so it need not report an error.
func assertHookFails(q *lab.Q, c *runc.Container, log runc.HookLog, point runc.HookPoint, message string) (operation string) {
	q.Helper()
	before := q.TakeInventory()
	operation, result := c.RunUntilHookFails(point)
	programRan := slices.Contains(log.Entries(), "program")
	assert.Check(q, cmp.Equal(programRan, operation == "delete"), "whether the program ran; %s failed at %s\n%s",
		point.Field, operation, result)
	if runc.IsRunc(q) {
		assert.Check(q, cmp.Equal(operation, operationThatRuns(point)), "the operation that runs %s", point.Field)
		if operation != "start" {
			runc.AssertMessage(q, result.Stderr, message)
		}
	}
	if operation == "create" {
		assert.Check(q, result.Code != 0, "create succeeds although %s fails", point.Field)
	}
	if point.Field == "hooks.startContainer[]" {
		c.Delete() // its failure takes nothing down: TestLifecycle_WhatHappensWhenAHookFails
	}
	proc.WaitFor(q, c.NoLeftovers(before))
	return operation
}
