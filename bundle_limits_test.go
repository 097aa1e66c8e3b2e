//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// limit is a field of linux.resources and the files into which it goes: the controller, the file and what it then reads,
// on v1 and on v2. Where a file is "", the version has none.
type limit struct {
	field      string
	set        func(r *specs.LinuxResources)
	controller string
	v1, reads1 string
	v2, reads2 string
}

// One row for each field.
var limits = []limit{
	{"linux.resources.pids.limit", func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: new(int64(77))} }, "pids", "pids.max", "77", "pids.max", "77"},
	{"linux.resources.memory.limit", func(r *specs.LinuxResources) { memory(r).Limit = new(int64(64 * (1 << 20))) }, "memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864"},
	{"linux.resources.memory.reservation", func(r *specs.LinuxResources) { memory(r).Reservation = new(int64(32 * (1 << 20))) }, "memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"},
	// The field is memory and swap together; v2's file is swap alone.
	{"linux.resources.memory.swap", func(r *specs.LinuxResources) { memory(r).Swap = new(int64(96 * (1 << 20))) }, "memory", "memory.memsw.limit_in_bytes", "100663296", "memory.swap.max", "33554432"},
	{"linux.resources.memory.swappiness", func(r *specs.LinuxResources) { memory(r).Swappiness = new(uint64(10)) }, "memory", "memory.swappiness", "10", "", ""},
	{"linux.resources.memory.disableOOMKiller", func(r *specs.LinuxResources) { memory(r).DisableOOMKiller = new(true) }, "memory", "memory.oom_control", "oom_kill_disable 1", "", ""},
	{"linux.resources.cpu.shares", func(r *specs.LinuxResources) { cpu(r).Shares = new(uint64(2048)) }, "cpu", "cpu.shares", "2048", "cpu.weight", "79|174"}, // the conversion to v2's weight has changed
	{"linux.resources.cpu.quota", func(r *specs.LinuxResources) { cpu(r).Quota = new(int64(50000)) }, "cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 200000"},
	{"linux.resources.cpu.period", func(r *specs.LinuxResources) { cpu(r).Period = new(uint64(200000)) }, "cpu", "cpu.cfs_period_us", "200000", "cpu.max", "50000 200000"},
	{"linux.resources.cpu.burst", func(r *specs.LinuxResources) { cpu(r).Burst = new(uint64(10000)) }, "cpu", "cpu.cfs_burst_us", "10000", "cpu.max.burst", "10000"},
	{"linux.resources.cpu.cpus", func(r *specs.LinuxResources) { cpu(r).Cpus = "0" }, "cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0"},
	{"linux.resources.cpu.mems", func(r *specs.LinuxResources) { cpu(r).Mems = "0" }, "cpuset", "cpuset.mems", "0", "cpuset.mems", "0"},
	{"linux.resources.hugepageLimits[]", func(r *specs.LinuxResources) {
		r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 * (1 << 20)}}
	}, "hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304", "hugetlb.2MB.max", "4194304"},
	{"linux.resources.network.classID", func(r *specs.LinuxResources) { network(r).ClassID = new(uint32(0x100001)) }, "net_cls", "net_cls.classid", "1048577", "", ""},
	{"linux.resources.network.priorities[]", func(r *specs.LinuxResources) {
		network(r).Priorities = []specs.LinuxInterfacePriority{{Name: "lo", Priority: 7}}
	}, "net_prio", "net_prio.ifpriomap", "lo 7", "", ""},
	{"linux.resources.blockIO.weight", func(r *specs.LinuxResources) { blockIO(r).Weight = new(uint16(300)) }, blkio, "blkio.bfq.weight", "300", "io.bfq.weight", "300"},
	{"linux.resources.blockIO.throttleReadBpsDevice[]", func(r *specs.LinuxResources) { blockIO(r).ThrottleReadBpsDevice = throttle(1 * (1 << 20)) }, blkio, "blkio.throttle.read_bps_device", "DISK 1048576", "io.max", "rbps=1048576"},
	{"linux.resources.blockIO.throttleWriteBpsDevice[]", func(r *specs.LinuxResources) { blockIO(r).ThrottleWriteBpsDevice = throttle(2 * (1 << 20)) }, blkio, "blkio.throttle.write_bps_device", "DISK 2097152", "io.max", "wbps=2097152"},
	{"linux.resources.blockIO.throttleReadIOPSDevice[]", func(r *specs.LinuxResources) { blockIO(r).ThrottleReadIOPSDevice = throttle(300) }, blkio, "blkio.throttle.read_iops_device", "DISK 300", "io.max", "riops=300"},
	{"linux.resources.blockIO.throttleWriteIOPSDevice[]", func(r *specs.LinuxResources) { blockIO(r).ThrottleWriteIOPSDevice = throttle(400) }, blkio, "blkio.throttle.write_iops_device", "DISK 400", "io.max", "wiops=400"},
	{"linux.resources.unified", func(r *specs.LinuxResources) { r.Unified = map[string]string{"memory.high": "50331648"} }, "memory", "", "", "memory.high", "50331648"},
}

