//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
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

// Each limit goes into a file of the container's cgroup, which belongs to the controller of the resource.
//
// config.json uses the words of cgroup v1, from which most of the fields have their names. On v2 the runtime translates:
// memory and swap together become swap alone, shares become a weight, quota and period become one file. If the version of cgroups
// has no file for a field, the runtime refuses the bundle or ignores the field. The field unified is for v2 alone.
//
// Hint: the cgroup's directory in each hierarchy; what do its files read in a container without limits?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#controllers, https://docs.kernel.org/admin-guide/cgroup-v1/index.html
func TestBundle_WhereDoesEachLimitGo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does each limit go?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	disk := wholeDisk()
	limits := cgroupLimits(disk)

	q.Control("a container without limits: the files are there, with another content")
	unlimited := runc.Variant(q, b, "unlimited")
	unlimited.Create()
	unlimitedGroup := cgroup.Of(q, unlimited.Bundle.Spec.Linux.CgroupsPath)
	rows, without := limitsWithFiles(q, limits, unlimitedGroup, disk)
	assert.Assert(q, len(rows) >= 8, "only %d limits can be looked at here", len(rows))

	q.Step("create a container with limits: before it is started, each of them is in its file")
	var sets []func(*specs.LinuxResources)
	for _, r := range rows {
		sets = append(sets, r.set)
	}
	limited := runc.Variant(q, b, "limited", bundle.Resources(sets...))
	limited.Create()
	limitedGroup := cgroup.Of(q, limited.Bundle.Spec.Linux.CgroupsPath)
	var wrong []string   // the files that do not have what config.json says
	var ignored []string // the fields that create accepts, and that no file has
	for _, r := range rows {
		field := r.covers[0]
		got := limitedGroup.Read(r.controller, r.file)
		// runc has burst since 1.2.0. An older one ignores it, and the file has what it has without the field.
		if field == "linux.resources.cpu.burst" && got == r.unlimited && !runc.Knows(q, "cfs_burst_us") {
			q.Fact(field, "ignored by this runtime: "+r.file+" = "+got)
			ignored = append(ignored, field)
			continue
		}
		if !r.isIn(got) {
			q.Errorf("%s: %s reads %q and not %q", field, r.file, got, r.content)
			wrong = append(wrong, r.file)
		}
		// Most machines have one memory node, and some have one CPU. Where there is one, there is nothing to choose.
		if field != "linux.resources.cpu.mems" && (field != "linux.resources.cpu.cpus" || runtime.NumCPU() > 1) {
			assert.Check(q, !r.isIn(r.unlimited), "control: %s reads %q without the limit, too", r.file, r.unlimited)
		}
		q.Covers(r.covers...)
		content := strings.Join(strings.Fields(got), " ")
		if strings.Contains(field, "throttle") {
			content = strings.Replace(content, disk, "<disk>", 1) // another machine's has another number
		}
		q.Fact(field, r.file+" = "+content)
	}

	q.Step("linux.resources.cpu.idle: the cgroup gets little processor time while programs of other cgroups want it")
	idle := runc.Variant(q, b, "idle", bundle.Resources(func(r *specs.LinuxResources) { bundle.CPU(r).Idle = new(int64(1)) }))
	idle.Create()
	got, err := cgroup.Of(q, idle.Bundle.Spec.Linux.CgroupsPath).Try("cpu", "cpu.idle")
	switch {
	case err != nil:
		q.Fact("linux.resources.cpu.idle", "no file cpu.idle on this kernel")
	case got == "0" && !runc.Knows(q, "cpu.idle"): // runc has it since 1.2.0
		q.Fact("linux.resources.cpu.idle", "ignored by this runtime: cpu.idle = "+got)
		ignored = append(ignored, "linux.resources.cpu.idle")
	default:
		assert.Check(q, cmp.Equal(got, "1"), "linux.resources.cpu.idle: content of cpu.idle")
		assert.Check(q, cmp.Equal(unlimitedGroup.Read("cpu", "cpu.idle"), "0"), "content of cpu.idle without linux.resources.cpu.idle")
		q.Covers("linux.resources.cpu.idle")
		q.Fact("linux.resources.cpu.idle", "cpu.idle = "+got)
	}

	q.Step("a field for which this version of cgroups has no file: create fails, or no file of the cgroup changes")
	settings := unlimitedGroup.Settings()
	assert.Check(q, len(changedFiles(settings, limitedGroup.Settings())) >= len(rows)/2,
		"control: the container with limits has the files of the one without: %q", settings)
	for _, l := range without {
		if !l.isRefused(q, b, settings) {
			ignored = append(ignored, l.covers[0])
		}
	}

	q.Step("linux.cgroupsPath names the cgroup that has all of these files")
	init := proc.Snapshot(q, proc.PID(limited.State().Pid))
	check.OnlyProcessInCgroup(q, init.Identity, limited.Bundle.Spec.Linux.CgroupsPath)
	q.Covers("linux.cgroupsPath")
	hierarchy := map[bool]string{true: "", false: "pids"}[limitedGroup.V2]
	q.Fact("linux.cgroupsPath", init.Cgroups[hierarchy])
	q.Clause("Create: All of the properties configured in config.json except for process MUST be applied.",
		lab.DeviatesUnless(len(wrong)+len(ignored) == 0,
			"create accepts limits that it cannot apply, such as memory.swappiness on cgroup v2, and they have no effect"))

	q.Answer("Each limit goes into a file of the container's cgroup. On v2 most of these files have another name, and some have another " +
		"number. Some fields have a file on one version of cgroups alone.")
}

