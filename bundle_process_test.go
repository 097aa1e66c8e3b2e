//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Each field of process becomes an attribute of the kernel's process, and /proc/PID has nearly all of them.
//
// `runc init` sets them one by one, in itself: identity, limits, priorities, directory. What it has set stays over
// execve(2), so the program begins with them without having asked. A runtime ignores a field that it does not know, without
// an error, and then the process has what every process has.
//
// Hint: read status, stat, limits, environ, cwd and personality of /proc/PID beside config.json, line by line.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html, https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
func TestBundle_WhereDoesTheKernelShowWhatProcessSays(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does the kernel show what process says?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")
	status := func(key string) func(proc.PID) string {
		return func(pid proc.PID) string { return proc.Status(q, pid, key) }
	}
	statField := func(number int) func(proc.PID) string {
		return func(pid proc.PID) string { return proc.StatField(q, pid, number) }
	}
	procFile := func(name string) func(proc.PID) string {
		return func(pid proc.PID) string { return proc.File(q, pid, name) }
	}
	environWithoutHome := func(pid proc.PID) string { // the runtime adds HOME by itself
		isHome := func(variable string) bool { return strings.HasPrefix(variable, "HOME=") }
		return strings.Join(slices.DeleteFunc(proc.Snapshot(q, pid).Env, isHome), " ")
	}
	ioClass := func(pid proc.PID) string { class, _ := proc.IOPriority(q, pid); return strconv.Itoa(class) }
	ioPriority := func(pid proc.PID) string { _, priority := proc.IOPriority(q, pid); return strconv.Itoa(priority) }

	type row struct {
		covers lab.Fields
		set    func(*specs.Spec)
		where  string
		read   func(proc.PID) string
		want   string
	}
	// A runtime ignores a field that is newer than itself. runc knows these fields since 1.2, and crun 1.8 knows only some of them.
	isNew := func(field string) bool {
		return strings.HasPrefix(field, "process.scheduler.") || strings.HasPrefix(field, "process.ioPriority.") ||
			field == "linux.personality.domain"
	}
	// One row per field: what config.json says, where the kernel shows it, and what has to stand there.
	rows := []row{
		{lab.Fields{"process.args"}, func(s *specs.Spec) { s.Process.Args = []string{"sleep", "301"} },
			"cmdline", func(pid proc.PID) string { return fmt.Sprint(proc.Snapshot(q, pid).Args) }, "[sleep 301]"},
		{lab.Fields{"process.env"}, func(s *specs.Spec) { s.Process.Env = []string{"PATH=/bin", "ROOM=process"} },
			"environ", environWithoutHome, "PATH=/bin ROOM=process"},
		{lab.Fields{"process.cwd"}, func(s *specs.Spec) { s.Process.Cwd = "/etc" },
			"cwd", func(pid proc.PID) string { return proc.Cwd(q, pid) }, "/etc"},
		{lab.Fields{"process.user.uid"}, func(s *specs.Spec) { s.Process.User.UID = 1234 },
			"status, Uid", status("Uid"), "1234 1234 1234 1234"},
		{lab.Fields{"process.user.gid"}, func(s *specs.Spec) { s.Process.User.GID = 2345 },
			"status, Gid", status("Gid"), "2345 2345 2345 2345"},
		{lab.Fields{"process.user.additionalGids"}, func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{3456, 4567} },
			"status, Groups", status("Groups"), "3456 4567"},
		{lab.Fields{"process.user.umask"}, func(s *specs.Spec) { s.Process.User.Umask = new(uint32(0o37)) },
			"status, Umask", status("Umask"), "0037"},
		{lab.Fields{"process.noNewPrivileges"}, func(s *specs.Spec) { s.Process.NoNewPrivileges = true },
			"status, NoNewPrivs", status("NoNewPrivs"), "1"},
		{lab.Fields{"process.oomScoreAdj"}, func(s *specs.Spec) { s.Process.OOMScoreAdj = new(500) },
			"oom_score_adj", procFile("oom_score_adj"), "500"},
		{lab.Fields{"process.scheduler.policy"}, bundle.Scheduler(func(s *specs.Scheduler) { s.Policy = specs.SchedBatch }),
			"stat, field 41", statField(41), strconv.Itoa(unix.SCHED_BATCH)},
		{lab.Fields{"process.scheduler.nice"}, bundle.Scheduler(func(s *specs.Scheduler) { s.Nice = 7 }),
			"stat, field 19", statField(19), "7"},
		{lab.Fields{"process.ioPriority.class"},
			bundle.IOPriority(func(p *specs.LinuxIOPriority) { p.Class = specs.IOPRIO_CLASS_BE }),
			"ioprio_get(2), class", ioClass, "2"},
		{lab.Fields{"process.ioPriority.priority"}, bundle.IOPriority(func(p *specs.LinuxIOPriority) { p.Priority = 6 }),
			"ioprio_get(2), priority", ioPriority, "6"},
		{lab.Fields{"linux.personality.domain"},
			func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} },
			"personality", procFile("personality"), "00000008"},
	}

	if !hasPersonality(perLinux32) {
		const field = "linux.personality.domain"
		q.Fact(field, "not asked: this machine has no 32-bit mode, and the kernel refuses PER_LINUX32")
		rows = slices.DeleteFunc(rows, func(r row) bool { return slices.Contains(r.covers, field) })
	}

	q.Step("one container with every field set")
	set := runc.Variant(q, b, "set", func(s *specs.Spec) {
		for _, row := range rows {
			row.set(s)
		}
	})
	q.Control("beside it one with none of them: what it shows must be something else")
	unset := runc.Variant(q, b, "unset", func(s *specs.Spec) { s.Process.NoNewPrivileges = false })
	with, without := set.CreateAndStart().PID, unset.CreateAndStart().PID

	q.Step("what config.json says stands in /proc, and not where it does not say it")
	var ignored []string
	for _, row := range rows {
		field, got, plain := row.covers[0], row.read(with), row.read(without)
		assert.Check(q, plain != row.want, "%s: %s reads %q without the field too", field, row.where, plain)
		if got == plain && isNew(field) && !q.UnderTest("runc").Pinned {
			q.Fact(field, "ignored by this runtime: "+row.where+" reads "+got)
			ignored = append(ignored, field)
			continue
		}
		assert.Check(q, cmp.Equal(got, row.want), "%s: what %s reads", field, row.where)
		q.Covers(row.covers...)
		q.Fact(field, row.where+": "+got+" (without: "+plain+")")
	}

	q.Step("`runc exec --process` has the same fields in a file, for a program that comes later")
	later := runc.ExecProcess(q, unset, set.Bundle.Spec.Process)
	var followed []string
	// runc 1.5.2 keeps these with the container, and gives them to each of its processes. The specification does not describe exec.
	ofContainer := []string{"process.user.umask", "process.oomScoreAdj"}
	for _, row := range rows {
		field := row.covers[0]
		// The personality is no field of process. What the runtime ignores for the first program, it may ignore here too.
		if !strings.HasPrefix(field, "process.") || slices.Contains(ignored, field) {
			continue
		}
		got, name := row.read(later.PID), strings.TrimPrefix(field, "process.")
		if slices.Contains(ofContainer, field) && got != row.want {
			assert.Check(q, cmp.Equal(got, row.read(without)), "runc exec --process, %s: what %s reads is neither that of the file "+
				"nor that of the container's first program", field, row.where)
			q.Fact("runc exec --process: "+name, "ignored: it is that of the container's first program")
			continue
		}
		assert.Check(q, cmp.Equal(got, row.want), "runc exec --process, %s: what %s reads", field, row.where)
		followed = append(followed, name)
	}
	q.Fact("runc exec --process: fields with the same effect", followed)

	q.Step("HOME, if env has no value for it, is the directory of the user in the container's own /etc/passwd")
	const home = "/cdb-home"
	q.WriteLine(b.Rootfs("etc", "passwd"), "root:x:0:0:root:"+home+":/bin/sh")
	for _, row := range []struct {
		name, what, want string
		env              []string
		uid              uint32
	}{
		{"home-absent", "no HOME", home, []string{"PATH=/bin"}, 0},
		{"home-empty", "HOME=", home, []string{"PATH=/bin", "HOME="}, 0},
		{"home-set", "HOME=/mine", "/mine", []string{"PATH=/bin", "HOME=/mine"}, 0},
		{"home-unknown", "no HOME, and a user that /etc/passwd does not have", "/", []string{"PATH=/bin"}, 4321},
	} {
		c := runc.Variant(q, b, row.name, func(s *specs.Spec) { s.Process.Env, s.Process.User.UID = row.env, row.uid })
		for who, p := range map[string]proc.Process{
			"the first program":   c.CreateAndStart(),
			"an executed program": runc.ExecProcess(q, c, c.Bundle.Spec.Process),
		} {
			homes := slices.DeleteFunc(p.Env, func(v string) bool { return !strings.HasPrefix(v, "HOME=") })
			assert.Check(q, cmp.DeepEqual(homes, []string{"HOME=" + row.want}), "with %s, HOME of %s", row.what, who)
		}
		q.Fact("HOME, with "+row.what, row.want)
	}

	q.Answer("In /proc/PID: `runc init` sets each field as an attribute of itself, and execve keeps them.")
}