// blkio is what v1 calls the controller of block devices; v2 calls it io.
const blkio = "blkio"

func memory(r *specs.LinuxResources) *specs.LinuxMemory {
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	return r.Memory
}

func cpu(r *specs.LinuxResources) *specs.LinuxCPU {
	if r.CPU == nil {
		r.CPU = &specs.LinuxCPU{}
	}
	return r.CPU
}

func network(r *specs.LinuxResources) *specs.LinuxNetwork {
	if r.Network == nil {
		r.Network = &specs.LinuxNetwork{}
	}
	return r.Network
}

func blockIO(r *specs.LinuxResources) *specs.LinuxBlockIO {
	if r.BlockIO == nil {
		r.BlockIO = &specs.LinuxBlockIO{}
	}
	return r.BlockIO
}

// disk is the number of a whole disk of this machine, "254:0"; "" where it has none.
func disk() string {
	all, _ := filepath.Glob("/sys/block/*/dev")
	for _, f := range all {
		// Loop and RAM devices come and go; a throttle on one that carries nothing disturbs nobody, but may be refused.
		if name := filepath.Base(filepath.Dir(f)); strings.HasPrefix(name, "vd") || strings.HasPrefix(name, "sd") || strings.HasPrefix(name, "nvme") {
			n, _ := file.TryRead(f)
			return n
		}
	}
	return ""
}

func throttle(rate uint64) []specs.LinuxThrottleDevice {
	var t specs.LinuxThrottleDevice
	if _, err := fmt.Sscanf(disk(), "%d:%d", &t.Major, &t.Minor); err != nil {
		return nil
	}
	t.Rate = rate
	return []specs.LinuxThrottleDevice{t}
}