// isRefused creates a container with a limit for which this version of cgroups has no file, and reports whether the runtime refuses it. If
// the runtime does not, no file of the cgroup may differ from the settings, which are those of a container without limits.
func (l cgroupLimit) isRefused(q *lab.Q, b *bundle.Bundle, settings map[string]string) bool {
	q.Helper()
	field := l.covers[0]
	name := strings.TrimSuffix(field[strings.LastIndex(field, ".")+1:], "[]") // an id may not have brackets
	c := runc.Variant(q, b, "without-"+name, bundle.Resources(l.set))
	r := c.Try("create")
	if r.Code == 0 {
		// config-linux.md, "Unified", demands an error of this field by its name. For the others the general clause holds.
		assert.Check(q, field != "linux.resources.unified", "create succeeds on v1, where no file can have the limit of %s", field)
		changed := changedFiles(settings, cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Settings())
		assert.Check(q, cmp.Len(changed, 0), "files of the cgroup that %s changes: add them to cgroupLimits", field)
		q.Fact(field, fmt.Sprintf("created; files of the cgroup that differ from those without it: %d", len(changed)))
		return false
	}
	runc.AssertMessage(q, r.Stderr, "cgroup")
	q.Fact(field, "refused: "+runc.LastLogMessage(r))
	return true
}

// changedFiles returns the names of the files of a cgroup whose content differs from that in another cgroup, sorted, with the content.
func changedFiles(before, after map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if after[name] != before[name] {
			out = append(out, fmt.Sprintf("%s = %q", name, after[name]))
		}
	}
	return out
}

// wholeDisk returns the device number of a disk of this machine, such as "254:0". It returns "" if the machine has none.
func wholeDisk() string {
	all, _ := filepath.Glob("/sys/block/*/dev")
	for _, f := range all {
		// Loop and RAM devices come and go. A throttle on one that is idle disturbs no process, but may be refused.
		name := filepath.Base(filepath.Dir(f))
		if strings.HasPrefix(name, "vd") || strings.HasPrefix(name, "sd") || strings.HasPrefix(name, "nvme") {
			number, _ := file.TryRead(f)
			return number
		}
	}
	return ""
}

// cgroupLimit is a field of linux.resources: for each version of cgroups the file into which the value goes, and the content that
// the file has then. Where the file is "", the version has none. In the content, | separates alternatives.
type cgroupLimit struct {
	covers            lab.Fields
	set               func(r *specs.LinuxResources)
	controller        string
	v1File, v1Content string
	v2File, v2Content string
}

const blkio = "blkio" // v2 calls this controller io