// perLinux32 is PER_LINUX32 of linux/personality.h.
const perLinux32 = 8

// hasPersonality reports whether the kernel accepts a personality. An arm64 processor without AArch32 has no PER_LINUX32.
func hasPersonality(domain uintptr) bool {
	accepted := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its personality
		_, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, domain, 0, 0)
		accepted <- errno == 0
	}()
	return <-accepted
}

// Real-time and deadline scheduling: process.scheduler has a field for each argument of sched_setattr(2).
//
// A deadline is three numbers: so much run time, before the deadline, in each period. Its process can have no children
// unless the flag SCHED_FLAG_RESET_ON_FORK says that they begin as ordinary ones. Where the cgroup has no real-time
// budget, the kernel refuses, and so does create.
//
// Hint: ask sched_getattr(2), and read fields 40 and 41 of /proc/PID/stat.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
// Kernel: https://man7.org/linux/man-pages/man7/sched.7.html
func TestBundle_WhichSchedulerRunsTheProgram(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which scheduler runs the program?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")

	for _, row := range []struct {
		name      string
		scheduler specs.Scheduler
		covers    lab.Fields
		describe  func(a *unix.SchedAttr) string
		want      string
	}{
		{"fifo", specs.Scheduler{Policy: specs.SchedFIFO, Priority: 3}, lab.Fields{"process.scheduler.priority"},
			func(a *unix.SchedAttr) string { return fmt.Sprintf("policy %d, priority %d", a.Policy, a.Priority) },
			"policy 1, priority 3"},
		{"deadline", specs.Scheduler{Policy: specs.SchedDeadline, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork},
			Runtime: 3e6, Deadline: 20e6, Period: 30e6},
			lab.Fields{"process.scheduler.flags", "process.scheduler.runtime", "process.scheduler.deadline",
				"process.scheduler.period"},
			func(a *unix.SchedAttr) string {
				return fmt.Sprintf("policy %d, flags %d, %d ns before %d of %d", a.Policy, a.Flags, a.Runtime, a.Deadline, a.Period)
			}, "policy 6, flags 1, 3000000 ns before 20000000 of 30000000"},
	} {
		q.Run(row.name, func(q *lab.Q) {
			fields := strings.Join(row.covers, " ")
			q.Step("%s: sched_getattr(2) returns what config.json says", row.name)
			c := runc.Variant(q, b, row.name, func(s *specs.Spec) { s.Process.Scheduler = &row.scheduler })
			if r := c.Try("create"); r.Code != 0 {
				// The kernel refuses, not the runtime: the cgroup has no real-time budget, or the lab may not use all CPUs.
				assert.Check(q, cmp.Regexp("(?i)sched", r.Stderr), "create fails for another reason")
				q.Fact(fields, "refused: "+runc.LastLogMessage(r))
				q.Skip("this kernel lets no process in this cgroup have the policy: " + runc.LastLogMessage(r))
			}
			pid := c.State().Pid
			c.Start()
			proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
			attr, err := unix.SchedGetAttr(pid, 0)
			assert.NilError(q, err)
			if attr.Policy == 0 && !q.UnderTest("runc").Pinned {
				q.Fact(fields, "ignored by this runtime")
				q.Skip("this runtime does not know process.scheduler")
			}
			got := row.describe(attr)
			assert.Check(q, cmp.Equal(got, row.want), fields)
			q.Covers(row.covers...)
			q.Fact(fields, got)
		})
	}

	q.Control("without the field, the program has the ordinary policy and no priority")
	plain, err := unix.SchedGetAttr(int(runc.Variant(q, b, "ordinary").CreateAndStart().PID), 0)
	assert.NilError(q, err)
	// Newer kernels have a run time for ordinary programs too: their slice.
	assert.Check(q, cmp.Equal(fmt.Sprint(plain.Policy, plain.Priority, plain.Deadline, plain.Period), "0 0 0 0"))
	q.Fact("policy without the field", plain.Policy)

	q.Answer("The one that process.scheduler names, with its numbers, if the kernel grants it; otherwise create fails.")
}