// Into a file of the container's cgroup, by the controller whose business it is.
//
// config.json says what is wanted in terms of cgroup v1, from which most of the fields have their names; on v2 the
// runtime translates: memory and swap together become swap alone, shares become a weight, quota and period become one
// file. What a version has no file for is refused or silently dropped, and `unified` is v2's alone.
//
// Hint: the cgroup's directory in each hierarchy; what do its files read in a container without limits?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#controllers, https://docs.kernel.org/admin-guide/cgroup-v1/index.html
func TestBundle_WhereDoesEachLimitGo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does each limit go?")
	b := bundle.Busybox(q, "sleep", "300")

	q.Control("a container without limits: the files are there, and read otherwise")
	unlimited := runc.Variant(q, b, "unlimited")
	unlimited.Create()
	none := cgroup.Of(q, unlimited.Bundle.Spec.Linux.CgroupsPath)
	type row struct {
		limit
		controller, file, reads, without string
	}
	var rows []row
	var sets []func(*specs.LinuxResources)
	for _, l := range limits {
		r := row{l, l.controller, l.v1, l.reads1, ""}
		if none.V2 {
			r.file, r.reads = l.v2, l.reads2
			if r.controller == blkio {
				r.controller = "io"
			}
		}
		r.reads = strings.ReplaceAll(r.reads, "DISK", disk())
		var err error
		if r.file != "" && none.Has(r.controller) {
			r.without, err = none.Try(r.controller, r.file)
		}
		switch {
		case r.file == "":
			q.Fact(l.field, "not on this version of cgroups")
		case !none.Has(r.controller):
			q.Fact(l.field, "no controller "+r.controller+" here")
		case err != nil:
			q.Fact(l.field, "no file "+r.file+" on this kernel")
		case strings.Contains(l.field, "throttle") && disk() == "":
			q.Fact(l.field, "no disk on this machine")
		default:
			rows, sets = append(rows, r), append(sets, l.set)
		}
	}
	assert.Assert(q, len(rows) >= 8, "only %d limits can be looked at here", len(rows))

	q.Step("with limits: each in its file")
	c := runc.Variant(q, b, "limited", bundle.Resources(sets...))
	c.Create()
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	for _, r := range rows {
		got := g.Read(r.controller, r.file)
		read := func(text string) bool {
			return slices.ContainsFunc(strings.Split(r.reads, "|"), func(want string) bool {
				return text == want || strings.Contains("\n"+strings.ReplaceAll(text, " ", "\n")+"\n", "\n"+strings.ReplaceAll(want, " ", "\n")+"\n")
			})
		}
		if r.field == "linux.resources.cpu.burst" && !q.UnderTest("runc").Pinned && !read(got) {
			q.Fact(r.field, "this runtime does not know it")
			continue
		}
		assert.Check(q, read(got), "%s: %s reads %q and not %q", r.field, r.file, got, r.reads)
		// There is but one memory node on most machines, and one CPU on some: of one there is nothing to choose.
		if r.field != "linux.resources.cpu.mems" && (r.field != "linux.resources.cpu.cpus" || runtime.NumCPU() > 1) {
			assert.Check(q, !read(r.without), "control: %s reads %q without the limit, too", r.file, r.without)
		}
		q.Fact(r.field, r.file+" = "+strings.Join(strings.Fields(got), " "))
	}
	q.Clause("Create: All of the properties configured in config.json except for process MUST be applied.", lab.Met)

	q.Step("%s: instead of a weight", "linux.resources.cpu.idle")
	idle := runc.Variant(q, b, "idle", bundle.Resources(func(r *specs.LinuxResources) { cpu(r).Idle = new(int64(1)) }))
	idle.Create()
	gi := cgroup.Of(q, idle.Bundle.Spec.Linux.CgroupsPath)
	if _, err := gi.Try("cpu", "cpu.idle"); err != nil {
		q.Fact("linux.resources.cpu.idle", "no file cpu.idle on this kernel")
	} else if got := gi.Read("cpu", "cpu.idle"); q.UnderTest("runc").Pinned {
		assert.Check(q, cmp.Equal(got, "1"), "linux.resources.cpu.idle")
		assert.Check(q, cmp.Equal(none.Read("cpu", "cpu.idle"), "0"), "control")
		q.Fact("linux.resources.cpu.idle", "cpu.idle = "+got)
	}

	q.Step("linux.cgroupsPath: where all of that is")
	check.OnlyProcessInCgroup(q, proc.Snapshot(q, proc.PID(c.State().Pid)).Identity, c.Bundle.Spec.Linux.CgroupsPath)
	q.Fact("linux.cgroupsPath", c.Bundle.Spec.Linux.CgroupsPath)

	q.Answer("Into one file of the container's cgroup each; on v2 under another name, and sometimes as another number.")
}

