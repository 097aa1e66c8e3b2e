//go:build linux && vmlab

package cdblab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/typeurl/v2"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
)

// The metrics agree with the cgroup, because they are its files, read by the shim at that moment: nothing is counted or kept on the way.
//
// Which files depends on the cgroup version, and so do the metrics' type and their names: cpuacct.usage in nanoseconds
// on v1, cpu.usage_usec on v2. They are about the cgroup, so they include all processes of the container, and what the
// runtime's own processes used there at the start. A client that wants a rate has to ask twice. A limit that is not set
// has a number as well. On v2 it is the largest 64-bit number, for pids and for memory. On v1 it is 0 for pids, and for memory the largest
// number of whole pages, in bytes.
//
// Hint: the names in `ctr tasks metrics` are, on v1, mostly file names (pids.limit is pids.max).
// Spec: https://github.com/containerd/cgroups
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
func TestEvents_DoTheMetricsAgreeWithTheCgroup(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Do the metrics agree with the cgroup?")
	defer q.Recover()
	d := ctrd.Shared(q)
	ref := d.PullImage()
	idle, busy := q.ID("cdb-idle"), q.ID("cdb-busy")
	const limit = 64 << 20 // bytes
	d.CreateContainer(ref, idle, "sleep", "3600")
	d.CreateContainerWith([]string{"--memory-limit", strconv.Itoa(limit)}, ref, busy, "sh", "-c", worksOnDemand)
	d.StartTask(idle)
	d.StartTask(busy)
	pid := d.TaskPID(busy)
	proc.WaitFor(q, proc.Runs(d.TaskPID(idle), "sleep"))
	proc.WaitFor(q, proc.IsInState(d.TaskPID(idle), "S"))
	proc.WaitFor(q, proc.Runs(pid, "sh"))
	proc.WaitFor(q, file.DirHas(fmt.Sprintf("/proc/%d/root", pid), "told"))
	busyGroup, idleGroup := cgroup.Of(q, "/"+d.Namespace+"/"+busy), cgroup.Of(q, "/"+d.Namespace+"/"+idle)
	if !busyGroup.Has("memory") {
		q.Skipf("this kernel has no memory controller for %s: run the question with CGROUP=v2", cgroup.Version(q))
	}
	proc.WaitFor(q, busyGroup.HasProcesses(1))

	q.Step("ask for the metrics of an idle task: ctr's table, ctr's JSON and the Go client report the numbers in the files")
	atRest := assertAsInFiles(q, "table", idleGroup, func() metricValues {
		return parseMetricsTable(q, d.Ctr("tasks", "metrics", idle).Stdout)
	})
	assertAsInFiles(q, "JSON", idleGroup, func() metricValues {
		return parseMetricsJSON(q, []byte(d.Ctr("tasks", "metrics", "--format", "json", idle).Stdout))
	})
	assertAsInFiles(q, "client", idleGroup, func() metricValues { return valuesFromClient(q, d, idle) })
	assert.Check(q, cmp.Equal(atRest["pids"], uint64(len(idleGroup.Procs()))), "pids, and the lines of cgroup.procs")
	q.Fact("metrics are of type", metricsType(q, d, idle))
	agreed := slices.Sorted(maps.Keys(atRest))
	assert.Check(q, cmp.DeepEqual(agreed, []string{"cpu", "memory", "memory limit", "pids", "pids limit"}), "metrics that were compared")
	q.Fact("agreed on", agreed)
	q.Fact("no limit of pids reads", atRest["pids limit"])
	q.Fact("no limit of memory reads", atRest["memory limit"])

	q.Step("compare the memory limits: the metrics show that of the limited task, and the unlimited task's is larger")
	whileWaiting := valuesFromClient(q, d, busy)
	assert.Check(q, cmp.Equal(whileWaiting["memory limit"], uint64(limit)))
	assert.Check(q, cmp.Equal(whileWaiting["memory limit"], valuesFromFiles(busyGroup)["memory limit"]))
	assert.Check(q, atRest["memory limit"] > limit)
	q.Fact("memory limit", whileWaiting["memory limit"])

	q.Step("let the limited task work: processes, memory and processor time grow, as the files do")
	used := proc.UsedTicks(q, pid)
	q.SendLine(proc.Snapshot(q, pid), "work")
	proc.WaitFor(q, busyGroup.HasProcesses(3))
	const ticks = 20
	proc.WaitFor(q, proc.HasUsed(pid, used+ticks))
	before := valuesFromFiles(busyGroup)
	whileWorking := valuesFromClient(q, d, busy)
	after := valuesFromFiles(busyGroup)
	assert.Check(q, cmp.Equal(whileWorking["pids"], uint64(3)))
	assert.Check(q, cmp.Equal(whileWaiting["pids"], uint64(1)))
	// Not exactly 8 MiB: the memory that the kernel charges for its own needs comes and goes.
	assert.Check(q, whileWorking["memory"] >= whileWaiting["memory"]+7<<20,
		"memory: %d bytes, then %d", whileWaiting["memory"], whileWorking["memory"])
	assert.Check(q, whileWorking["memory"] <= limit, "memory: %d bytes", whileWorking["memory"])
	// The kernel charges whole ticks of 10 ms, so the time that the process really ran may be shorter or longer.
	assert.Check(q, whileWorking["cpu"]-whileWaiting["cpu"] >= ticks*1e7/2,
		"processor time: %d ns, then %d", whileWaiting["cpu"], whileWorking["cpu"])
	between := before["cpu"] <= whileWorking["cpu"] && whileWorking["cpu"] <= after["cpu"]
	assert.Check(q, between, "processor time %d is not between the values of the file before and after: %d, %d",
		whileWorking["cpu"], before["cpu"], after["cpu"])
	q.Fact("pids", []uint64{whileWaiting["pids"], whileWorking["pids"]})
	q.Fact("memory grows by", proc.Bytes(whileWorking["memory"]-whileWaiting["memory"]))
	q.Fact("processor time is between what the file has before and after", between)

	q.Control("ask for the idle task's metrics again: meanwhile they have not grown")
	// Not to the nanosecond and the byte: what the kernel does on its own account, such as an interrupt, may be charged to it.
	stillAtRest := valuesFromClient(q, d, idle)
	assert.Check(q, stillAtRest["cpu"]-atRest["cpu"] < (whileWorking["cpu"]-whileWaiting["cpu"])/10,
		"processor time, in ns: %d, then %d", atRest["cpu"], stillAtRest["cpu"])
	assert.Check(q, cmp.Equal(stillAtRest["pids"], atRest["pids"]))
	assert.Check(q, stillAtRest["memory"] < atRest["memory"]+1<<20, "memory: %d bytes, then %d", atRest["memory"], stillAtRest["memory"])
	q.Fact("idle task: pids", stillAtRest["pids"])
	q.Fact("idle task: processor time grows by", lab.Elapsed(stillAtRest["cpu"]-atRest["cpu"]))

	q.Control("pause the task and resume it: its processor time stays the same while the lab uses some, and then grows again")
	d.PauseTask(busy)
	assert.Check(q, busyGroup.Frozen())
	whilePaused := valuesFromClient(q, d, busy)
	const ownTicks = 5
	proc.WaitFor(q, proc.HasUsed(proc.PID(os.Getpid()), proc.UsedTicks(q, proc.PID(os.Getpid()))+ownTicks))
	const hardly = ownTicks * 1e7 / 10 // ns
	byClient, byFile := valuesFromClient(q, d, busy)["cpu"], valuesFromFiles(busyGroup)["cpu"]
	assert.Check(q, byClient-whilePaused["cpu"] < hardly, "processor time while paused, in ns: %d, then %d", whilePaused["cpu"], byClient)
	assert.Check(q, byFile-whilePaused["cpu"] < hardly, "processor time in the file, in ns: %d, then %d", whilePaused["cpu"], byFile)
	d.Ctr("tasks", "resume", busy)
	proc.WaitFor(q, proc.HasUsed(pid, proc.UsedTicks(q, pid)+1))
	assert.Check(q, valuesFromClient(q, d, busy)["cpu"] > whilePaused["cpu"], "processor time after resume")
	q.Fact("paused task: processor time grows by", lab.Elapsed(byClient-whilePaused["cpu"]))

	q.Answer("Yes, the metrics are the numbers in the cgroup's files, which the shim reads when a client asks. Names, units and the " +
		"value for no limit depend on the cgroup version.")
}

