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
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// A point at which hooks run, in the order of the lifecycle.
type point struct {
	field  string // of config.json
	hooks  func(*specs.Hooks) *[]specs.Hook
	inside bool   // in the container's namespaces
	rootfs bool   // after pivot_root: / is the container's
	at     string // the operation of runc 1.5 during which it runs
}

// One row for each field of hooks.
var points = []point{
	//lint:ignore SA1019 it is deprecated, and there
	{"hooks.prestart[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Prestart }, false, false, "create"},
	{"hooks.createRuntime[]", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateRuntime }, false, false, "create"},
	{"hooks.createContainer[]", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateContainer }, true, false, "create"},
	{"hooks.startContainer[]", func(h *specs.Hooks) *[]specs.Hook { return &h.StartContainer }, true, true, "start"},
	{"hooks.poststart[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststart }, false, false, "create"},
	{"hooks.poststop[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststop }, false, false, "delete"},
}

// testify writes down what a hook sees, below the directory $1, which the container has as /seen: where it is, who it
// is, in which namespaces and cgroup, what it was told on stdin, and whose turn it was. $3, if given, is how it ends.
const testify = `d=$1 p=$2; { echo "cwd=$(pwd)"; echo "uid=$(id -u)"; echo "env=$WITNESS"
for n in cgroup ipc mnt net pid uts; do echo "$n=$(readlink /proc/self/ns/$n)"; done
if [ -e /bundle-is-visible ]; then echo "root=container"; else echo "root=host"; fi; } > $d/$p
cat > $d/$p.json; echo $p >> $d/order; exit ${3:-0}`

// witness is a hook that writes down what it sees; exit is how it ends.
func witness(p point, dir string, name string, exit string) specs.Hook {
	if p.rootfs {
		dir = "/seen"
	}
	return specs.Hook{
		Path: "/bin/sh", Args: []string{"sh", "-c", testify, "sh", dir, name, exit},
		Env: []string{"PATH=/bin:/usr/bin", "WITNESS=" + name},
	}
}

// hooked is a container of the bundle with hooks, whose program leaves a mark when it runs.
func hooked(q *lab.Q, b *bundle.Bundle, name string, edit func(h *specs.Hooks, dir string)) (*runc.Container, string) {
	q.Helper()
	dir := q.Mkdir("seen-" + name)
	return runc.Variant(q, b, name, bundle.Args("sh", "-c", "echo program >> /seen/order; exec sleep 300"), func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/seen", Type: "bind", Source: dir, Options: []string{"bind", "rw"}})
		s.Hooks = &specs.Hooks{}
		edit(s.Hooks, dir)
	}), dir
}

// order is who has had a turn so far.
func order(q *lab.Q, dir string) []string {
	q.Helper()
	if !file.Exists(filepath.Join(dir, "order")) {
		return nil
	}
	return strings.Fields(file.Read(q, filepath.Join(dir, "order")))
}

// turn is a poll check: so many have had a turn.
func turns(dir string, n int) poll.Check {
	return func(poll.LogT) poll.Result {
		got, _ := file.TryRead(filepath.Join(dir, "order"))
		if len(strings.Fields(got)) < n {
			return poll.Continue("%q have had a turn, and not %d", got, n)
		}
		return poll.Success()
	}
}

// testimony reads what a hook has written down.
func testimony(q *lab.Q, dir, name string) (map[string]string, specs.State) {
	q.Helper()
	out := map[string]string{}
	for line := range strings.Lines(file.Read(q, filepath.Join(dir, name))) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		out[k] = v
	}
	var s specs.State
	assert.NilError(q, json.Unmarshal([]byte(file.Read(q, filepath.Join(dir, name+".json"))), &s))
	return out, s
}