// cgroupLimits returns one row for each field. The limits of block I/O are for the disk, which has a device number such as "254:0".
func cgroupLimits(disk string) []cgroupLimit {
	type resources = specs.LinuxResources
	const mib = 1 << 20
	throttle := func(rate uint64) []specs.LinuxThrottleDevice {
		var d specs.LinuxThrottleDevice
		if _, err := fmt.Sscanf(disk, "%d:%d", &d.Major, &d.Minor); err != nil {
			return nil
		}
		d.Rate = rate
		return []specs.LinuxThrottleDevice{d}
	}
	return []cgroupLimit{
		{lab.Fields{"linux.resources.pids.limit"},
			func(r *resources) { r.Pids = &specs.LinuxPids{Limit: new(int64(77))} },
			"pids", "pids.max", "77", "pids.max", "77"},
		{lab.Fields{"linux.resources.memory.limit"},
			func(r *resources) { bundle.Memory(r).Limit = new(int64(64 * mib)) },
			"memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864"},
		{lab.Fields{"linux.resources.memory.reservation"},
			func(r *resources) { bundle.Memory(r).Reservation = new(int64(32 * mib)) },
			"memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"},
		// The field is memory and swap together; v2's file is swap alone.
		{lab.Fields{"linux.resources.memory.swap"},
			func(r *resources) { bundle.Memory(r).Swap = new(int64(96 * mib)) },
			"memory", "memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432"},
		{lab.Fields{"linux.resources.memory.swappiness"},
			func(r *resources) { bundle.Memory(r).Swappiness = new(uint64(10)) },
			"memory", "memory.swappiness", "10", "", ""},
		{lab.Fields{"linux.resources.memory.disableOOMKiller"},
			func(r *resources) { bundle.Memory(r).DisableOOMKiller = new(true) },
			"memory", "memory.oom_control", "oom_kill_disable 1", "", ""},
		// The runtimes' conversion of shares to v2's weight has changed: 79 before, 174 now.
		{lab.Fields{"linux.resources.cpu.shares"},
			func(r *resources) { bundle.CPU(r).Shares = new(uint64(2048)) },
			"cpu", "cpu.shares", "2048", "cpu.weight", "79|174"},
		{lab.Fields{"linux.resources.cpu.quota"},
			func(r *resources) { bundle.CPU(r).Quota = new(int64(50000)) },
			"cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 200000"},
		{lab.Fields{"linux.resources.cpu.period"},
			func(r *resources) { bundle.CPU(r).Period = new(uint64(200000)) },
			"cpu", "cpu.cfs_period_us", "200000", "cpu.max", "50000 200000"},
		{lab.Fields{"linux.resources.cpu.burst"},
			func(r *resources) { bundle.CPU(r).Burst = new(uint64(10000)) },
			"cpu", "cpu.cfs_burst_us", "10000", "cpu.max.burst", "10000"},
		{lab.Fields{"linux.resources.cpu.cpus"},
			func(r *resources) { bundle.CPU(r).Cpus = "0" },
			"cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0"},
		{lab.Fields{"linux.resources.cpu.mems"},
			func(r *resources) { bundle.CPU(r).Mems = "0" },
			"cpuset", "cpuset.mems", "0", "cpuset.mems", "0"},
		{lab.Fields{"linux.resources.hugepageLimits[]"},
			func(r *resources) { r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 * mib}} },
			"hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304", "hugetlb.2MB.max", "4194304"},
		{lab.Fields{"linux.resources.network.classID"},
			func(r *resources) { bundle.Network(r).ClassID = new(uint32(0x100001)) },
			"net_cls", "net_cls.classid", "1048577", "", ""},
		{lab.Fields{"linux.resources.network.priorities[]"},
			func(r *resources) {
				bundle.Network(r).Priorities = []specs.LinuxInterfacePriority{{Name: "lo", Priority: 7}}
			},
			"net_prio", "net_prio.ifpriomap", "lo 7", "", ""},
		{lab.Fields{"linux.resources.blockIO.weight"},
			func(r *resources) { bundle.BlockIO(r).Weight = new(uint16(300)) },
			blkio, "blkio.bfq.weight", "300", "io.bfq.weight", "300"},
		{lab.Fields{"linux.resources.blockIO.throttleReadBpsDevice[]"},
			func(r *resources) { bundle.BlockIO(r).ThrottleReadBpsDevice = throttle(1 * mib) },
			blkio, "blkio.throttle.read_bps_device", disk + " 1048576", "io.max", "rbps=1048576"},
		{lab.Fields{"linux.resources.blockIO.throttleWriteBpsDevice[]"},
			func(r *resources) { bundle.BlockIO(r).ThrottleWriteBpsDevice = throttle(2 * mib) },
			blkio, "blkio.throttle.write_bps_device", disk + " 2097152", "io.max", "wbps=2097152"},
		{lab.Fields{"linux.resources.blockIO.throttleReadIOPSDevice[]"},
			func(r *resources) { bundle.BlockIO(r).ThrottleReadIOPSDevice = throttle(300) },
			blkio, "blkio.throttle.read_iops_device", disk + " 300", "io.max", "riops=300"},
		{lab.Fields{"linux.resources.blockIO.throttleWriteIOPSDevice[]"},
			func(r *resources) { bundle.BlockIO(r).ThrottleWriteIOPSDevice = throttle(400) },
			blkio, "blkio.throttle.write_iops_device", disk + " 400", "io.max", "wiops=400"},
		{lab.Fields{"linux.resources.unified"},
			func(r *resources) { r.Unified = map[string]string{"memory.high": "50331648"} },
			"memory", "", "", "memory.high", "50331648"},
	}
}

