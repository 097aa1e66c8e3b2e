//go:build linux && vmlab

package cdblab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/typeurl/v2"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// They are the cgroup's files, read by the shim at that moment: nothing is counted, kept or added up on the way.
//
// Which files depends on the cgroup version, and so do the metrics' type and their names: cpuacct.usage in nanoseconds
// on v1, cpu.usage_usec on v2. They are about the cgroup, so all processes of the container are in them, and whatever
// the runtime's own did there at the start. Who wants a rate has to ask twice. A limit that is not set is 0 for pids on
// v1, the largest number on v2, and a number of pages on v1's memory: no word says "none".
//
// Hint: the names in `ctr tasks metrics` are, on v1, file names.
// Spec: https://github.com/containerd/cgroups
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
func TestEvents_DoTheMetricsAgreeWithTheCgroup(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Do the metrics agree with the cgroup?")
	d := ctrd.Shared(q)
	ref := d.PullImage()
	idle, busy := q.ID("cdb-idle"), q.ID("cdb-busy")
	const limit = 64 << 20 // bytes
	d.CreateContainer(ref, idle, "sleep", "300")
	// It waits to be told; then it fills 8 MiB, leaves two processes more, and counts without end.
	d.CreateContainerWith([]string{"--memory-limit", strconv.Itoa(limit)}, ref, busy, "sh", "-c",
		`mkfifo /told; exec 3<>/told; read -r work <&3
dd if=/dev/zero of=/dev/shm/filled bs=1M count=8; sleep 301 & sleep 302 & while :; do :; done`)
	d.StartTask(idle)
	d.StartTask(busy)
	pid := d.TaskPID(busy)
	proc.WaitFor(q, proc.Runs(d.TaskPID(idle), "sleep"))
	proc.WaitFor(q, proc.IsInState(d.TaskPID(idle), "S"))
	proc.WaitFor(q, proc.Runs(pid, "sh"))
	proc.WaitFor(q, file.DirHas(fmt.Sprintf("/proc/%d/root", pid), "told"))
	g, gIdle := cgroup.Of(q, "/"+d.Namespace+"/"+busy), cgroup.Of(q, "/"+d.Namespace+"/"+idle)
	if !g.Has("memory") {
		q.Skipf("this kernel has no memory controller for %s: look with CGROUP=v2", cgroup.Version(q))
	}
	proc.WaitFor(q, hasProcesses(g, 1))

	q.Step("an idle task: ctr's table, ctr's JSON and the Go client have the numbers that the files have")
	rest := agrees(q, "table", gIdle, func() figures { return tabled(q, d.Ctr("tasks", "metrics", idle).Stdout) })
	agrees(q, "JSON", gIdle, func() figures {
		return figuresOf(q, []byte(d.Ctr("tasks", "metrics", "--format", "json", idle).Stdout))
	})
	agrees(q, "client", gIdle, func() figures { return measured(q, d, idle) })
	assert.Check(q, cmp.Equal(rest["pids"], uint64(len(gIdle.Procs()))), "pids, and the lines of cgroup.procs")
	q.Fact("metrics are of type", metricsType(q, d, idle))
	q.Fact("agreed on", strings.Join(figureNames, " "))
	q.Fact("no limit of pids reads", rest["pids limit"])
	q.Fact("no limit of memory reads", rest["memory limit"])

	q.Step("a limit of memory appears; an unlimited one's does not")
	waiting := measured(q, d, busy)
	assert.Check(q, cmp.Equal(waiting["memory limit"], uint64(limit)))
	assert.Check(q, cmp.Equal(waiting["memory limit"], fromFiles(g)["memory limit"]))
	assert.Check(q, rest["memory limit"] > limit)
	q.Fact("memory limit", waiting["memory limit"])

	q.Step("the task works: processes, memory and processor time grow, as the files do")
	used := proc.UsedTicks(q, pid)
	q.SendLine(proc.Snapshot(q, pid), "work")
	proc.WaitFor(q, hasProcesses(g, 3))
	const ticks = 20
	proc.WaitFor(q, proc.HasUsed(pid, used+ticks))
	before := fromFiles(g)
	working := measured(q, d, busy)
	after := fromFiles(g)
	assert.Check(q, cmp.Equal(working["pids"], uint64(3)))
	assert.Check(q, cmp.Equal(waiting["pids"], uint64(1)))
	// Not exactly 8: what the kernel charges for its own needs comes and goes.
	assert.Check(q, working["memory"] >= waiting["memory"]+7<<20, "memory: %d bytes, then %d", waiting["memory"], working["memory"])
	assert.Check(q, working["memory"] <= limit, "memory: %d bytes", working["memory"])
	// A tick that is charged to a process is one of 10 ms, give or take what it really ran.
	assert.Check(q, working["cpu"]-waiting["cpu"] >= ticks*1e7/2, "processor time: %d ns, then %d", waiting["cpu"], working["cpu"])
	assert.Check(q, before["cpu"] <= working["cpu"] && working["cpu"] <= after["cpu"],
		"processor time %d is not between what the file has before and after: %d, %d", working["cpu"], before["cpu"], after["cpu"])
	q.Fact("pids", []uint64{waiting["pids"], working["pids"]})
	q.Fact("memory grows by", "some 8 MiB")
	q.Fact("processor time", "between what the file has before and after")

	q.Control("the idle one's do not grow meanwhile")
	still := measured(q, d, idle)
	assert.Check(q, cmp.Equal(still["cpu"], rest["cpu"]), "processor time, in ns")
	assert.Check(q, cmp.Equal(still["pids"], rest["pids"]))
	assert.Check(q, still["memory"] <= rest["memory"], "memory: %d bytes, then %d", rest["memory"], still["memory"])
	q.Fact("the idle one's", "as before")

	q.Control("paused, its processor time stays, while the lab uses some; resumed, it goes on")
	d.PauseTask(busy)
	assert.Check(q, g.Frozen())
	frozen := measured(q, d, busy)
	proc.WaitFor(q, proc.HasUsed(proc.PID(os.Getpid()), proc.UsedTicks(q, proc.PID(os.Getpid()))+5))
	assert.Check(q, cmp.Equal(measured(q, d, busy)["cpu"], frozen["cpu"]), "processor time of the paused one, in ns")
	assert.Check(q, cmp.Equal(fromFiles(g)["cpu"], frozen["cpu"]), "processor time in the file, in ns")
	d.Ctr("tasks", "resume", busy)
	proc.WaitFor(q, proc.HasUsed(pid, proc.UsedTicks(q, pid)+1))
	assert.Check(q, measured(q, d, busy)["cpu"] > frozen["cpu"], "processor time after resume")
	q.Fact("processor time while paused", "stays")

	q.Answer("Yes: they are its files, read when one asks. Names, units and what stands for no limit are the cgroup version's.")
}