// The CPUs of a program that comes later: execCPUAffinity is for runc exec alone.
//
// The initial affinity holds while the runtime gets ready, the final one when the program is in the container's cgroup.
// Where no final one is given, the kernel decides: 6.18 on cgroup v1 kept the initial one, 6.1 on v2 forgot it when the
// process was moved into the container's cgroup. The container's first program has neither.
//
// Hint: which CPUs may the container's program use, and which ones a program that runc exec starts in the container?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
// Kernel: https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html
func TestBundle_OnWhichCPUsDoesAnExecutedProgramRun(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "On which CPUs does an executed program run?")
	defer q.Recover()
	var allowed unix.CPUSet // to the lab itself
	assert.NilError(q, unix.SchedGetaffinity(0, &allowed))
	var cpus []string
	for cpu := 0; len(cpus) < 2 && cpu < 1024; cpu++ {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, strconv.Itoa(cpu))
		}
	}
	if len(cpus) < 2 {
		q.Skip("one CPU: an affinity cannot differ from no affinity")
	}
	b := bundle.Busybox(q, "sleep", "300")

	// What the container's cgroup allows. The affinity of the lab itself may be narrower.
	unbound := runc.Variant(q, b, "unbound")
	unbound.Create()
	all := cgroup.Of(q, unbound.Bundle.Spec.Linux.CgroupsPath).CPUs()
	for _, row := range []struct{ name, initial, final, want string }{
		{"initial", cpus[0], "", cpus[0]},
		{"final", cpus[0], cpus[1], cpus[1]},
		{"neither", "", "", all},
	} {
		fact := "process.execCPUAffinity." + row.name
		if row.initial == "" {
			q.Control("without execCPUAffinity")
			fact = "without process.execCPUAffinity"
		} else {
			q.Step("initial %q, final %q", row.initial, row.final)
		}
		c := runc.Variant(q, b, row.name, func(s *specs.Spec) {
			if row.initial != "" {
				s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: row.initial, Final: row.final}
			}
		})
		first := c.CreateAndStart()
		assert.Check(q, cmp.Equal(proc.Status(q, first.PID, "Cpus_allowed_list"), all),
			"CPUs of the container's first program")
		_, got, _ := strings.Cut(q.Must("runc", "--root", c.Root, "exec", c.ID, "grep", "Cpus_allowed_list",
			"/proc/self/status").Stdout, ":")
		got = strings.TrimSpace(got)
		if row.final != "" && got == all && !q.UnderTest("runc").Pinned {
			q.Fact(fact, "the executed program may use all CPUs")
			continue
		}
		if row.initial != "" && row.final == "" && got == all {
			q.Fact(fact, "not there any more, or ignored: the executed program may use CPU "+got)
			continue
		}
		assert.Check(q, cmp.Equal(got, row.want), "Cpus_allowed_list of the executed program")
		if row.final != "" {
			q.Covers("process.execCPUAffinity.final")
		}
		q.Fact(fact, "the executed program may use CPU "+got)
	}

	q.Step("the caller of runc is bound to CPU %s: the container's programs are not", cpus[0])
	q.LogCommand("taskset -cp %s $$   # binds the shell that calls runc", cpus[0])
	c := runc.Variant(q, b, "bound-caller")
	proc.BoundTo(q, check.Int(q, cpus[0]), func() {
		first := c.CreateAndStart()
		assert.Check(q, cmp.Equal(proc.Status(q, first.PID, "Cpus_allowed_list"), all),
			"CPUs of the first program, whose caller is bound to CPU %s: it must have those of its cgroup", cpus[0])
		executed := runc.ExecSleep(q, c, "bound-exec")
		assert.Check(q, cmp.Equal(proc.Status(q, executed.PID, "Cpus_allowed_list"), all),
			"CPUs of an executed program, whose caller is bound to CPU %s: it must have those of its cgroup", cpus[0])
		q.Fact("with a caller that is bound to one CPU, the programs may use CPU", proc.Status(q, executed.PID, "Cpus_allowed_list"))
	})

	q.Answer("On those of execCPUAffinity.final; on those of initial at most until then. The first program is not bound.")
}