// limitWithFile is a limit for which this machine has a file.
type limitWithFile struct {
	cgroupLimit
	controller, file, content string // of this version of cgroups
	unlimited                 string // what the file reads without the limit
}

// limitsWithFiles returns those of the limits for which the cgroup of a container without limits has a file. It returns in without
// those for which this version of cgroups has no file. It records which other limits this machine lacks, and why.
func limitsWithFiles(
	q *lab.Q, limits []cgroupLimit, unlimitedGroup cgroup.Group, disk string,
) (rows []limitWithFile, without []cgroupLimit) {
	q.Helper()
	for _, l := range limits {
		r := limitWithFile{l, l.controller, l.v1File, l.v1Content, ""}
		if unlimitedGroup.V2 {
			r.file, r.content = l.v2File, l.v2Content
			if r.controller == blkio {
				r.controller = "io"
			}
		}
		var err error
		if r.file != "" && unlimitedGroup.Has(r.controller) {
			r.unlimited, err = unlimitedGroup.Try(r.controller, r.file)
		}
		field := l.covers[0]
		switch {
		case r.file == "":
			without = append(without, l)
		case !unlimitedGroup.Has(r.controller):
			q.Fact(field, "no controller "+r.controller+" here")
		case err != nil:
			q.Fact(field, "no file "+r.file+" on this kernel")
		case strings.Contains(field, "throttle") && disk == "":
			q.Fact(field, "no disk on this machine")
		default:
			rows = append(rows, r)
		}
	}
	return rows, without
}

// isIn reports whether the text of a file has the limit's content. Words are compared whole, and those of the content follow one
// another in the file.
func (r limitWithFile) isIn(text string) bool {
	oneWordALine := func(s string) string { return "\n" + strings.ReplaceAll(s, " ", "\n") + "\n" }
	return slices.ContainsFunc(strings.Split(r.content, "|"), func(want string) bool {
		return strings.Contains(oneWordALine(text), oneWordALine(want))
	})
}

// pids.max limits the number of processes and threads in the cgroup. At the limit, fork(2) fails with EAGAIN.
//
// The limit counts the processes and threads of the cgroup and of the cgroups below it. The kernel kills no process over the limit; a
// process of the cgroup cannot fork.
//
// Hint: pids.current, pids.events, and the error message of a shell that cannot fork.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#pids
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#pid
func TestBundle_WhatLimitsTheNumberOfProcesses(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What limits the number of processes?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	// In a subshell: a shell that cannot fork ends.
	const forks = "(i=0; while [ $i -lt 30 ]; do sleep 3600 & i=$((i+1)); done; echo all of them)"

	q.Step("at most 20, and the program forks 30 times")
	atMost20 := bundle.Resources(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: new(int64(20))} })
	c, sh, p := runc.StartWithShell(q, b, "limited", atMost20)
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	before := g.Stat("pids", "pids.events", "max")
	r := sh.Run(forks)
	assert.Check(q, r.Code != 0, "30 forks succeed: %s", r.Out)
	assert.Check(q, cmp.Contains(r.Out, "Resource temporarily unavailable"), "message of the shell that cannot fork")
	assert.Check(q, g.Stat("pids", "pids.events", "max") > before, "the cgroup has counted no refused fork")
	n := len(g.Procs())
	assert.Check(q, n >= 18 && n <= 20, "%d processes are in the cgroup, with a limit of 20", n)
	q.Fact("the shell: message", strings.TrimSpace(strings.Split(r.Out, "\n")[0]))
	q.Fact("pids.max", g.Read("pids", "pids.max"))
	q.Fact("pids.events: it counts the refused forks", g.Stat("pids", "pids.events", "max") > before)
	assert.Check(q, proc.Alive(p.PID), "the limit has killed the container's first process")
	q.Covers("linux.resources.pids.limit")

	q.Control("without the limit, all 30 are forked")
	free, sh, _ := runc.StartWithShell(q, b, "free")
	r = sh.Run(forks)
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	assert.Check(q, cmp.Contains(r.Out, "all of them"))
	forked := len(cgroup.Of(q, free.Bundle.Spec.Linux.CgroupsPath).Procs())
	assert.Check(q, forked > 30, "%d processes are in the cgroup without a limit, of which 30 were forked", forked)
	q.Fact("without the limit: processes", forked)

	q.Answer("pids.max of the cgroup limits the number of processes and threads. At the limit fork fails with EAGAIN, and " +
		"no process is killed.")
}