// Six kinds, at six points: three in the host's namespaces while the container is made or gone, two in the container's.
//
// prestart, createRuntime and poststart run as the runtime does, in the host's namespaces, with the bundle as their
// directory; createContainer runs in the container's namespaces, but before pivot_root, and still sees the host's files;
// startContainer runs in the container's rootfs, right before the program; poststop after all is gone. Each is told
// the state document on stdin, with the pid as it is known where the hook runs. poststart, by its name and by the
// specification, comes after the program's start; runc runs it during create.
//
// Hint: what would a hook see in /proc/self/ns, as its directory, and as its root?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks
// Kernel: https://man7.org/linux/man-pages/man2/pivot_root.2.html
func TestLifecycle_WhenAndWhereDoHooksRun(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "When and where do hooks run?")
	b := bundle.Busybox(q, "sleep", "300")
	assert.NilError(q, os.WriteFile(b.Rootfs("bundle-is-visible"), nil, 0o644))
	c, dir := hooked(q, b, "hooks", func(h *specs.Hooks, dir string) {
		for _, p := range points {
			// Two at each point: they run in the order of config.json.
			*p.hooks(h) = []specs.Hook{witness(p, dir, p.field+".1", ""), witness(p, dir, p.field+".2", "")}
		}
	})

	q.Step("create, start, kill, delete: at which of them does whose turn come?")
	at := map[string]string{}
	told := 0
	note := func(operation string) {
		q.Helper()
		now := order(q, dir)
		for _, name := range now[told:] {
			at[name] = operation
		}
		q.Fact(operation, now[told:])
		told = len(now)
	}
	c.Create()
	pid := c.State().Pid
	p := proc.Snapshot(q, proc.PID(pid))
	note("create")
	c.Start()
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
	note("start")
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	note("kill")
	c.Delete()
	note("delete")

	q.Step("in the order of the lifecycle, each pair in the order of config.json")
	var all []string
	for _, p := range points {
		all = append(all, p.field+".1", p.field+".2")
	}
	got := order(q, dir)
	assert.Check(q, cmp.DeepEqual(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(append(slices.Clone(all), "program")))), "each has exactly one turn")
	for i := 0; i+1 < len(all); i += 2 {
		assert.Check(q, slices.Index(got, all[i]) == slices.Index(got, all[i+1])-1, "of the pair %s: %q", all[i], got)
	}
	for _, before := range [][2]string{
		{"hooks.prestart[].2", "hooks.createRuntime[].1"}, {"hooks.createRuntime[].2", "hooks.createContainer[].1"},
		{"hooks.createContainer[].2", "hooks.startContainer[].1"}, {"hooks.startContainer[].2", "program"}, {"program", "hooks.poststop[].1"},
	} {
		assert.Check(q, slices.Index(got, before[0]) < slices.Index(got, before[1]), "%s comes before %s: %q", before[0], before[1], got)
	}
	q.Clause("Lifecycle: The prestart hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The createRuntime hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The createContainer hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The startContainer hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause("Lifecycle: The poststop hooks MUST be invoked by the runtime.", lab.Met)
	q.Clause(
		"Lifecycle: The poststart hooks MUST be invoked by the runtime.", lab.DeviatesUnless(at["hooks.poststart[].1"] == "start",

			"they are, but during create, before the program runs"))

	q.Step("where: namespaces, directory, root, user")
	self := proc.Self(q)
	for _, point := range points {
		saw, state := testimony(q, dir, point.field+".1")
		assert.Check(q, cmp.Equal(saw["env"], point.field+".1"), "the hook's env, and nothing else")
		assert.Check(q, cmp.Equal(saw["uid"], "0"), "%s runs as", point.field)
		for _, ns := range []string{"ipc", "mnt", "net", "uts"} {
			where := self
			if point.inside {
				where = p
			}
			assert.Check(q, cmp.Equal(saw[ns], fmt.Sprintf("%s:[%d]", ns, where.NS[ns])), "%s runs in the %s namespace", point.field, ns)
		}
		root, cwd := "host", c.Bundle.Dir
		switch point.field {
		case "hooks.createContainer[]":
			cwd = b.Rootfs()
		case "hooks.startContainer[]":
			root, cwd = "container", "/"
		case "hooks.poststop[]":
			cwd = saw["cwd"] // the caller's: the bundle need not be there any more
		}
		assert.Check(q, cmp.Equal(saw["root"], root), "whose files %s sees", point.field)
		if q.UnderTest("runc").Pinned {
			assert.Check(q, cmp.Equal(saw["cwd"], cwd), "where %s runs", point.field)
		}
		q.Fact(point.field, map[string]string{"namespaces": ours(point.inside), "root": saw["root"], "cwd": saw["cwd"]})

		q.Fact(point.field+" is told", map[string]any{"status": state.Status, "pid": known(proc.PID(state.Pid))})
		assert.Check(q, cmp.Equal(state.ID, c.ID))
		assert.Check(q, cmp.Equal(state.Bundle, c.Bundle.Dir))
		switch {
		case point.field == "hooks.poststop[]":
			assert.Check(q, cmp.Equal(state.Status, specs.StateStopped))
			assert.Check(q, cmp.Equal(state.Pid, 0), "pid of a stopped container")
		case point.inside:
			assert.Check(q, cmp.Equal(state.Pid, 1), "the pid of which %s is told, who is in the container's pid namespace", point.field)
		default:
			assert.Check(q, cmp.Equal(state.Pid, pid), "the pid of which %s is told", point.field)
		}
	}

	q.Control("without hooks nobody has a turn but the program")
	plain, dir := hooked(q, b, "plain", func(*specs.Hooks, string) {})
	plain.KillAndDelete(plain.CreateAndStart())
	assert.Check(q, cmp.DeepEqual(order(q, dir), []string{"program"}))

	q.Answer("Around create: prestart, createRuntime, createContainer; in start: startContainer; after delete: poststop. "+
		"poststart runs at %s.", at["hooks.poststart[].1"])
}