// What root may do is a set of bits, and each is asked about by name.
//
// config.json has five sets. `runc init` has them as they are written; execve(2) then makes the program's own. For root
// these are whatever the bounding set has, so that a smaller permitted set is worth nothing, unless noNewPrivileges
// keeps it; for another user only what is ambient is left. An act that needs a bit that is missing fails, root or not.
//
// Hint: compare the masks Cap* of /proc/PID/status after create and after start, as root and as another user.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
// Kernel: https://man7.org/linux/man-pages/man7/capabilities.7.html
func TestBundle_WhatMayRootDo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What may the container's root do?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")

	sets := map[string][]string{
		"process.capabilities.bounding":    {"CAP_KILL", "CAP_CHOWN", "CAP_MKNOD", "CAP_NET_RAW", "CAP_FOWNER"},
		"process.capabilities.permitted":   {"CAP_KILL", "CAP_CHOWN", "CAP_MKNOD", "CAP_NET_RAW"},
		"process.capabilities.effective":   {"CAP_KILL", "CAP_CHOWN", "CAP_MKNOD"},
		"process.capabilities.inheritable": {"CAP_KILL", "CAP_CHOWN"},
		"process.capabilities.ambient":     {"CAP_KILL"},
	}
	edit := func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{
			Bounding:    sets["process.capabilities.bounding"],
			Permitted:   sets["process.capabilities.permitted"],
			Effective:   sets["process.capabilities.effective"],
			Inheritable: sets["process.capabilities.inheritable"],
			Ambient:     sets["process.capabilities.ambient"],
		}
	}
	bit := map[string]int{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_FOWNER": unix.CAP_FOWNER, "CAP_KILL": unix.CAP_KILL, "CAP_MKNOD": unix.CAP_MKNOD,
		"CAP_NET_RAW": unix.CAP_NET_RAW,
	}
	// mask returns the set of a field as /proc/PID/status shows it.
	mask := func(field string) (bits proc.Mask) {
		for _, capability := range sets[field] {
			bits |= 1 << bit[capability]
		}
		return bits
	}
	bounding, ambient := mask("process.capabilities.bounding"), mask("process.capabilities.ambient")
	permitted, inheritable := mask("process.capabilities.permitted"), mask("process.capabilities.inheritable")
	lines := []struct {
		covers                    lab.Fields
		name                      string    // of the line of /proc/PID/status
		root, noNewPrivs, another proc.Mask // what execve makes of it, for each of the users below
	}{
		{lab.Fields{"process.capabilities.bounding"}, "CapBnd", bounding, bounding, bounding},
		{lab.Fields{"process.capabilities.permitted"}, "CapPrm", bounding, permitted, ambient},
		{lab.Fields{"process.capabilities.effective"}, "CapEff", bounding, permitted, ambient},
		{lab.Fields{"process.capabilities.inheritable"}, "CapInh", inheritable, inheritable, inheritable},
		{lab.Fields{"process.capabilities.ambient"}, "CapAmb", ambient, ambient, ambient},
	}
	for _, user := range []struct {
		name       string
		uid        uint32
		noNewPrivs bool
	}{{"root", 0, false}, {"promised", 0, true}, {"user", 1000, false}} {
		q.Step("five different sets, uid %d, noNewPrivileges %t: `runc init` has them as written", user.uid, user.noNewPrivs)
		c := runc.Variant(q, b, "sets-"+user.name, edit, func(s *specs.Spec) {
			s.Process.User.UID, s.Process.NoNewPrivileges = user.uid, user.noNewPrivs
		})
		c.Create()
		pid := proc.PID(c.State().Pid)
		subject := fmt.Sprintf("uid %d, noNewPrivileges %t, ", user.uid, user.noNewPrivs)
		for _, line := range lines {
			field, got := line.covers[0], proc.Bits(q, pid, line.name)
			assert.Check(q, cmp.Equal(got, mask(field)), "%s → %s of runc init", field, line.name)
			q.Covers(line.covers...)
			q.Fact(subject+"runc init: "+field, line.name+" "+got.String())
		}
		q.Step("execve makes the program's of them")
		c.Start()
		proc.WaitFor(q, proc.Runs(pid, "sleep"))
		for _, line := range lines {
			want := map[string]proc.Mask{"root": line.root, "promised": line.noNewPrivs, "user": line.another}[user.name]
			got := proc.Bits(q, pid, line.name)
			assert.Check(q, cmp.Equal(got, want), "%s → %s of the program, %s", line.covers[0], line.name, user.name)
			q.Fact(subject+"program: "+line.name, got)
		}
	}

	q.Step("root with no capability at all: what it may not do")
	none, sh, _ := runc.StartWithShell(q, b, "none", bundle.ScratchAtTmp, func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{}
	})
	// Make the files that the commands below need, as far as that needs no capability.
	assert.Equal(q, sh.Run("touch /tmp/mine && mkdir /tmp/dir").Code, 0)
	rows := []struct{ capability, act string }{
		{"CAP_CHOWN", "chown 1 /tmp/mine"},
		{"CAP_DAC_OVERRIDE", "echo >> /tmp/theirs"},
		{"CAP_FOWNER", "chmod 600 /tmp/theirs"},
		{"CAP_MKNOD", "mknod /tmp/null c 1 3"},
		{"CAP_SYS_ADMIN", "mount -t tmpfs tmpfs /tmp/dir"},
		{"CAP_SYS_CHROOT", "chroot / true"},
		{"CAP_SYS_NICE", "renice -n -5 -p $$"},
		{"CAP_NET_RAW", "ping -c 1 127.0.0.1"},
		{"CAP_NET_ADMIN", "ip link set dev lo mtu 1400"},
		{"CAP_NET_BIND_SERVICE", "httpd -p 127.0.0.1:80 -h /tmp"},
		{"CAP_SETGID", "start-stop-daemon -S -c 0:1000 -x /bin/true"},
	}
	// A file that another user owns: only a process with CAP_CHOWN can make one.
	q.Must("runc", "--root", none.Root, "exec", "--cap", "CAP_CHOWN", none.ID, "sh", "-c",
		"touch /tmp/theirs && chown 1 /tmp/theirs && chmod 600 /tmp/mine")
	for _, row := range rows {
		r := sh.Run(row.act)
		assert.Check(q, r.Code != 0, "%q succeeds without %s", row.act, row.capability)
		assert.Check(q, cmp.Regexp("(?i)permi(tted|ssion)", r.Out), "%q fails for another reason than a missing %s",
			row.act, row.capability)
		q.Fact("without "+row.capability, row.act+" fails: "+check.LastLine(r.Out))
	}

	q.Control("the same root with exactly the one capability")
	for _, row := range rows {
		r := q.Exec("runc", "--root", none.Root, "exec", "--cap", row.capability, none.ID, "sh", "-c", row.act)
		assert.Check(q, cmp.Equal(r.Code, 0), "%q fails with %s:\n%s", row.act, row.capability, r)
		q.Fact("with "+row.capability, row.act+" succeeds")
	}

	q.Answer("What its bounding set has, and with noNewPrivileges its permitted set: any other act fails, root or not.")
}