// figures are metrics by one name, whatever they are called in a cgroup version: processor time in nanoseconds, memory
// in bytes.
type figures map[string]uint64

var figureNames = []string{"pids", "pids limit", "memory", "memory limit", "cpu"}

// fromFiles reads the cgroup. As the metrics do, it takes "max" for the largest number, and for 0 on v1.
func fromFiles(g cgroup.Group) figures {
	number := func(controller, path string) uint64 {
		text := g.Read(controller, path)
		if text == "max" && !g.V2 {
			return 0
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return ^uint64(0)
		}
		return n
	}
	f := figures{"pids": number("pids", "pids.current"), "pids limit": number("pids", "pids.max"), "cpu": g.CPUTime()}
	if g.V2 {
		f["memory"], f["memory limit"] = number("memory", "memory.current"), number("memory", "memory.max")
	} else {
		f["memory"], f["memory limit"] = number("memory", "memory.usage_in_bytes"), number("memory", "memory.limit_in_bytes")
	}
	return f
}

// tabled reads ctr's table: a name and a number on each line.
func tabled(q *lab.Q, table string) figures {
	q.Helper()
	names := map[string]string{
		"pids.current": "pids", "pids.limit": "pids limit",
		"memory.usage_in_bytes": "memory", "memory.limit_in_bytes": "memory limit", "cpuacct.usage": "cpu",
		"memory.usage": "memory", "memory.usage_limit": "memory limit", "cpu.usage_usec": "cpu",
	}
	f := figures{}
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) != 2 || names[words[0]] == "" {
			continue
		}
		n, err := strconv.ParseUint(words[1], 10, 64)
		assert.NilError(q, err, line)
		if words[0] == "cpu.usage_usec" {
			n *= 1000
		}
		f[names[words[0]]] = n
	}
	return f
}

