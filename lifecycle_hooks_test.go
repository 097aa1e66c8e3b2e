//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// hookPoint is a point of the lifecycle at which hooks run.
type hookPoint struct {
	field        string // of config.json
	hooks        func(*specs.Hooks) *[]specs.Hook
	inNamespaces bool // it runs in the container's namespaces
	inRootfs     bool // it runs after pivot_root: its / is the container's
}

// hookPoints has one row for each field of hooks, in the order of the lifecycle.
var hookPoints = []hookPoint{
	//lint:ignore SA1019 it is deprecated, but runtimes still run it
	{"hooks.prestart[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Prestart }, false, false},
	{"hooks.createRuntime[]", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateRuntime }, false, false},
	{"hooks.createContainer[]", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateContainer }, true, false},
	{"hooks.startContainer[]", func(h *specs.Hooks) *[]specs.Hook { return &h.StartContainer }, true, true},
	{"hooks.poststart[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststart }, false, false},
	{"hooks.poststop[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststop }, false, false},
}

// name returns the name of the field in lower case, for a container's name.
func (p hookPoint) name() string {
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(p.field, "hooks."), "[]"))
}

// reportScript is the script of a hook that writes what it sees into the files $2 and $2.json of the directory $1: its
// directory, user, environment, namespaces and root, and what it reads from stdin. It adds $2 to the log of the hooks, and
// exits with $3, or 0.
const reportScript = `d=$1 p=$2; { echo "cwd=$(pwd)"; echo "uid=$(id -u)"; echo "env=$WITNESS"
for n in cgroup ipc mnt net pid uts; do echo "$n=$(readlink /proc/self/ns/$n)"; done
if [ -e /bundle-is-visible ]; then echo "root=container"; else echo "root=host"; fi; } > $d/$p
cat > $d/$p.json; echo $p >> $d/order; exit ${3:-0}`

// reportingHook returns a hook that runs reportScript. It exits with the code, or 0.
func reportingHook(p hookPoint, dir, name, code string) specs.Hook {
	if p.inRootfs {
		dir = runc.HookDir
	}
	return specs.Hook{
		Path: "/bin/sh", Args: []string{"sh", "-c", reportScript, "sh", dir, name, code},
		Env: []string{"PATH=/bin:/usr/bin", "WITNESS=" + name},
	}
}

// readReport reads what a hook saw: its report, and the state document from its stdin.
func readReport(q *lab.Q, dir, name string) (report map[string]string, stdin specs.State) {
	q.Helper()
	report = map[string]string{}
	for line := range strings.Lines(file.Read(q, filepath.Join(dir, name))) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		report[key] = value
	}
	assert.NilError(q, json.Unmarshal([]byte(file.Read(q, filepath.Join(dir, name+".json"))), &stdin))
	return report, stdin
}