// memory.max (v1: memory.limit_in_bytes) limits the memory of the cgroup. If the cgroup needs more, and the kernel cannot take enough
// back, the OOM killer ends a process of the cgroup.
//
// The kernel first takes back what it can (caches), and swaps where it may; then the OOM killer ends the process of the cgroup that
// would free most. That need not be the process that has asked for more. The container need not end: here it is a child of pid 1 that
// dies.
//
// Hint: memory.events on v2, memory.oom_control on v1; the exit code of the killed process.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#memory
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory
func TestBundle_WhatLimitsItsMemory(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What limits its memory?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	if !cgroup.Of(q, q.Cgroup).Has("memory") {
		q.Skip("this kernel has no memory controller in a hierarchy of this mode; to ask this: make lab CGROUP=v2")
	}
	kills := func(g cgroup.Group) uint64 {
		if g.V2 {
			return g.Stat("memory", "memory.events", "oom_kill")
		}
		return g.Stat("memory", "memory.oom_control", "oom_kill")
	}
	// dd fills a buffer of 64 MiB before it writes it.
	const fill = "dd if=/dev/zero of=/dev/null bs=64M count=1"

	q.Step("32 MiB, and a process that takes 64")
	c, sh, p := runc.StartWithShell(q, b, "limited", bundle.Resources(func(r *specs.LinuxResources) {
		bundle.Memory(r).Limit = new(int64(32 * (1 << 20)))
		bundle.Memory(r).Swap = new(int64(32 * (1 << 20))) // memory and swap together: no swap
	}))
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	assert.Check(q, cmp.Equal(kills(g), uint64(0)), "kills before the process takes memory")
	r := sh.Run(fill)
	assert.Check(q, cmp.Equal(r.Code, 128+9), "dd's exit code: %s", r.Out)
	assert.Check(q, cmp.Equal(kills(g), uint64(1)), "processes that the OOM killer has ended in this cgroup")
	q.Covers("linux.resources.memory.limit")
	assert.Check(q, proc.Alive(p.PID), "the container's first process was killed")
	q.Fact("dd: exit code", r.Code)
	q.Fact("cgroup: oom_kill", kills(g))
	q.Fact("container: status", c.State().Status)

	q.Control("without the limit the process gets the memory")
	free, sh, _ := runc.StartWithShell(q, b, "free")
	r = sh.Run(fill)
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	assert.Check(q, cmp.Equal(kills(cgroup.Of(q, free.Bundle.Spec.Linux.CgroupsPath)), uint64(0)))
	q.Fact("dd without the limit: exit code", r.Code)

	q.Answer("memory.max of the cgroup (v1: memory.limit_in_bytes) limits its memory. If the cgroup needs more, and the kernel cannot take " +
		"enough back, the OOM killer ends a process of the cgroup. The container runs on if that was not its pid 1.")
}