// pids.max: with that many in the cgroup, fork(2) fails with EAGAIN.
//
// The limit counts tasks, that is threads too, of the cgroup and of those below; who is over it is not killed, but
// cannot fork.
//
// Hint: pids.current, pids.events, and what a shell says that cannot fork.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#pids
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#pid
func TestBundle_WhatLimitsTheNumberOfProcesses(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What limits the number of processes?")
	b := bundle.Busybox(q, "sleep", "300")
	// In a subshell: a shell that cannot fork ends.
	const forks = "(i=0; while [ $i -lt 30 ]; do sleep 300 & i=$((i+1)); done; echo all of them)"

	q.Step("at most 20, and the program forks 30 times")
	c, sh, p := runc.StartWithShell(q, b, "limited", bundle.Resources(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: new(int64(20))} }))
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	before := g.Stat("pids", "pids.events", "max")
	r := sh.Run(forks)
	assert.Check(q, r.Code != 0, "30 forks succeed: %s", r.Out)
	assert.Check(q, cmp.Contains(r.Out, "Resource temporarily unavailable"), "the shell says")
	assert.Check(q, g.Stat("pids", "pids.events", "max") > before, "the cgroup has counted no refused fork")
	n := len(g.Procs())
	assert.Check(q, n >= 18 && n <= 20, "%d processes are in the cgroup, with a limit of 20", n)
	q.Fact("the shell says", strings.TrimSpace(strings.Split(r.Out, "\n")[0]))
	q.Fact("pids.max, and pids.events counts", []string{g.Read("pids", "pids.max"), "more than before"})
	assert.Check(q, proc.Alive(p.PID), "the limit has killed somebody")

	q.Control("without the limit, all 30 are forked")
	free, sh, _ := runc.StartWithShell(q, b, "free")
	r = sh.Run(forks)
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	assert.Check(q, cmp.Contains(r.Out, "all of them"))
	q.Fact("processes without", len(cgroup.Of(q, free.Bundle.Spec.Linux.CgroupsPath).Procs()))

	q.Answer("pids.max: fork fails with EAGAIN, and nobody is killed.")
}

// memory.max (v1: memory.limit_in_bytes): who would go over it is killed by the kernel.
//
// The kernel first takes back what it can (caches), and swaps where it may; then the OOM killer ends the process of the
// cgroup that would free most. The container need not end: here it is a child of pid 1 that dies.
//
// Hint: memory.events on v2, memory.oom_control on v1; the exit code of who was killed.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#memory
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory
func TestBundle_WhatLimitsItsMemory(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What limits its memory?")
	b := bundle.Busybox(q, "sleep", "300")
	if !cgroup.Of(q, q.Cgroup).Has("memory") {
		q.Skip("this kernel has no memory controller in a hierarchy of this mode: look with CGROUP=v2")
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
		memory(r).Limit, memory(r).Swap = new(int64(32*(1<<20))), new(int64(32*(1<<20))) // no swap beside it
	}))
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	assert.Check(q, cmp.Equal(kills(g), uint64(0)))
	r := sh.Run(fill)
	assert.Check(q, cmp.Equal(r.Code, 128+9), "dd's exit code: %s", r.Out)
	assert.Check(q, cmp.Equal(kills(g), uint64(1)), "processes that the OOM killer has ended in this cgroup")
	assert.Check(q, proc.Alive(p.PID), "the container's first process was killed")
	q.Fact("its exit code", r.Code)
	q.Fact("oom_kill", kills(g))
	q.Fact("the container", c.State().Status)

	q.Control("without the limit it takes them")
	free, sh, _ := runc.StartWithShell(q, b, "free")
	r = sh.Run(fill)
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	assert.Check(q, cmp.Equal(kills(cgroup.Of(q, free.Bundle.Spec.Linux.CgroupsPath)), uint64(0)))
	q.Fact("its exit code without", r.Code)

	q.Answer("memory.max: who goes over it is killed by the kernel. The container lives on, if it was not pid 1.")
}