// Six kinds, at six points: three in the host's namespaces while the container is made or gone, two in the container's.
//
// prestart, createRuntime and poststart run as the runtime does, in the host's namespaces, with the bundle as their
// directory; createContainer runs in the container's namespaces, but before pivot_root, and still sees the host's files;
// startContainer runs in the container's rootfs, right before the program; poststop after all is gone. Each reads the
// state document from stdin, with the pid as it is known where the hook runs. poststart, by its name and by the
// specification, comes after the program's start; runc runs it during create.
//
// Hint: what would a hook see in /proc/self/ns, as its directory, and as its root?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks
// Kernel: https://man7.org/linux/man-pages/man2/pivot_root.2.html
func TestLifecycle_WhenAndWhereDoHooksRun(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "When and where do hooks run?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")
	assert.NilError(q, os.WriteFile(b.Rootfs("bundle-is-visible"), nil, 0o644))
	c, log := runc.WithHooks(q, b, "hooks", func(h *specs.Hooks, dir string) {
		for _, p := range hookPoints {
			// Two at each point: they run in the order of config.json.
			*p.hooks(h) = []specs.Hook{reportingHook(p, dir, p.field+".1", ""), reportingHook(p, dir, p.field+".2", "")}
		}
	})

	q.Step("create, start, kill, delete: which hooks does each command run?")
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

	q.Step("in the order of the lifecycle, each pair in the order of config.json")
	var all []string
	for _, p := range hookPoints {
		all = append(all, p.field+".1", p.field+".2")
	}
	entries := log.Entries()
	expected := slices.Sorted(slices.Values(append(slices.Clone(all), "program")))
	assert.Check(q, cmp.DeepEqual(slices.Sorted(slices.Values(entries)), expected), "each hook and the program run exactly once")
	for i := 0; i+1 < len(all); i += 2 {
		inOrder := slices.Index(entries, all[i]) == slices.Index(entries, all[i+1])-1
		assert.Check(q, inOrder, "%s does not run right before %s: %q", all[i], all[i+1], entries)
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

	q.Step("where: namespaces, directory, root, user")
	self := proc.Self(q)
	for _, point := range hookPoints {
		report, state := readReport(q, log.Dir, point.field+".1")
		assert.Check(q, cmp.Equal(report["env"], point.field+".1"), "WITNESS, which the hook's env sets")
		assert.Check(q, cmp.Equal(report["uid"], "0"), "the user as which %s runs", point.field)
		namespaces, owner := "the host's", self
		if point.inNamespaces {
			namespaces, owner = "the container's", p
		}
		for _, ns := range []string{"ipc", "mnt", "net", "uts"} {
			want := fmt.Sprintf("%s:[%d]", ns, owner.NS[ns])
			assert.Check(q, cmp.Equal(report[ns], want), "the %s namespace in which %s runs", ns, point.field)
		}
		root, cwd := "host", c.Bundle.Dir
		switch point.field {
		case "hooks.createContainer[]":
			cwd = b.Rootfs()
		case "hooks.startContainer[]":
			root, cwd = "container", "/"
		case "hooks.poststop[]":
			cwd = report["cwd"] // the caller's: the bundle may have been removed
		}
		assert.Check(q, cmp.Equal(report["root"], root), "the owner of the files that %s sees", point.field)
		if q.UnderTest("runc").Pinned {
			assert.Check(q, cmp.Equal(report["cwd"], cwd), "the directory in which %s runs", point.field)
		}
		q.Fact(point.field, map[string]string{"namespaces": namespaces, "root": report["root"], "cwd": report["cwd"]})

		var pidFact any = proc.PID(state.Pid)
		if state.Pid <= 1 {
			pidFact = state.Pid // no pid of the host: the same in every run
		}
		q.Fact(point.field+" reads from stdin", map[string]any{"status": state.Status, "pid": pidFact})
		assert.Check(q, cmp.Equal(state.ID, c.ID))
		assert.Check(q, cmp.Equal(state.Bundle, c.Bundle.Dir))
		switch {
		case point.field == "hooks.poststop[]":
			assert.Check(q, cmp.Equal(state.Status, specs.StateStopped))
			assert.Check(q, cmp.Equal(state.Pid, 0), "pid of a stopped container")
		case point.inNamespaces:
			assert.Check(q, cmp.Equal(state.Pid, 1), "the pid that %s reads, in the container's pid namespace", point.field)
		default:
			assert.Check(q, cmp.Equal(proc.PID(state.Pid), pid), "the pid that %s reads", point.field)
		}
	}
	q.Covers("hooks.prestart[].env", "hooks.createRuntime[].env", "hooks.createContainer[].env",
		"hooks.startContainer[].env", "hooks.poststart[].env", "hooks.poststop[].env")

	q.Control("without hooks only the program runs")
	plain, plainLog := runc.WithHooks(q, b, "plain", func(*specs.Hooks, string) {})
	plain.KillAndDelete(plain.CreateAndStart())
	assert.Check(q, cmp.DeepEqual(plainLog.Entries(), []string{"program"}))

	q.Answer("Around create: prestart, createRuntime, createContainer; in start: startContainer; after delete: poststop. "+
		"poststart runs at %s.", operationOf["hooks.poststart[].1"])
}