// cpu.max (v1: cpu.cfs_quota_us and cpu.cfs_period_us) limits the processor time of the cgroup. The program runs for so many microseconds
// of each period, and then waits for the next period.
//
// A quota does not make a program slower; it stops the program for the rest of each period. The kernel counts in cpu.stat how often
// it did that. Shares (v2: weight) are no limit: they matter only when other processes want the processor too.
//
// Hint: nr_periods and nr_throttled in cpu.stat.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#cpu
// Kernel: https://docs.kernel.org/scheduler/sched-bwc.html
func TestBundle_WhatLimitsItsProcessorTime(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What limits its processor time?")
	defer q.Recover()
	b := bundle.Busybox(q, "sh", "-c", "while :; do :; done")

	q.Step("a fifth of a processor, and a program that would use all of it")
	c := runc.Variant(q, b, "limited", bundle.Resources(func(r *specs.LinuxResources) {
		bundle.CPU(r).Quota, bundle.CPU(r).Period = new(int64(10000)), new(uint64(50000))
	}))
	c.CreateAndStart()
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	proc.WaitFor(q, g.StatReaches("cpu", "cpu.stat", "nr_throttled", 3))
	quota := []string{"cpu.cfs_quota_us", "cpu.cfs_period_us"}
	if g.V2 {
		quota = []string{"cpu.max"}
	}
	for i, name := range quota {
		quota[i] = g.Read("cpu", name)
	}
	assert.Check(q, cmp.DeepEqual(strings.Fields(strings.Join(quota, " ")), []string{"10000", "50000"}),
		"quota and period in the cgroup's files")
	q.Fact("quota and period, in µs", quota)

	q.Control("the same program without a quota is never throttled while it uses 10 ticks of processor time")
	free := runc.Variant(q, b, "free")
	p := free.CreateAndStart()
	proc.WaitFor(q, proc.HasUsed(p.PID, 10))
	throttled := cgroup.Of(q, free.Bundle.Spec.Linux.CgroupsPath).Stat("cpu", "cpu.stat", "nr_throttled")
	assert.Check(q, cmp.Equal(throttled, uint64(0)), "nr_throttled without a quota")
	q.Covers("linux.resources.cpu.quota")
	q.Fact("nr_throttled without a quota", throttled)

	q.Answer("cpu.max of the cgroup (v1: cpu.cfs_quota_us and cpu.cfs_period_us) limits its processor time. After its " +
		"quota the program waits for the next period, and cpu.stat counts how often.")
}

// unusedMajor returns a major number for local use (Documentation/admin-guide/devices.txt) that no driver has, neither of character
// devices nor of block devices. The kernel gives a driver that asks for any number one of these, from above.
func unusedMajor(q *lab.Q) int {
	q.Helper()
	list := file.Read(q, "/proc/devices") // after a title for each of both types, a line for each driver with its number and name
	taken := strings.Fields(list)
	for major := 240; major <= 254; major++ {
		if !slices.Contains(taken, strconv.Itoa(major)) {
			return major
		}
	}
	q.Skipf("each number for local use, 240 to 254, has a driver: unload a module that /proc/devices lists:\n%s", list)
	return 0
}