// A setuid program gives the rights of its owner to the caller, unless the process has promised to want none.
//
// no_new_privs is such a promise, kept by the kernel at each execve(2) and inherited by every child: the set-user-ID bit
// of a file is then as good as not there. The mount option nosuid does the same for all files of a mount.
//
// Hint: does a setuid ping get its raw socket when another user than root calls it?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
// Kernel: https://docs.kernel.org/userspace-api/no_new_privs.html
func TestBundle_WhatDoesNoNewPrivilegesPrevent(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does noNewPrivileges prevent?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")

	// Busybox gives up the rights of a setuid bit at once, except in few of its programs. In ping it opens the socket first.
	program, err := os.ReadFile(b.Rootfs("bin", "busybox"))
	assert.NilError(q, err)
	for _, dir := range []string{"suid", "nosuid", "plain"} {
		assert.NilError(q, os.Mkdir(b.Rootfs(dir), 0o755))
		assert.NilError(q, os.WriteFile(b.Rootfs(dir, "ping"), program, 0o755))
		mode := os.FileMode(0o755)
		if dir != "plain" {
			mode |= os.ModeSetuid
		}
		assert.NilError(q, os.Chmod(b.Rootfs(dir, "ping"), mode))
		q.LogCommand("mkdir bundle/rootfs/%[1]s; cp bundle/rootfs/bin/busybox bundle/rootfs/%[1]s/ping; "+
			"chmod %04[2]o bundle/rootfs/%[1]s/ping",
			dir, map[bool]int{true: 0o755, false: 0o4755}[dir == "plain"])
	}
	edit := func(noNewPrivs bool) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Process.NoNewPrivileges = noNewPrivs
			s.Process.User.UID = 1000
			// Root can have the capabilities of the bounding set. The user does not have them, because they are in no other set.
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_NET_RAW", "CAP_SETUID"}}
			// Where the bundle lies may itself be mounted nosuid: give the files mounts of their own, with copies of them.
			for _, mount := range []struct{ destination, option string }{
				{"/suid", "suid"}, {"/nosuid", "nosuid"}, {"/plain", "suid"},
			} {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: mount.destination, Type: "tmpfs", Source: "tmpfs",
					Options: []string{mount.option, "exec", "tmpcopyup", "mode=755"}})
			}
		}
	}

	for _, row := range []struct {
		name       string
		noNewPrivs bool
		status     string // NoNewPrivs of /proc/PID/status
	}{{"promised", true, "1"}, {"free", false, "0"}} {
		subject := fmt.Sprintf("noNewPrivileges %t: ", row.noNewPrivs)
		if row.noNewPrivs {
			q.Step("noNewPrivileges: true")
		} else {
			q.Control("noNewPrivileges: false")
		}
		_, sh, p := runc.StartWithShell(q, b, row.name, edit(row.noNewPrivs))
		assert.Check(q, cmp.Equal(proc.Status(q, p.PID, "NoNewPrivs"), row.status), "NoNewPrivs of /proc/PID/status")
		assert.Check(q, cmp.Equal(sh.Run("grep NoNewPrivs /proc/self/status").Out, "NoNewPrivs:\t"+row.status),
			"a child inherits it")
		q.Covers("process.noNewPrivileges")
		q.Fact(subject+"NoNewPrivs of the process", row.status)
		assert.Check(q, cmp.Equal(sh.Run("stat -c '%u %a' /suid/ping /nosuid/ping /plain/ping").Out, "0 4755\n0 4755\n0 755"))
		for _, program := range []struct {
			path string
			may  bool // the program has what its owner may do
		}{{"/suid/ping", !row.noNewPrivs}, {"/nosuid/ping", false}, {"/plain/ping", false}} {
			r := sh.Run(program.path + " -c 1 127.0.0.1")
			assert.Check(q, cmp.Equal(r.Code == 0, program.may), "uid 1000, NoNewPrivs %s, %s opens a raw socket: %s",
				row.status, program.path, r.Out)
			q.Fact(subject+program.path, map[bool]string{true: "opens a raw socket", false: check.LastLine(r.Out)}[r.Code == 0])
		}
	}

	q.Answer("That execve gives more than the process has: a setuid bit no longer counts, for it and all its children.")
}