// cpu.max: so many microseconds of each period, and then it waits for the next.
//
// A quota does not make a program slower, it stops it for the rest of each period; that it was throttled is counted in
// cpu.stat. Shares (v2: weight) are no limit: they matter only when somebody else wants the processor too.
//
// Hint: nr_periods and nr_throttled in cpu.stat.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#cpu
// Kernel: https://docs.kernel.org/scheduler/sched-bwc.html
func TestBundle_WhatLimitsItsProcessorTime(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What limits its processor time?")
	b := bundle.Busybox(q, "sh", "-c", "while :; do :; done")

	q.Step("a fifth of a processor, and a program that would use all of it")
	c := runc.Variant(q, b, "limited", bundle.Resources(func(r *specs.LinuxResources) { cpu(r).Quota, cpu(r).Period = new(int64(10000)), new(uint64(50000)) }))
	c.CreateAndStart()
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	proc.WaitFor(q, counts(g, "nr_throttled", 3))
	q.Fact("quota of a period, in µs", []int{10000, 50000})
	q.Fact("nr_throttled", "3 and more")

	q.Control("the same program without a quota is never throttled, in as many ticks of processor time")
	free := runc.Variant(q, b, "free")
	p := free.CreateAndStart()
	proc.WaitFor(q, proc.HasUsed(p.PID, 10))
	none := cgroup.Of(q, free.Bundle.Spec.Linux.CgroupsPath).Stat("cpu", "cpu.stat", "nr_throttled")
	assert.Check(q, cmp.Equal(none, uint64(0)), "nr_throttled without a quota")
	q.Fact("nr_throttled without", none)

	q.Answer("cpu.max: after its quota the program waits for the next period, and cpu.stat counts how often.")
}

// counts is a poll check: cpu.stat's counter has come to n.
func counts(g cgroup.Group, key string, n uint64) poll.Check {
	path := filepath.Join(g.Dir("cpu"), "cpu.stat")
	return func(poll.LogT) poll.Result {
		data, err := os.ReadFile(path)
		if err != nil {
			return poll.Error(err)
		}
		for line := range strings.Lines(string(data)) {
			var got uint64
			if _, err := fmt.Sscanf(line, key+" %d", &got); err == nil && got >= n {
				return poll.Success()
			}
		}
		return poll.Continue("%s has not come to %d: %q", key, n, data)
	}
}

// Those that a rule of linux.resources.devices allows, whatever files there are in /dev.
//
// linux.devices makes a file, the rules let it be opened; they are two things. A device that no rule allows cannot be
// opened even by root with all capabilities: EPERM. One that is allowed and has no driver is another error: ENXIO. On v1
// a controller has the rules, on v2 a BPF program does.
//
// Hint: mknod is one permission, open another. Which errno does each give?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#allowed-device-list
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller
func TestBundle_WhichDevicesMayItOpen(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which devices may it open?")
	b := bundle.Busybox(q, "sleep", "300")
	// The number is one for local use, which no driver has (Documentation/admin-guide/devices.txt).
	const major, minor = 240, 77
	node := func(s *specs.Spec) {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{
			Path: "/dev/lab", Type: "c", Major: major, Minor: minor, FileMode: new(os.FileMode(0o640)), UID: new(uint32(12)), GID: new(uint32(34)),
		})
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_DAC_OVERRIDE")
		s.Process.Capabilities.Permitted = append(s.Process.Capabilities.Permitted, "CAP_DAC_OVERRIDE")
		s.Process.Capabilities.Effective = append(s.Process.Capabilities.Effective, "CAP_DAC_OVERRIDE")
	}
	rule := func(access string) func(*specs.Spec) {
		return bundle.Resources(func(r *specs.LinuxResources) {
			r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: new(int64(major)), Minor: new(int64(minor)), Access: access})
		})
	}
	const noRule, noDriver = "Operation not permitted", "No such device or address"

	q.Step("%s makes the file", "linux.devices[]")
	_, sh, _ := runc.StartWithShell(q, b, "node", node)
	r := sh.Run("stat -c '%F, %t:%T, mode %a, uid %u, gid %g' /dev/lab")
	assert.Check(q, cmp.Equal(r.Out, "character special file, f0:4d, mode 640, uid 12, gid 34"))
	q.Fact("/dev/lab", r.Out)

	q.Step("without a rule it cannot be opened")
	r = sh.Run("cat /dev/lab")
	assert.Check(q, cmp.Contains(r.Out, noRule))
	q.Fact("open", noRule)

	q.Control("%s allows it: the errno is another one, for it has no driver", "linux.resources.devices[]")
	_, sh, _ = runc.StartWithShell(q, b, "allowed", node, rule("rw"))
	r = sh.Run("cat /dev/lab")
	assert.Check(q, cmp.Contains(r.Out, noDriver))
	q.Fact("open, with the rule", noDriver)
	r = sh.Run("echo > /dev/lab")
	assert.Check(q, cmp.Contains(r.Out, noDriver))

	q.Step("a rule is for some ways of access: with r alone, it cannot be written")
	_, sh, _ = runc.StartWithShell(q, b, "readable", node, rule("r"))
	reads, writes := sh.Run("cat /dev/lab"), sh.Run("echo > /dev/lab")
	assert.Check(q, cmp.Contains(reads.Out, noDriver))
	assert.Check(q, cmp.Contains(writes.Out, noRule))
	q.Fact("read and write, with r", []string{noDriver, noRule})

	q.Step("/dev/null and its like have rules of the runtime's own")
	r = sh.Run("echo > /dev/null && cat /dev/null && head -c 3 /dev/zero | wc -c")
	assert.Check(q, cmp.Equal(r.Out, "3"))
	q.Fact("/dev/null, /dev/zero", "allowed, without being named")

	q.Answer("Those that a rule allows. linux.devices only makes a file; that it can be opened is another field's business.")
}