// A hook that fails before the program runs means that there is no container: what was built is torn down, and poststop
// hooks run.
//
// Of two hooks at a point, the second one does not run when the first one fails. After create's hooks have failed, the id
// is free again. startContainer runs when `start` can no longer fail: the container is just stopped, and the program has
// not run. A failing poststop should be a warning; runc's delete fails for it, though the container is gone.
//
// Hint: which hooks run after the failing one? Is there a state directory, a cgroup, a process?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man3/exit.3.html
func TestLifecycle_WhatHappensWhenAHookFails(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when a hook fails?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")
	for _, point := range hookPoints {
		c, log := runc.WithHooks(q, b, "fails-"+point.name(), func(h *specs.Hooks, dir string) {
			for _, p := range hookPoints {
				*p.hooks(h) = []specs.Hook{reportingHook(p, dir, p.field, "")}
			}
			*point.hooks(h) = []specs.Hook{
				reportingHook(point, dir, point.field, "3"),
				reportingHook(point, dir, point.field+".second", ""),
			}
		})
		before := q.TakeInventory()
		failedOperation := "create" // the operation that reports the failure; "" if none does

		q.Step("%s exits 3", point.field)
		create := c.Try("create")
		if create.Code == 0 {
			pid := c.PID()
			p := proc.Snapshot(q, pid)
			start := c.Try("start")
			if failedOperation = "start"; start.Code == 0 {
				failedOperation = ""
			}
			if point.field == "hooks.startContainer[]" {
				// start may have returned before the hook has; either way the program never runs.
				proc.WaitFor(q, proc.Dead(p.Identity))
				q.Fact(point.field+" fails: start's exit code", lab.Chance(fmt.Sprint(start.Code)))
				assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped))
				c.Must("delete")
			} else if start.Code == 0 {
				failedOperation = "delete"
				proc.WaitFor(q, proc.Runs(pid, "sleep"))
				c.Kill("KILL")
				proc.WaitFor(q, proc.Dead(p.Identity))
				deleted := c.Try("delete")
				q.Fact(point.field+" fails: delete's exit code", deleted.Code)
			}
		} else {
			runc.AssertMessage(q, create.Stderr, "exit status 3")
			q.Fact(point.field+" fails: create's error", runc.LastLogMessage(create))
		}
		entries := log.Entries()
		q.Fact(point.field+" fails: what ran", entries)
		assert.Check(q, cmp.Contains(entries, point.field))
		secondRan := slices.Contains(entries, point.field+".second")
		if failedOperation != "delete" {
			assert.Check(q, !secondRan, "the hook after the failed one ran: %q", entries)
		}
		programRan := slices.Contains(entries, "program")
		assert.Check(q, programRan == (failedOperation == "delete"), "%s failed at %q; what ran: %q",
			point.field, failedOperation, entries)
		poststopRan := slices.Contains(entries, "hooks.poststop[]")
		proc.WaitFor(q, c.NoLeftovers(before))
		assert.Check(q, !file.Exists(c.StateDir()), "the state directory is left")
		q.Fact(point.field+" fails: leftovers", c.Leftovers(before))

		stoppedWithError := failedOperation != "" && poststopRan
		switch point.field {
		case "hooks.prestart[]":
			q.Clause("Lifecycle: If any prestart hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.",
				lab.MetIf(stoppedWithError, "the poststop hooks do not run"))
		case "hooks.createRuntime[]":
			q.Clause("Lifecycle: If any createRuntime hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.",
				lab.MetIf(stoppedWithError, "the poststop hooks do not run"))
		case "hooks.createContainer[]":
			q.Clause("Lifecycle: If any createContainer hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.",
				lab.MetIf(stoppedWithError, "the poststop hooks do not run"))
		case "hooks.startContainer[]":
			q.Clause("Lifecycle: If any startContainer hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.",
				lab.DeviatesUnless(stoppedWithError,
					"start has returned 0 by then: the container is stopped and poststop hooks run, but no command reports an error"))
		case "hooks.poststart[]":
			q.Clause("Lifecycle: If any poststart hook fails, the runtime MUST generate an error, stop the "+
				"container, and continue the lifecycle at step 12.",
				lab.MetIf(stoppedWithError, "the poststop hooks do not run"))
		case "hooks.poststop[]":
			q.Clause("Lifecycle: If any poststop hook fails, the runtime MUST log a warning, but the remaining "+
				"hooks and lifecycle continue as if the hook had succeeded.",
				lab.DeviatesUnless(secondRan,
					"delete fails, and the next poststop hook does not run; the container is gone all the same"))
			q.Clause("Warnings: Unless otherwise stated, logging a warning does not change the flow of the "+
				"operation; it MUST continue as if the warning had not been logged.",
				lab.DeviatesUnless(secondRan, "delete fails, where the failure of a poststop hook should only be logged as a warning"))
		}
	}

	q.Control("the hook exits 0: the program runs")
	c, log := runc.WithHooks(q, b, "succeeds", func(h *specs.Hooks, dir string) {
		for _, p := range hookPoints {
			*p.hooks(h) = []specs.Hook{reportingHook(p, dir, p.field, "0")}
		}
	})
	c.KillAndDelete(c.CreateAndStart())
	assert.Check(q, cmp.Contains(log.Entries(), "program"))
	q.Fact("no hook fails: what ran", log.Entries())

	q.Answer("No container: what was built is torn down, the program does not run, poststop hooks do.")
}