// figuresOf reads metrics as JSON, in which the two versions can be told apart by where they have processor time.
func figuresOf(q *lab.Q, text []byte) figures {
	q.Helper()
	var one stats1.Metrics
	var two stats2.Metrics
	err1, err2 := json.Unmarshal(text, &one), json.Unmarshal(text, &two)
	if err1 == nil && one.CPU != nil && one.CPU.Usage != nil {
		return figures{
			"pids": one.Pids.Current, "pids limit": one.Pids.Limit, "cpu": one.CPU.Usage.Total,
			"memory": one.Memory.Usage.Usage, "memory limit": one.Memory.Usage.Limit,
		}
	}
	assert.NilError(q, err2, "neither v1's (%v) nor v2's metrics: %s", err1, text)
	return figures{
		"pids": two.Pids.Current, "pids limit": two.Pids.Limit, "cpu": 1000 * two.CPU.UsageUsec,
		"memory": two.Memory.Usage, "memory limit": two.Memory.UsageLimit,
	}
}

// measured asks for a task's metrics through the Go client.
func measured(q *lab.Q, d *ctrd.Daemon, id string) figures {
	q.Helper()
	text, err := json.Marshal(metrics(q, d, id))
	assert.NilError(q, err)
	return figuresOf(q, text)
}

func metrics(q *lab.Q, d *ctrd.Daemon, id string) any {
	q.Helper()
	ctx := context.Background()
	m, err := d.Task(id).Metrics(ctx)
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(m.ID, id))
	value, err := typeurl.UnmarshalAny(m.Data)
	assert.NilError(q, err)
	return value
}

// metricsType is the version of the metrics, which must be that of the controllers' hierarchy.
func metricsType(q *lab.Q, d *ctrd.Daemon, id string) string {
	q.Helper()
	version := "neither"
	switch metrics(q, d, id).(type) {
	case *stats1.Metrics:
		version = "v1"
	case *stats2.Metrics:
		version = "v2"
	}
	assert.Check(q, cmp.Equal(version, cgroup.Version(q)), "the type of the metrics")
	return version
}

// agrees asserts that who is asked has the numbers of the files, and returns them. Even an idle cgroup's may change by
// what the kernel does on its own account; then it is asked again.
func agrees(q *lab.Q, who string, g cgroup.Group, ask func() figures) figures {
	q.Helper()
	for range 20 {
		before := fromFiles(g)
		got := ask()
		if maps.Equal(before, fromFiles(g)) {
			assert.Check(q, cmp.DeepEqual(got, before), "%s, and the files of the cgroup", who)
			return got
		}
	}
	q.Fatalf("the figures of an idle cgroup do not stay: %v", fromFiles(g))
	return nil
}

// hasProcesses is a poll check: there are so many processes in the cgroup.
func hasProcesses(g cgroup.Group, n int) poll.Check {
	return func(poll.LogT) poll.Result {
		got, err := g.Try("pids", "pids.current")
		if err != nil {
			return poll.Error(err)
		}
		if got != strconv.Itoa(n) {
			return poll.Continue("pids.current of %s is %s, not %d", g.Path, got, n)
		}
		return poll.Success()
	}
}