// Those that linux.memoryPolicy names, by the rule that it gives; it is the process's own, and outlives execve.
//
// Unlike the limits this is no file of the cgroup: the runtime calls set_mempolicy(2) in the stand-in, and the kernel
// shows the policy with each mapping of the process.
//
// Hint: the second word of each line of /proc/PID/numa_maps.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#memory-policy
// Kernel: https://man7.org/linux/man-pages/man2/set_mempolicy.2.html, https://man7.org/linux/man-pages/man5/proc_pid_numa_maps.5.html
func TestBundle_FromWhichNodesDoesItsMemoryCome(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "From which nodes does its memory come?")
	if !file.Exists("/proc/self/numa_maps") {
		q.Skip("this kernel is built without CONFIG_NUMA: look with the kernel of make lab")
	}
	b := bundle.Busybox(q, "sleep", "300")

	q.Control("without a policy: the default one, for every mapping")
	free := runc.Variant(q, b, "free")
	p := free.CreateAndStart()
	assert.Check(q, cmp.DeepEqual(policies(q, p), []string{"default"}))
	q.Fact("without", policies(q, p))

	for _, row := range []struct {
		field  string
		policy specs.LinuxMemoryPolicy
		shows  string
	}{
		{"linux.memoryPolicy.mode", specs.LinuxMemoryPolicy{Mode: "MPOL_INTERLEAVE", Nodes: "0"}, "interleave:0"},
		{"linux.memoryPolicy.nodes", specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0"}, "bind:0"},
		{"linux.memoryPolicy.flags", specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"MPOL_F_STATIC_NODES"}}, "bind=static:0"},
	} {
		q.Step("%s", row.field)
		c := runc.Variant(q, b, filepath.Ext(row.field)[1:], func(s *specs.Spec) { s.Linux.MemoryPolicy = &row.policy })
		p := c.CreateAndStart()
		got := policies(q, p)
		if !q.UnderTest("runc").Pinned && slices.Equal(got, []string{"default"}) {
			q.Fact(row.field, "this runtime does not know it")
			continue
		}
		assert.Check(q, cmp.DeepEqual(got, []string{row.shows}), "what %s has become", row.field)
		q.Fact(row.field, got)
	}

	q.Answer("From those that its policy names: one of the process, which execve keeps, and no file of the cgroup.")
}

// policies lists the memory policies of a process's mappings, each once.
func policies(q *lab.Q, p proc.Process) []string {
	q.Helper()
	var out []string
	for line := range strings.Lines(proc.File(q, p.PID, "numa_maps")) {
		out = append(out, strings.Fields(line)[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}