// worksOnDemand is a shell script that waits for a line. Then it fills 8 MiB, starts two more processes, and loops without end.
const worksOnDemand = `mkfifo /told; exec 3<>/told; read -r work <&3
dd if=/dev/zero of=/dev/shm/filled bs=1M count=8; sleep 3601 & sleep 3602 & while :; do :; done`

// metricValues are the metrics "pids", "pids limit", "memory" and "memory limit" in bytes, and "cpu" in nanoseconds.
// The names and units are the same for both cgroup versions.
type metricValues map[string]uint64

// valuesFromFiles reads the files of a cgroup. For "max" it returns what the metrics have: the largest number on v2,
// and 0 on v1.
func valuesFromFiles(g cgroup.Group) metricValues {
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
	values := metricValues{"pids": number("pids", "pids.current"), "pids limit": number("pids", "pids.max"), "cpu": g.CPUTime()}
	if g.V2 {
		values["memory"], values["memory limit"] = number("memory", "memory.current"), number("memory", "memory.max")
	} else {
		values["memory"], values["memory limit"] = number("memory", "memory.usage_in_bytes"), number("memory", "memory.limit_in_bytes")
	}
	return values
}

// parseMetricsTable parses the table of `ctr tasks metrics`, which has a name and a number on each line.
func parseMetricsTable(q *lab.Q, table string) metricValues {
	q.Helper()
	names := map[string]string{
		"pids.current": "pids", "pids.limit": "pids limit",
		"memory.usage_in_bytes": "memory", "memory.limit_in_bytes": "memory limit", "cpuacct.usage": "cpu",
		"memory.usage": "memory", "memory.usage_limit": "memory limit", "cpu.usage_usec": "cpu",
	}
	values := metricValues{}
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) != 2 || names[fields[0]] == "" {
			continue
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		assert.NilError(q, err, line)
		if fields[0] == "cpu.usage_usec" {
			n *= 1000
		}
		values[names[fields[0]]] = n
	}
	return values
}