func ours(inside bool) string {
	if inside {
		return "the container's"
	}
	return "the host's"
}

// known is a pid as a fact: 0 and 1 are the same in every run.
func known(pid proc.PID) any {
	if pid <= 1 {
		return pid
	}
	return pid
}

// A hook that fails before the program runs means that there is no container: what was built is torn down, and poststop
// hooks run.
//
// Of two hooks at a point, the second one has no turn when the first one fails. After create's hooks have failed, the id
// is free again. startContainer runs when `start` can no longer fail: the container is just stopped, and the program has
// not run. A failing poststop should be a warning; runc's delete fails for it, though the container is gone.
//
// Hint: who has had a turn after the failing one? Is there a state directory, a cgroup, a process?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man3/exit.3.html
func TestLifecycle_WhatHappensWhenAHookFails(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when a hook fails?")
	b := bundle.Busybox(q, "sleep", "300")
	for _, point := range points {
		name := strings.TrimSuffix(strings.TrimPrefix(point.field, "hooks."), "[]")
		c, dir := hooked(q, b, "fails-"+strings.ToLower(name), func(h *specs.Hooks, dir string) {
			for _, p := range points {
				*p.hooks(h) = []specs.Hook{witness(p, dir, p.field, "")}
			}
			*point.hooks(h) = []specs.Hook{witness(point, dir, point.field, "3"), witness(point, dir, point.field+".second", "")}
		})
		before := q.TakeInventory()
		failsAt := "create" // the operation that says so; "" where none does

		q.Step("%s exits 3", point.field)
		create := c.Try("create")
		if create.Code == 0 {
			pid := c.State().Pid
			p := proc.Snapshot(q, proc.PID(pid))
			start := c.Try("start")
			if failsAt = "start"; start.Code == 0 {
				failsAt = ""
			}
			if point.field == "hooks.startContainer[]" {
				// start may have returned before the hook has; either way the program never runs.
				proc.WaitFor(q, proc.Dead(p.Identity))
				q.Fact("start's exit code", lab.Chance(fmt.Sprint(start.Code)))
				assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped))
				c.Must("delete")
			} else if start.Code == 0 {
				failsAt = "delete"
				proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
				c.Kill("KILL")
				proc.WaitFor(q, proc.Dead(p.Identity))
				deleted := c.Try("delete")
				q.Fact("delete's exit code", deleted.Code)
			}
		} else {
			assert.Check(q, cmp.Contains(create.Stderr, "exit status 3"), "create does not say why")
			q.Fact("create says", runc.LastLogMessage(create))
		}
		had := order(q, dir)
		q.Fact("had a turn", had)
		assert.Check(q, cmp.Contains(had, point.field))
		if failsAt != "delete" {
			assert.Check(q, !slices.Contains(had, point.field+".second"), "the hook after the failed one has a turn: %q", had)
		}
		assert.Check(q, slices.Contains(had, "program") == (failsAt == "delete"), "the program's turn: %q", had)
		stopped := slices.Contains(had, "hooks.poststop[]")
		proc.WaitFor(q, c.NoLeftovers(before))
		assert.Check(q, !file.Exists(c.StateDir()), "the state directory is left")
		q.Fact("left", c.Leftovers(before))

		switch point.field {
		case "hooks.prestart[]":
			q.Clause("Lifecycle: If any prestart hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.", lab.MetIf(
				failsAt != "" && stopped, "the poststop hooks do not run"))

		case "hooks.createRuntime[]":
			q.Clause("Lifecycle: If any createRuntime hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.", lab.MetIf(
				failsAt != "" && stopped, "the poststop hooks do not run"))

		case "hooks.createContainer[]":
			q.Clause("Lifecycle: If any createContainer hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.", lab.MetIf(
				failsAt != "" && stopped, "the poststop hooks do not run"))

		case "hooks.startContainer[]":
			q.Clause(
				"Lifecycle: If any startContainer hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.", lab.DeviatesUnless(failsAt != "" && stopped,

					"start has returned 0 by then: the container is stopped and poststop hooks run, but no error is told"))

		case "hooks.poststart[]":
			q.Clause("Lifecycle: If any poststart hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.", lab.MetIf(
				failsAt != "" && stopped, "the poststop hooks do not run"))

		case "hooks.poststop[]":
			went := slices.Contains(had, "hooks.poststop[].second")
			q.Clause(
				"Lifecycle: If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue as if the hook had succeeded.", lab.DeviatesUnless(went,

					"delete fails, and the next poststop hook has no turn; the container is gone all the same"))

			q.Clause(
				"Warnings: Unless otherwise stated, logging a warning does not change the flow of the operation; it MUST continue as if the warning had not been logged.", lab.DeviatesUnless(went,

					"what should be a warning, of a failed poststop hook, ends delete"))

		}
	}

	q.Control("the hook exits 0: the program runs")
	c, dir := hooked(q, b, "succeeds", func(h *specs.Hooks, dir string) {
		for _, p := range points {
			*p.hooks(h) = []specs.Hook{witness(p, dir, p.field, "0")}
		}
	})
	c.KillAndDelete(c.CreateAndStart())
	assert.Check(q, cmp.Contains(order(q, dir), "program"))
	q.Fact("had a turn", order(q, dir))

	q.Answer("No container: what was built is torn down, the program does not run, poststop hooks do.")
}