// The runtime waits for a slow hook. If the hook has a timeout, it is killed then and has failed. A missing hook has failed.
//
// Create is as slow as its hooks. A timeout is a whole number of seconds; the hook's process is killed when it is over.
// A startContainer hook cannot make start wait: runc's start returns when the FIFO is open, with the hook still running
// in the place of `runc init`.
//
// Hint: which process waits for which? Which process is there while a hook is slow?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks
// Kernel: https://man7.org/linux/man-pages/man2/waitpid.2.html
func TestLifecycle_WhatHappensWhenAHookIsSlowOrMissing(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when a hook is slow, or missing?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")
	// The hook logs that it has begun, then waits until a line is written to the FIFO gate of its directory.
	waitingHook := func(dir string, timeout *int) specs.Hook {
		script := "echo hook >> $1/order; read -r x < $1/gate"
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script, "sh", dir}, Timeout: timeout}
	}
	makeGate := func(log runc.HookLog) {
		q.Must("mkfifo", filepath.Join(log.Dir, "gate"))
		q.Cleanup(func() { file.Remove(q, filepath.Join(log.Dir, "gate")) })
	}
	openGate := func(log runc.HookLog) {
		q.Helper()
		path := filepath.Join(log.Dir, "gate")
		q.LogCommand("echo > %s", path)
		gate, err := os.OpenFile(path, os.O_WRONLY, 0)
		assert.NilError(q, err)
		_, err = gate.WriteString("\n")
		assert.NilError(q, err)
		assert.NilError(q, gate.Close())
	}

	q.Step("create waits for a slow createRuntime hook, and the container is creating meanwhile")
	slow, slowLog := runc.WithHooks(q, b, "slow", func(h *specs.Hooks, dir string) {
		h.CreateRuntime = []specs.Hook{waitingHook(dir, nil)}
	})
	makeGate(slowLog)
	create := q.StartBackground(slow.Argv("create")...)
	proc.WaitFor(q, slowLog.HasEntries(1))
	assert.Check(q, !create.Ended(), "create has ended before its hook")
	assert.Check(q, !file.Exists(slow.StateFile()), "there is a state.json while the container is creating")
	q.Fact("while the hook waits, create", "waits")
	openGate(slowLog)
	assert.Check(q, cmp.Equal(create.ExitCode(), 0))
	assert.Check(q, cmp.Equal(slow.State().Status, specs.StateCreated))
	q.Fact("status after the slow hook", slow.State().Status)
	p := slow.Process()
	slow.Must("delete", "--force")
	proc.WaitFor(q, proc.Dead(p.Identity))

	q.Step("hooks.*.timeout: one second, and the hook is killed; create fails and leaves nothing")
	second := 1
	late, lateLog := runc.WithHooks(q, b, "late", func(h *specs.Hooks, dir string) {
		h.CreateRuntime = []specs.Hook{waitingHook(dir, &second)}
	})
	makeGate(lateLog)
	before := q.TakeInventory()
	begin := time.Now()
	lateCreate := late.Try("create")
	took := time.Since(begin)
	assert.Check(q, lateCreate.Code != 0, "create succeeds:\n%s", lateCreate)
	runc.AssertMessage(q, lateCreate.Stderr, "time")
	assert.Check(q, took >= time.Second, "create has failed after %v, before the timeout", took)
	// On a busy machine the hook may be killed before it has written anything.
	entries := lateLog.Entries()
	assert.Check(q, len(entries) == 0 || slices.Equal(entries, []string{"hook"}), "what ran besides the hook: %q", entries)
	q.Covers("hooks.createRuntime[].timeout")
	proc.WaitFor(q, late.NoLeftovers(before))
	q.Fact("create's error", runc.LastLogMessage(lateCreate))
	q.Fact("create fails after", lab.Elapsed(took))

	q.Step("a slow startContainer hook: the program does not run before it has ended")
	inside, insideLog := runc.WithHooks(q, b, "inside", func(h *specs.Hooks, _ string) {
		h.StartContainer = []specs.Hook{waitingHook(runc.HookDir, nil)}
	})
	makeGate(insideLog)
	inside.Create()
	pid := inside.PID()
	start := q.StartBackground(inside.Argv("start")...)
	proc.WaitFor(q, insideLog.HasEntries(1))
	init := proc.Snapshot(q, pid)
	assert.Check(q, init.Comm != "sleep", "the program runs while its startContainer hook does")
	assert.Check(q, cmp.DeepEqual(insideLog.Entries(), []string{"hook"}))
	q.Fact("meanwhile, pid 1 is", init.Comm)
	q.Fact("meanwhile, the status is", lab.Chance(inside.State().Status))
	openGate(insideLog)
	assert.Check(q, cmp.Equal(start.ExitCode(), 0))
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	assert.Check(q, cmp.DeepEqual(insideLog.Entries(), []string{"hook", "program"}))
	q.Fact("what ran", insideLog.Entries())
	inside.KillAndDelete(proc.Snapshot(q, pid))

	// failingOperation takes a container from create to delete. It returns the operation during which the hook fails.
	failingOperation := func(c *runc.Container, log runc.HookLog, point hookPoint) string {
		q.Helper()
		before := q.TakeInventory()
		result, operation := c.Try("create"), "create"
		if result.Code == 0 {
			p := c.Process()
			result, operation = c.Try("start"), "start"
			if point.field == "hooks.startContainer[]" {
				proc.WaitFor(q, proc.Dead(p.Identity))
				c.Must("delete")
			} else {
				proc.WaitFor(q, proc.Runs(p.PID, "sleep"))
				c.Kill("KILL")
				proc.WaitFor(q, proc.Dead(p.Identity))
				result, operation = c.Try("delete"), "delete"
			}
		}
		programRan := slices.Contains(log.Entries(), "program")
		assert.Check(q, programRan == (operation == "delete"), "%s failed at %s; the program ran: %v\n%s",
			point.field, operation, programRan, result)
		proc.WaitFor(q, c.NoLeftovers(before))
		return operation
	}

	q.Step("a missing hook has failed, at each of the points")
	for _, point := range hookPoints {
		c, log := runc.WithHooks(q, b, "missing-"+point.name(), func(h *specs.Hooks, _ string) {
			*point.hooks(h) = []specs.Hook{{Path: "/no/such/hook"}}
		})
		q.Fact(point.field+" fails at", failingOperation(c, log, point))
	}

	q.Step("a hook that is killed at its timeout has failed, at each of the points")
	for _, point := range hookPoints {
		c, log := runc.WithHooks(q, b, "late-"+point.name(), func(h *specs.Hooks, dir string) {
			if point.inRootfs {
				dir = runc.HookDir
			}
			*point.hooks(h) = []specs.Hook{waitingHook(dir, &second)}
		})
		makeGate(log)
		q.Fact(point.field+" times out at", failingOperation(c, log, point))
		assert.Check(q, cmp.Contains(log.Entries(), "hook"), "the hook began")
	}
	q.Covers("hooks.prestart[].timeout", "hooks.createContainer[].timeout", "hooks.startContainer[].timeout",
		"hooks.poststart[].timeout", "hooks.poststop[].timeout")

	q.Control("a hook that exists and ends before its timeout: create succeeds")
	quick, _ := runc.WithHooks(q, b, "quick", func(h *specs.Hooks, _ string) {
		h.CreateRuntime = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 0"}, Timeout: &second}}
	})
	quick.Create()
	q.Fact("status after the quick hook", quick.State().Status)

	q.Answer("A slow hook is waited for, up to its timeout; a hook that is late or missing has failed.")
}