// The container may open the devices that a rule of linux.resources.devices allows. Which files there are in /dev does not matter.
//
// linux.devices makes a file; a rule lets a program open it. A device that no rule allows cannot be opened even by root with all
// capabilities: the error is EPERM. If a rule allows it and it has no driver, the error is another one: ENXIO. On v1 a
// controller has the rules, on v2 a BPF program does.
//
// Hint: mknod is one permission, open another. Which errno does each give?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#allowed-device-list
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller
func TestBundle_WhichDevicesMayItOpen(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which devices may it open?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	const minor = 77
	major := unusedMajor(q)
	others := otherDevices(int64(major), minor)
	node := func(s *specs.Spec) {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/lab", Type: "c", Major: int64(major), Minor: minor,
			FileMode: new(os.FileMode(0o640)), UID: new(uint32(12)), GID: new(uint32(34))})
		s.Linux.Devices = append(s.Linux.Devices, others...)
		for _, set := range []*[]string{
			&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Permitted, &s.Process.Capabilities.Effective,
		} {
			*set = append(*set, "CAP_DAC_OVERRIDE")
		}
	}
	rule := func(access string) func(*specs.Spec) {
		return allowDevice(specs.LinuxDevice{Type: "c", Major: int64(major), Minor: minor}, access)
	}
	const noRule, noDriver = "Operation not permitted", "No such device or address"

	q.Step("linux.devices[] makes the file")
	_, sh, _ := runc.StartWithShell(q, b, "node", node)
	r := sh.Run("stat -c '%F, %t:%T, mode %a, uid %u, gid %g' /dev/lab")
	assert.Check(q, cmp.Equal(r.Out, fmt.Sprintf("character special file, %x:%x, mode 640, uid 12, gid 34", major, minor)))
	q.Covers("linux.devices[].path", "linux.devices[].type", "linux.devices[].major", "linux.devices[].minor",
		"linux.devices[].fileMode", "linux.devices[].uid", "linux.devices[].gid")
	q.Fact("/dev/lab", r.Out)

	q.Step("without a rule it cannot be opened")
	r = sh.Run("cat /dev/lab")
	assert.Check(q, cmp.Contains(r.Out, noRule), "read without a rule")
	q.Fact("read without a rule", check.LastLine(r.Out))

	q.Control("a rule of linux.resources.devices[] allows it: the error is another one, because the device has no driver")
	_, sh, _ = runc.StartWithShell(q, b, "allowed", node, rule("rw"))
	r = sh.Run("cat /dev/lab")
	assert.Check(q, cmp.Contains(r.Out, noDriver), "read with a rule for rw")
	q.Fact("read with a rule for rw", check.LastLine(r.Out))
	r = sh.Run("echo > /dev/lab")
	assert.Check(q, cmp.Contains(r.Out, noDriver), "write with a rule for rw")

	q.Step("the rule is for this device alone: a device with another number, or of another type, needs a rule of its own")
	for _, other := range others {
		r = sh.Run("cat " + other.Path)
		assert.Check(q, cmp.Contains(r.Out, noRule), "read of %s %d:%d, where a rule allows c %d:%d", other.Type, other.Major, other.Minor,
			major, minor)
		q.Fact("read of "+other.Path+" with the rule for /dev/lab", check.LastLine(r.Out))
	}
	_, sh, _ = runc.StartWithShell(q, b, "all-allowed", node, allowDevice(others[0], "r"), allowDevice(others[1], "r"),
		allowDevice(others[2], "r"))
	for _, other := range others {
		r = sh.Run("cat " + other.Path)
		assert.Check(q, cmp.Contains(r.Out, noDriver), "read of %s %d:%d with a rule of its own", other.Type, other.Major, other.Minor)
		q.Fact("read of "+other.Path+" with a rule of its own", check.LastLine(r.Out))
	}
	q.Covers("linux.resources.devices[].allow", "linux.resources.devices[].type", "linux.resources.devices[].major",
		"linux.resources.devices[].minor")

	q.Step("a rule is for some ways of access: with r alone, the device cannot be opened for writing")
	_, sh, _ = runc.StartWithShell(q, b, "readable", node, rule("r"))
	reads, writes := sh.Run("cat /dev/lab"), sh.Run("echo > /dev/lab")
	assert.Check(q, cmp.Contains(reads.Out, noDriver), "read with a rule for r")
	assert.Check(q, cmp.Contains(writes.Out, noRule), "write with a rule for r")
	q.Covers("linux.resources.devices[].access")
	q.Fact("read with a rule for r", check.LastLine(reads.Out))
	q.Fact("write with a rule for r", check.LastLine(writes.Out))

	q.Step("the runtime has rules of its own for /dev/null and /dev/zero, which config.json does not name")
	r = sh.Run("echo > /dev/null && cat /dev/null && head -c 3 /dev/zero | wc -c")
	assert.Check(q, cmp.Equal(r.Out, "3"), "bytes that are read from /dev/zero")
	q.Fact("bytes read from /dev/zero", r.Out)

	q.Answer("A program may open the devices that a rule of linux.resources.devices allows, and some that the runtime " +
		"adds, such as /dev/null. linux.devices only makes a file.")
}

// otherDevices returns devices that differ from the character device major:minor in one number or in the type. If no driver has that
// major number, no driver has them: none has the major number 0.
func otherDevices(major, minor int64) []specs.LinuxDevice {
	mode := new(os.FileMode(0o640))
	return []specs.LinuxDevice{
		{Path: "/dev/other-minor", Type: "c", Major: major, Minor: minor + 1, FileMode: mode},
		{Path: "/dev/other-major", Type: "c", Major: 0, Minor: minor, FileMode: mode},
		{Path: "/dev/other-type", Type: "b", Major: major, Minor: minor, FileMode: mode},
	}
}