// A slow one is waited for, unless it has a timeout, and then it is killed and has failed. A missing one has failed.
//
// Create is as slow as its hooks. A timeout is a whole number of seconds; the hook's process is killed when it is over.
// A startContainer hook cannot make start wait: runc's start returns when the FIFO is open, with the hook still running
// in the stand-in's place.
//
// Hint: who waits for whom? Which process is there while a hook is slow?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks
// Kernel: https://man7.org/linux/man-pages/man2/waitpid.2.html
func TestLifecycle_WhatHappensWhenAHookIsSlowOrMissing(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when a hook is slow, or missing?")
	b := bundle.Busybox(q, "sleep", "300")
	// The hook says that it has begun, then waits for somebody to open its gate.
	waits := func(dir string, timeout *int) specs.Hook {
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo hook >> $1/order; read -r x < $1/gate", "sh", dir}, Timeout: timeout}
	}

	q.Step("create waits for a slow createRuntime hook, and the container is creating meanwhile")
	slow, dir := hooked(q, b, "slow", func(h *specs.Hooks, dir string) { h.CreateRuntime = []specs.Hook{waits(dir, nil)} })
	mkfifo(q, filepath.Join(dir, "gate"))
	create := q.StartBackground(slow.Argv("create")...)
	proc.WaitFor(q, turns(dir, 1))
	assert.Check(q, !create.Ended(), "create has ended before its hook")
	assert.Check(q, !file.Exists(filepath.Join(slow.StateDir(), "state.json")), "there is a state.json while the container is creating")
	q.Fact("while the hook waits, create", "waits")
	openGate(q, filepath.Join(dir, "gate"))
	assert.Check(q, cmp.Equal(create.ExitCode(), 0))
	assert.Check(q, cmp.Equal(slow.State().Status, specs.StateCreated))
	q.Fact("after it has ended", slow.State().Status)
	p := proc.Snapshot(q, proc.PID(slow.State().Pid))
	slow.Must("delete", "--force")
	proc.WaitFor(q, proc.Dead(p.Identity))

	q.Step("hooks.*.timeout: one second, and the hook is killed; create fails, and nothing is left")
	second := 1
	late, dir := hooked(q, b, "late", func(h *specs.Hooks, dir string) { h.CreateRuntime = []specs.Hook{waits(dir, &second)} })
	mkfifo(q, filepath.Join(dir, "gate"))
	before := q.TakeInventory()
	begin := time.Now()
	r := late.Try("create")
	took := time.Since(begin)
	assert.Check(q, r.Code != 0, "create succeeds:\n%s", r)
	assert.Check(q, cmp.Regexp("(?i)time", r.Stderr))
	assert.Check(q, took >= time.Second, "create has failed after %v, before the timeout", took)
	assert.Check(q, cmp.DeepEqual(order(q, dir), []string{"hook"}), "it began")
	proc.WaitFor(q, late.NoLeftovers(before))
	q.Fact("create says", runc.LastLogMessage(r))
	q.Fact("after", lab.Elapsed(took))

	q.Step("a slow startContainer hook: the program does not run before it has ended")
	inside, dir := hooked(q, b, "inside", func(h *specs.Hooks, _ string) { h.StartContainer = []specs.Hook{waits("/seen", nil)} })
	mkfifo(q, filepath.Join(dir, "gate"))
	inside.Create()
	pid := inside.State().Pid
	start := q.StartBackground(inside.Argv("start")...)
	proc.WaitFor(q, turns(dir, 1))
	stand := proc.Snapshot(q, proc.PID(pid))
	assert.Check(q, stand.Comm != "sleep", "the program runs while its startContainer hook does")
	assert.Check(q, cmp.DeepEqual(order(q, dir), []string{"hook"}))
	q.Fact("meanwhile, pid 1 is", stand.Comm)
	q.Fact("and runc says", lab.Chance(inside.State().Status))
	openGate(q, filepath.Join(dir, "gate"))
	assert.Check(q, cmp.Equal(start.ExitCode(), 0))
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
	assert.Check(q, cmp.DeepEqual(order(q, dir), []string{"hook", "program"}))
	q.Fact("had a turn", order(q, dir))
	inside.KillAndDelete(proc.Snapshot(q, proc.PID(pid)))

	q.Step("a missing hook has failed, at whatever point")
	for _, point := range points {
		name := "missing-" + strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(point.field, "hooks."), "[]"))
		c, dir := hooked(q, b, name, func(h *specs.Hooks, _ string) { *point.hooks(h) = []specs.Hook{{Path: "/no/such/hook"}} })
		before := q.TakeInventory()
		r := c.Try("create")
		operation := "create"
		if r.Code == 0 {
			p := proc.Snapshot(q, proc.PID(c.State().Pid))
			r, operation = c.Try("start"), "start"
			if point.field == "hooks.startContainer[]" {
				proc.WaitFor(q, proc.Dead(p.Identity))
				c.Must("delete")
			} else {
				proc.WaitFor(q, proc.Runs(p.PID, "sleep"))
				c.Kill("KILL")
				proc.WaitFor(q, proc.Dead(p.Identity))
				r, operation = c.Try("delete"), "delete"
			}
		}
		ran := slices.Contains(order(q, dir), "program")
		assert.Check(q, ran == (operation == "delete"), "%s is missing, and the program has run: %v", point.field, ran)
		proc.WaitFor(q, c.NoLeftovers(before))
		q.Fact(point.field+" fails at", operation)
	}

	q.Control("a hook that is there and quick: create succeeds")
	quick, _ := hooked(q, b, "quick", func(h *specs.Hooks, _ string) {
		h.CreateRuntime = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 0"}, Timeout: &second}}
	})
	quick.Create()
	q.Fact("with a quick one", quick.State().Status)

	q.Answer("A slow hook is waited for, up to its timeout; one that is late or missing has failed.")
}

func mkfifo(q *lab.Q, path string) {
	q.Helper()
	q.Must("mkfifo", path)
}

// openGate lets go whoever waits to read from the FIFO.
func openGate(q *lab.Q, path string) {
	q.Helper()
	q.LogCommand("echo > %s", path)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	assert.NilError(q, err)
	_, err = f.WriteString("\n")
	assert.NilError(q, err)
	assert.NilError(q, f.Close())
}