// parseMetricsJSON parses metrics in JSON. The place of the processor time shows which cgroup version they are of.
func parseMetricsJSON(q *lab.Q, text []byte) metricValues {
	q.Helper()
	var v1 stats1.Metrics
	var v2 stats2.Metrics
	err1, err2 := json.Unmarshal(text, &v1), json.Unmarshal(text, &v2)
	if err1 == nil && v1.CPU != nil && v1.CPU.Usage != nil {
		return metricValues{
			"pids": v1.Pids.Current, "pids limit": v1.Pids.Limit, "cpu": v1.CPU.Usage.Total,
			"memory": v1.Memory.Usage.Usage, "memory limit": v1.Memory.Usage.Limit,
		}
	}
	assert.NilError(q, err2, "neither metrics of cgroup v1 (%v) nor of v2: %s", err1, text)
	return metricValues{
		"pids": v2.Pids.Current, "pids limit": v2.Pids.Limit, "cpu": 1000 * v2.CPU.UsageUsec,
		"memory": v2.Memory.Usage, "memory limit": v2.Memory.UsageLimit,
	}
}

// valuesFromClient returns a task's metrics from the Go client.
func valuesFromClient(q *lab.Q, d *ctrd.Daemon, id string) metricValues {
	q.Helper()
	text, err := json.Marshal(metrics(q, d, id))
	assert.NilError(q, err)
	return parseMetricsJSON(q, text)
}

// metrics returns what the Go client gets as a task's metrics: *stats1.Metrics or *stats2.Metrics.
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

// metricsType returns the cgroup version of a task's metrics. It asserts that the controllers' hierarchy has that
// version.
func metricsType(q *lab.Q, d *ctrd.Daemon, id string) string {
	q.Helper()
	version := "neither"
	switch metrics(q, d, id).(type) {
	case *stats1.Metrics:
		version = "v1"
	case *stats2.Metrics:
		version = "v2"
	}
	assert.Check(q, cmp.Equal(version, cgroup.Version(q)), "cgroup version of the metrics, and of the hierarchies with the controllers")
	return version
}

// assertAsInFiles asserts that read returns the values in the cgroup's files, and returns them. The files of an idle
// cgroup may change, too, by what the kernel does on its own account; then everything is read again.
func assertAsInFiles(q *lab.Q, source string, g cgroup.Group, read func() metricValues) metricValues {
	q.Helper()
	var before, got, after metricValues
	unchanged := retry.Until(proc.Patience, func() bool {
		before, got, after = valuesFromFiles(g), read(), valuesFromFiles(g)
		return maps.Equal(before, after)
	})
	assert.Assert(q, unchanged, "the values of an idle cgroup changed each time that they were read, for %v; the last time from %v to %v",
		proc.Patience, before, after)
	assert.Check(q, cmp.DeepEqual(got, before), "%s, and the files of the cgroup", source)
	return got
}