// allowDevice adds a rule that allows a kind of access to this device.
func allowDevice(d specs.LinuxDevice, access string) func(*specs.Spec) {
	return bundle.Resources(func(r *specs.LinuxResources) {
		r.Devices = append(r.Devices,
			specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: new(d.Major), Minor: new(d.Minor), Access: access})
	})
}

// linux.memoryPolicy sets the NUMA policy of the container's processes. With MPOL_BIND, their memory comes only from the nodes that it
// names. With MPOL_INTERLEAVE and MPOL_PREFERRED, the kernel tries these nodes first, and takes another node if they have no free
// memory.
//
// Unlike a limit, the policy is not in a file of the cgroup: `runc init` calls set_mempolicy(2), and the kernel shows the policy
// with each mapping of the process. execve(2) keeps it.
//
// Hint: the second word of each line of /proc/PID/numa_maps.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#memory-policy
// Kernel: https://man7.org/linux/man-pages/man2/set_mempolicy.2.html, https://man7.org/linux/man-pages/man5/proc_pid_numa_maps.5.html,
// https://docs.kernel.org/admin-guide/mm/numa_memory_policy.html#components-of-memory-policies
func TestBundle_FromWhichNodesDoesItsMemoryCome(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "From which nodes does its memory come?")
	defer q.Recover()
	if !file.Exists("/proc/self/numa_maps") {
		q.Skip("this kernel is built without CONFIG_NUMA: look with the kernel of make lab")
	}
	b := bundle.Busybox(q, "sleep", "3600")

	q.Control("without linux.memoryPolicy, every mapping has the default policy")
	free := runc.Variant(q, b, "free")
	p := free.CreateAndStart()
	assert.Check(q, cmp.DeepEqual(proc.MemoryPolicies(q, p.PID), []string{"default"}))
	q.Fact("without", proc.MemoryPolicies(q, p.PID))

	for _, row := range []struct {
		name   string // of the container
		fact   string
		covers lab.Fields
		policy specs.LinuxMemoryPolicy
		want   string
	}{
		{"mode", "linux.memoryPolicy.mode", lab.Fields{"linux.memoryPolicy.mode"},
			specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0"}, "interleave:0"},
		{"preferred", "linux.memoryPolicy.mode, MPOL_PREFERRED", lab.Fields{"linux.memoryPolicy.mode"},
			specs.LinuxMemoryPolicy{Mode: specs.MpolPreferred, Nodes: "0"}, "prefer:0"},
		{"nodes", "linux.memoryPolicy.nodes", lab.Fields{"linux.memoryPolicy.nodes"},
			specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}, "bind:0"},
		{"flags", "linux.memoryPolicy.flags", lab.Fields{"linux.memoryPolicy.flags"}, specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0",
			Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}, "bind=static:0"},
	} {
		field := row.fact
		q.Step("%s: the kernel shows it for each mapping of the first program, and of an executed one", field)
		c := runc.Variant(q, b, row.name, func(s *specs.Spec) { s.Linux.MemoryPolicy = &row.policy })
		p := c.CreateAndStart()
		got := proc.MemoryPolicies(q, p.PID)
		if slices.Equal(got, []string{"default"}) && !runc.KnowsSince(q, "memoryPolicy", "1.4.0-rc.2") {
			q.Fact(field, []string{"ignored by this runtime:", strings.Join(got, " ")})
			continue
		}
		assert.Check(q, cmp.DeepEqual(got, []string{row.want}), "%s: policies in /proc/PID/numa_maps", field)
		executed := proc.MemoryPolicies(q, runc.ExecProcess(q, c, c.Bundle.Spec.Process).PID)
		assert.Check(q, cmp.DeepEqual(executed, []string{row.want}), "%s: policies in /proc/PID/numa_maps of an executed program", field)
		q.Covers(row.covers...)
		q.Fact(field, got)
	}

	q.Answer("With MPOL_BIND, a container's memory comes only from the nodes that linux.memoryPolicy names. With MPOL_INTERLEAVE and " +
		"MPOL_PREFERRED, the kernel tries them first. The policy is an attribute of the process, which execve keeps, and not a file of the " +
		"cgroup.")
}