// A limit is two numbers: the soft one bites, and the hard one is how far the process itself may raise it.
//
// rlimits become lines of /proc/PID/limits. What goes over a limit fails with an error of its own (EMFILE) or ends by a
// signal (SIGXFSZ). Every process may lower its limits; only a process with CAP_SYS_RESOURCE may go above the hard limit.
//
// Hint: read /proc/PID/limits, then open too many files, and write too long a one.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-process
// Kernel: https://man7.org/linux/man-pages/man2/getrlimit.2.html
func TestBundle_WhatHappensAtALimit(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens at a limit?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")

	var rlimits []specs.POSIXRlimit
	rows := []struct {
		typ, line  string
		soft, hard uint64
	}{
		{"RLIMIT_AS", "Max address space", 1 << 41, 1 << 42},
		{"RLIMIT_CORE", "Max core file size", 4096, 8192},
		{"RLIMIT_CPU", "Max cpu time", 1000, 2000},
		{"RLIMIT_DATA", "Max data size", 1 << 41, 1 << 42},
		{"RLIMIT_FSIZE", "Max file size", 16384, 32768},
		{"RLIMIT_LOCKS", "Max file locks", 101, 102},
		{"RLIMIT_MEMLOCK", "Max locked memory", 4096, 8192},
		{"RLIMIT_MSGQUEUE", "Max msgqueue size", 4096, 8192},
		{"RLIMIT_NICE", "Max nice priority", 1, 2},
		{"RLIMIT_NOFILE", "Max open files", 32, 64},
		{"RLIMIT_NPROC", "Max processes", 1001, 1002},
		{"RLIMIT_RSS", "Max resident set", 1 << 41, 1 << 42},
		{"RLIMIT_RTPRIO", "Max realtime priority", 1, 2},
		{"RLIMIT_RTTIME", "Max realtime timeout", 1e6, 2e6},
		{"RLIMIT_SIGPENDING", "Max pending signals", 101, 102},
		{"RLIMIT_STACK", "Max stack size", 1 << 20, 1 << 21},
	}
	// The lab may itself lack CAP_SYS_RESOURCE, and then cannot give a container a higher limit than its own.
	self := proc.PID(os.Getpid())
	mayRaise := proc.Bits(q, self, "CapEff").Has(unix.CAP_SYS_RESOURCE)
	ownHard := map[string]string{}
	for _, row := range rows {
		ownHard[row.typ] = proc.Limit(q, self, row.line)[1]
		hard, err := strconv.ParseUint(ownHard[row.typ], 10, 64)
		if unlimited := err != nil; unlimited || hard >= row.hard || mayRaise {
			rlimits = append(rlimits, specs.POSIXRlimit{Type: row.typ, Soft: row.soft, Hard: row.hard})
		}
	}

	q.Step("each type of rlimit is a line of /proc/PID/limits")
	_, sh, p := runc.StartWithShell(q, b, "limited", bundle.ScratchAtTmp, func(s *specs.Spec) { s.Process.Rlimits = rlimits })
	_, free, plain := runc.StartWithShell(q, b, "free", bundle.ScratchAtTmp, func(s *specs.Spec) { s.Process.Rlimits = nil })
	for _, row := range rows {
		want := [2]string{fmt.Sprint(row.soft), fmt.Sprint(row.hard)}
		got := proc.Limit(q, p.PID, row.line)
		if !slices.ContainsFunc(rlimits, func(r specs.POSIXRlimit) bool { return r.Type == row.typ }) {
			q.Logf("%s is left out: the lab may not raise its own, %s", row.typ, ownHard[row.typ])
			continue
		}
		assert.Check(q, cmp.Equal(got, want), "process.rlimits[], %s: soft and hard of %s", row.typ, row.line)
		assert.Check(q, proc.Limit(q, plain.PID, row.line) != want, "%s has these values without the field too", row.line)
		q.Covers("process.rlimits[].type", "process.rlimits[].soft", "process.rlimits[].hard")
		q.Fact("process.rlimits[].type "+row.typ, row.line+": "+strings.Join(got[:], " "))
	}

	q.Step("where it bites")
	var files []string
	for i := range 40 {
		files = append(files, fmt.Sprintf("/tmp/%d", i))
	}
	bites := []struct{ what, act, wantOutput string }{
		{"EMFILE at the 32nd file", "tee " + strings.Join(files, " ") + " < /dev/null", "Too many open files"},
		// 128 + 25: the status by which the shell reports that SIGXFSZ has ended the program.
		{"SIGXFSZ at the 16385th byte", "dd if=/dev/zero of=/tmp/long bs=1k count=64; echo status $?",
			fmt.Sprintf("status %d", 128+int(unix.SIGXFSZ))},
	}
	for _, bite := range bites {
		r := sh.Run(bite.act)
		assert.Check(q, cmp.Contains(r.Out, bite.wantOutput), bite.what)
		q.Fact(bite.what, check.LastLine(r.Out))
	}
	assert.Check(q, cmp.Equal(sh.Run("stat -c %s /tmp/long").Out, "16384"), "the file ends at the limit")

	q.Step("the soft limit may go up to the hard one, and no further")
	limit := func(field, how, want string) {
		r := sh.Run("(ulimit " + how + " && ulimit -n) 2>&1")
		assert.Check(q, cmp.Contains(r.Out, want), "%s: ulimit %s", field, how)
		q.Fact(field+": ulimit "+how, check.LastLine(r.Out))
	}
	limit("process.rlimits[].soft", "-Sn 64", "64")
	limit("process.rlimits[].hard", "-Sn 65", "Invalid argument")
	limit("process.rlimits[].hard", "-Hn 65", "Operation not permitted")

	q.Step("the container's limits are those of config.json, and not those of the caller of runc")
	const line, callersSoft = "Max open files", 256
	ownHardest, err := strconv.ParseUint(proc.Limit(q, self, line)[1], 10, 64)
	assert.NilError(q, err, "the kernel allows no unlimited number of open files")
	// Go remembers the soft limit that its process began with, and restores it in each program that it starts. With runc 1.1.12
	// the container got the caller's limit so. The kernel refuses that only if the container's hard limit is below the caller's.
	high := runc.Variant(q, b, "high", func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: ownHardest - 1, Hard: ownHardest}}
	})
	callerLowers := fmt.Sprintf("ulimit -Sn %d", callersSoft)
	first := high.StartAfter(callerLowers)
	wantHigh := [2]string{fmt.Sprint(ownHardest - 1), fmt.Sprint(ownHardest)}
	assert.Check(q, cmp.Equal(proc.Limit(q, first.PID, line), wantHigh),
		"%s of the first program, called by a shell with the soft limit %d", line, callersSoft)
	executed := strings.Fields(high.ExecAfter(callerLowers, "sh", "-c", "ulimit -Sn; ulimit -Hn"))
	assert.Check(q, cmp.DeepEqual(executed, wantHigh[:]), "soft and hard limit of open files of an executed program, "+
		"called by a shell with the soft limit %d", callersSoft)
	q.Fact("limits with a caller whose soft limit is lower", "those of config.json, also of an executed program")

	q.Control("the same acts in a container without limits")
	for _, bite := range bites {
		r := free.Run(bite.act)
		assert.Check(q, !strings.Contains(r.Out, bite.wantOutput), "%s without a limit: %s", bite.what, r.Out)
	}
	assert.Check(q, cmp.Equal(free.Run("stat -c %s /tmp/long").Out, "65536"), "the file is written whole")
	q.Fact("without limits", "40 files open, 65536 bytes written")

	q.Answer("What goes over the soft limit fails by an error or a signal; the hard one is how far that can be raised.")
}
