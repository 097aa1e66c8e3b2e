//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"al.essio.dev/pkg/shellescape"
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
	"cdblab/helpers/seccomp"
)

// Each field of process becomes an attribute of the container's process, and /proc/PID shows nearly all of them.
//
// `runc init` sets most of them in itself, one by one: OOM score, umask, priorities, groups, user, directory. Its parent, runc, sets
// the limits from outside, by prlimit(2). The arguments and the environment come with execve(2). It keeps the fields that were set
// before, except for the capabilities, which it computes again. An AppArmor profile applies from it on. A runtime ignores a field that
// it does not know, without an error, and the process is as it is without the field.
//
// Hint: read status, stat, limits, environ, cwd and personality of /proc/PID beside config.json, line by line.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html, https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
func TestBundle_WhereDoesTheKernelShowWhatProcessSays(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does the kernel show what process says?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	rows := processFields(q)
	if !proc.HasPersonality(proc.PERLinux32) {
		const field = "linux.personality.domain"
		q.Fact(field, "not asked: this machine has no 32-bit mode, and the kernel refuses PER_LINUX32")
		rows = slices.DeleteFunc(rows, func(r processField) bool { return slices.Contains(r.covers, field) })
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

	q.Step("/proc shows what config.json says, and something else for the container without the fields")
	var ignored []string
	for _, row := range rows {
		field, got, plain := row.covers[0], row.read(with), row.read(without)
		assert.Check(q, plain != row.want, "%s: %s reads %q without the field too", field, row.where, plain)
		if got == plain && !knowsProcessField(q, field) {
			q.Fact(field, "ignored by this runtime: "+row.where+" reads "+got)
			ignored = append(ignored, field)
			continue
		}
		assert.Check(q, cmp.Equal(got, row.want), "%s: what %s reads", field, row.where)
		q.Covers(row.covers...)
		q.Fact(field, row.where+": "+got+" (without: "+plain+")")
	}

	q.Step("`runc exec --process` takes the fields from a file: in the same container, the program has all of the same")
	same := runc.ExecProcess(q, set, set.Bundle.Spec.Process)
	// setns_init_linux.go of runc 1.1.15 sets no umask, and that of runc 1.2.0 does. Both are newer than the scheduler there.
	keepsUmask := !runc.IsRunc(q) || runc.KnowsScheduler(q)
	for _, row := range rows {
		field := row.covers[0]
		if slices.Contains(ignored, field) || field == "process.user.umask" && !keepsUmask {
			continue
		}
		assert.Check(q, cmp.Equal(row.read(same.PID), row.want),
			"runc exec --process in the container that has the fields, %s: what %s reads", field, row.where)
	}

	q.Step("in the container without the fields, the program has those of the file. runc takes the umask and the OOM score from its caller")
	later := runc.ExecProcess(q, unset, set.Bundle.Spec.Process)
	var followed []string
	// runc takes these two from the container's configuration, never from the file of --process. If the configuration has none, an
	// executed program inherits its caller's. The specification does not describe exec.
	ofContainer, self := []string{"process.user.umask", "process.oomScoreAdj"}, proc.PID(os.Getpid())
	for _, row := range rows {
		field := row.covers[0]
		// The personality is no field of process. What the runtime ignores for the first program, it may ignore here too.
		if !strings.HasPrefix(field, "process.") || slices.Contains(ignored, field) {
			continue
		}
		got, name := row.read(later.PID), strings.TrimPrefix(field, "process.")
		if slices.Contains(ofContainer, field) && got != row.want {
			assert.Check(q, cmp.Equal(got, row.read(self)), "runc exec --process, %s: what %s reads is neither that of the file "+
				"nor that of the caller", field, row.where)
			q.Fact("runc exec --process: "+name, row.where+": "+got+", its caller's")
			continue
		}
		assert.Check(q, cmp.Equal(got, row.want), "runc exec --process, %s: what %s reads", field, row.where)
		followed = append(followed, name)
	}
	q.Fact("runc exec --process: fields with the same effect", followed)

	q.Step("without umask, the specification leaves the caller's: runc gives its own to the first program")
	assertUmaskOfRunc(q, runc.Variant(q, b, "umask"))

	q.Step("HOME, if env has no value for it, is the directory of the user in the container's own /etc/passwd")
	q.WriteLine(b.Rootfs("etc", "passwd"), "root:x:0:0:root:"+homeOfRoot+":/bin/sh")
	for _, row := range homeRows {
		c := runc.Variant(q, b, row.name, func(s *specs.Spec) { s.Process.Env, s.Process.User.UID = row.env, row.uid })
		homes := func(who string, p proc.Process) []string {
			homes := slices.DeleteFunc(p.Env, func(v string) bool { return !strings.HasPrefix(v, "HOME=") })
			assert.Check(q, cmp.DeepEqual(homes, []string{"HOME=" + row.want}), "with %s, HOME of %s", row.what, who)
			return homes
		}
		first := homes("the first program", c.CreateAndStart())
		homes("an executed program", runc.ExecProcess(q, c, c.Bundle.Spec.Process))
		q.Fact("HOME, with "+row.what, first)
	}

	q.Answer("The kernel shows each field in /proc/PID of the container's process, or by a system call. A program that " +
		"exec adds has the fields of the process that exec is given, except for the umask and the OOM score. runc takes these two from the " +
		"configuration that it recorded at create, or else from its caller.")
}

// processField is a field of process: what config.json says, where the kernel shows it, and what has to stand there.
type processField struct {
	covers lab.Fields
	set    func(*specs.Spec)
	where  string // in /proc/PID, or the system call that returns it
	read   func(proc.PID) string
	want   string
}

// processFields returns one row per field.
func processFields(q *lab.Q) []processField {
	q.Helper()
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

	return []processField{
		{lab.Fields{"process.args"}, func(s *specs.Spec) { s.Process.Args = []string{"sleep", "3601"} },
			"cmdline", func(pid proc.PID) string { return fmt.Sprint(proc.Snapshot(q, pid).Args) }, "[sleep 3601]"},
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
}

// knowsProcessField reports whether the runtime knows the field of a row of processFields.
//
// A runtime ignores a field that is newer than itself. runc 1.1.12 ignores those named here, and runc 1.2.0 applies them. For the
// personality, the text of a warning shows it: runc 1.1 also has the field's name, but does not apply the field.
func knowsProcessField(q *lab.Q, field string) bool {
	q.Helper()
	switch {
	case strings.HasPrefix(field, "process.scheduler."):
		return runc.KnowsScheduler(q)
	case strings.HasPrefix(field, "process.ioPriority."):
		return runc.KnowsSince(q, "ioPriority", "1.2.0-rc.1")
	case field == "linux.personality.domain":
		return runc.Knows(q, "unsupported personality flags")
	}
	return true
}

// assertUmaskOfRunc starts a container that has no umask in config.json, and a program in it, by a caller with the umask 077.
func assertUmaskOfRunc(q *lab.Q, c *runc.Container) {
	q.Helper()
	// runc sets 0022 when it has finished the rootfs (rootfs_linux.go), which it does not do for exec.
	const callerChanges, callersUmask = "umask 077", "0077"
	umasks := []string{
		proc.Status(q, c.StartAfter(callerChanges).PID, "Umask"),
		strings.Fields(c.ExecAfter(callerChanges, "grep", "Umask", "/proc/self/status"))[1],
	}
	if runc.IsRunc(q) {
		assert.Check(q, cmp.DeepEqual(umasks, []string{"0022", callersUmask}),
			"umask of the first and of an executed program, whose caller has the umask %s", callersUmask)
	}
	q.Fact("umask of the first and of an executed program, with a caller that has "+callersUmask, umasks)
}

const homeOfRoot = "/cdb-home" // in the container's /etc/passwd

// homeRow is an environment and a user of config.json, and the HOME that the program has then.
type homeRow struct {
	name       string // of the container
	what, want string // what config.json has, in words, and the HOME
	env        []string
	uid        uint32
}

var homeRows = []homeRow{
	{"home-absent", "no HOME", homeOfRoot, []string{"PATH=/bin"}, 0},
	{"home-empty", "HOME=", homeOfRoot, []string{"PATH=/bin", "HOME="}, 0},
	{"home-set", "HOME=/mine", "/mine", []string{"PATH=/bin", "HOME=/mine"}, 0},
	{"home-unknown", "no HOME, and a user that /etc/passwd does not have", "/", []string{"PATH=/bin"}, 4321},
}

// process.scheduler chooses the scheduling policy, such as real-time or deadline. It has the fields of the kernel's struct sched_attr
// (sched_setattr(2)).
//
// SCHED_DEADLINE has three numbers: in each period, the process gets the run time before the deadline. Such a process cannot fork,
// unless SCHED_FLAG_RESET_ON_FORK makes its children ordinary processes. The kernel refuses SCHED_FIFO and SCHED_RR where the cgroup has
// no real-time budget. It refuses SCHED_DEADLINE where the process may not use all CPUs. Then create fails.
//
// Hint: ask sched_getattr(2), and read fields 40 and 41 of /proc/PID/stat.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
// Kernel: https://man7.org/linux/man-pages/man7/sched.7.html
func TestBundle_WhichSchedulerRunsTheProgram(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which scheduler runs the program?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	q.Control("without the field, the program has the ordinary policy and no priority")
	ordinary := runc.Variant(q, b, "ordinary")
	plain := ordinary.CreateAndStart().PID
	without := proc.SchedulerOf(q, plain)
	assert.Check(q, cmp.Equal(without, proc.Scheduler{}), "scheduler of a program without process.scheduler")
	q.Fact("without the field", without)

	for _, row := range []struct {
		name      string
		scheduler specs.Scheduler
		covers    lab.Fields
		want      proc.Scheduler
	}{
		{"fifo", specs.Scheduler{Policy: specs.SchedFIFO, Priority: 3}, lab.Fields{"process.scheduler.priority"},
			proc.Scheduler{Policy: unix.SCHED_FIFO, Priority: 3}},
		{"rr", specs.Scheduler{Policy: specs.SchedRR, Priority: 4}, lab.Fields{"process.scheduler.policy"},
			proc.Scheduler{Policy: unix.SCHED_RR, Priority: 4}},
		{"deadline", specs.Scheduler{Policy: specs.SchedDeadline, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork},
			Runtime: 3e6, Deadline: 20e6, Period: 30e6},
			lab.Fields{"process.scheduler.flags", "process.scheduler.runtime", "process.scheduler.deadline",
				"process.scheduler.period"},
			proc.Scheduler{Policy: unix.SCHED_DEADLINE, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Runtime: 3e6, Deadline: 20e6, Period: 30e6}},
	} {
		q.Run(row.name, func(q *lab.Q) {
			fields := strings.Join(row.covers, " ")
			q.Step("%s: sched_getattr(2) returns what config.json says, for the first program and for an executed one", row.name)
			kernelSays := proc.TryScheduler(plain, row.want)
			c := runc.Variant(q, b, row.name, func(s *specs.Spec) { s.Process.Scheduler = &row.scheduler })
			created := c.Try("create")
			if kernelSays != nil && created.Code != 0 {
				runc.AssertMessage(q, created.Stderr, "sched")
				q.Fact(fields, "refused: "+runc.LastLogMessage(created))
				q.Skipf("this kernel gives no process of such a cgroup the policy (sched_setattr: %v): %s; to ask this, boot Debian's kernel: "+
					"make lab", kernelSays, runc.LastLogMessage(created))
			}
			assert.Assert(q, cmp.Equal(created.Code, 0), "create fails. The kernel says of this policy, for a process of such a cgroup: %v\n%s",
				kernelSays, created)
			pid := c.PID()
			c.Start()
			proc.WaitFor(q, proc.Runs(pid, "sleep"))
			got := proc.SchedulerOf(q, pid)
			if got == without && !runc.KnowsScheduler(q) {
				q.Fact(fields, fmt.Sprint("ignored by this runtime: ", got))
				q.Skip("this runtime does not know process.scheduler; to ask this with the pinned runc, leave out RUNC= and CDB_RUNC")
			}
			assert.Check(q, cmp.Equal(got, row.want), "%s: what sched_getattr(2) returns of the first program", fields)
			q.Covers(row.covers...)
			q.Fact(fields, got)
			// Not in the same container: runc 1.5.2 gives an executed program the container's scheduler, if its own process has none.
			executed := proc.SchedulerOf(q, runc.ExecProcess(q, ordinary, c.Bundle.Spec.Process).PID)
			assert.Check(q, cmp.Equal(executed, row.want), "runc exec --process, %s: what sched_getattr(2) returns of the executed program", fields)
			q.Fact("runc exec --process: "+fields, executed)
		})
	}

	q.Answer("The scheduler that process.scheduler names, with its numbers, runs the program. If the kernel refuses the " +
		"policy, create fails.")
}

// An executed program runs on the CPUs of process.execCPUAffinity, or of the container's cgroup without it. The field is for `runc exec`
// alone.
//
// `runc init` begins with the initial affinity, and gets the final one in the container's cgroup. Linux 6.18 keeps an affinity when it
// puts a process into a cgroup, and Linux 6.1 does not. On cgroup v2, runc 1.4 and newer start `runc init` in the cgroup, so on Linux 6.1
// the initial affinity is never seen there. The container's first program has neither.
//
// Hint: which CPUs may the container's program use, and which ones a program that runc exec starts in the container?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
// Kernel: https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html
func TestBundle_OnWhichCPUsDoesAnExecutedProgramRun(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "On which CPUs does an executed program run?")
	defer q.Recover()
	cpus := twoCPUs(q)
	b := bundle.Busybox(q, "sleep", "3600")
	cpusOf := func(pid proc.PID) string { return proc.Status(q, pid, "Cpus_allowed_list") }
	// What the container's cgroup allows. The affinity of the lab itself may be narrower.
	unbound := runc.Variant(q, b, "unbound")
	unbound.Create()
	group := cgroup.Of(q, unbound.Bundle.Spec.Linux.CgroupsPath)
	all := group.CPUs()

	q.Step("without runc: a process that is bound to CPU %s is moved into a container's cgroup. Does the kernel keep its affinity?", cpus[0])
	afterMove := moveBoundProcess(q, cpus[0], group)
	q.Fact("CPUs of a bound process that is moved into a cgroup", afterMove)

	// runc has the field since 1.3.0-rc.1. An older one ignores it.
	knows := runc.KnowsSince(q, "execCPUAffinity", "1.3.0-rc.1")
	for _, row := range []struct{ name, initial, final, want string }{
		{"initial", cpus[0], "", afterMove},
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
		assert.Check(q, cmp.Equal(cpusOf(c.CreateAndStart().PID), all), "CPUs of the container's first program")
		// With --debug, runc init writes the affinity that it begins with (log_cpu_affinity in nsexec.c).
		executed := q.Must("runc", "--debug", "--root", c.Root, "exec", c.ID, "grep", "Cpus_allowed_list", "/proc/self/status")
		_, got, _ := strings.Cut(executed.Stdout, ":")
		got = strings.TrimSpace(got)
		if row.initial != "" && got == all && !knows {
			q.Fact(fact, "ignored by this runtime: the executed program may use CPU "+got)
			continue
		}
		assert.Check(q, cmp.Equal(got, row.want), "initial %q, final %q: Cpus_allowed_list of the executed program", row.initial, row.final)
		if row.initial != "" && knows && runc.IsRunc(q) {
			begins := regexp.MustCompile(`affinity: 0x[0-9a-f]+`).FindString(executed.Stderr)
			wantBegins := fmt.Sprintf("affinity: %#x", 1<<check.Int(q, row.initial))
			// On v2 runc 1.4.0-rc.2 and newer start runc init in the container's cgroup. A kernel that does not keep the affinity has
			// dropped the initial one already, and whether runc has set it cannot be seen.
			if mayBeLost := group.V2 && afterMove != cpus[0]; mayBeLost && begins != wantBegins {
				assert.Check(q, begins != "", "runc --debug exec does not log the affinity that runc init begins with:\n%s", executed)
				q.Fact(fact+": not visible on this kernel, runc init begins with", begins)
			} else {
				assert.Check(q, cmp.Equal(begins, wantBegins), "initial %q: the affinity that runc init begins with", row.initial)
				q.Covers("process.execCPUAffinity.initial")
				q.Fact(fact+": runc init begins with", begins)
			}
		}
		if row.final != "" {
			q.Covers("process.execCPUAffinity.final")
		}
		q.Fact(fact, "the executed program may use CPU "+got)
	}

	q.Step("`runc exec --process` takes the affinity from a file")
	ofFile := *unbound.Bundle.Spec.Process
	ofFile.ExecCPUAffinity = &specs.CPUAffinity{Initial: cpus[0], Final: cpus[1]}
	unbound.Start()
	got, want := cpusOf(runc.ExecProcess(q, unbound, &ofFile).PID), cpus[1]
	if !knows {
		want = all
	}
	assert.Check(q, cmp.Equal(got, want), "runc exec --process, final %q: CPUs of the executed program", cpus[1])
	q.Fact("runc exec --process: the executed program may use CPU", got)

	q.Step("the caller of runc is bound to CPU %s: the container's programs are not", cpus[0])
	q.LogCommand("taskset -cp %s $$   # binds the shell that calls runc", cpus[0])
	c := runc.Variant(q, b, "bound-caller")
	proc.BoundTo(q, check.Int(q, cpus[0]), func() {
		assert.Check(q, cmp.Equal(cpusOf(c.CreateAndStart().PID), all),
			"CPUs of the first program, whose caller is bound to CPU %s: it must have those of its cgroup", cpus[0])
		executed := cpusOf(runc.ExecSleep(q, c, "bound-exec").PID)
		assert.Check(q, cmp.Equal(executed, all),
			"CPUs of an executed program, whose caller is bound to CPU %s: it must have those of its cgroup", cpus[0])
		q.Fact("with a caller that is bound to one CPU, the programs may use CPU", executed)
	})

	q.Answer("An executed program runs on the CPUs of execCPUAffinity.final. The initial affinity lasts until the kernel puts the process " +
		"into the container's cgroup, and longer if the kernel keeps it. The container's first program has neither.")
}

// twoCPUs returns the numbers of two CPUs that the lab may use.
func twoCPUs(q *lab.Q) (cpus []string) {
	q.Helper()
	var allowed unix.CPUSet // to the lab itself
	assert.NilError(q, unix.SchedGetaffinity(0, &allowed))
	for cpu := 0; len(cpus) < 2 && cpu < 1024; cpu++ {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, strconv.Itoa(cpu))
		}
	}
	if len(cpus) < 2 {
		q.Skip("one CPU: an affinity cannot differ from no affinity; to ask this, take a machine with two: make lab CPUS=2")
	}
	return cpus
}

// moveBoundProcess binds a process to a CPU, moves it into a container's cgroup, and returns the CPUs that it may use then.
func moveBoundProcess(q *lab.Q, cpu string, group cgroup.Group) string {
	q.Helper()
	var moved *lab.Background
	proc.BoundTo(q, check.Int(q, cpu), func() { moved = q.StartBackground("sleep", "3600") })
	assert.Check(q, cmp.Equal(proc.Status(q, moved.PID(), "Cpus_allowed_list"), cpu), "CPUs of the bound process before it is moved")
	group.Add(moved.PID())
	afterMove := proc.Status(q, moved.PID(), "Cpus_allowed_list")
	moved.Signal(unix.SIGKILL)
	moved.ExitCode()
	all := group.CPUs()
	assert.Check(q, afterMove == cpu || afterMove == all, "the moved process may use CPU %s: neither its own %s nor all of the cgroup, %s",
		afterMove, cpu, all)
	return afterMove
}

// What root may do is a set of bits, its capabilities. The kernel asks for one of them by name at each privileged act.
//
// config.json has five sets. `runc init` has them as they are written; execve(2) then makes the program's own. For root, execve(2) gives
// the capabilities of the bounding set, so a smaller permitted set has no effect. With noNewPrivileges, root keeps the permitted set.
// Another user keeps the ambient set alone. An act that needs a bit that is missing fails, root or not.
//
// Hint: compare the masks Cap* of /proc/PID/status after create and after start, as root and as another user.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
// Kernel: https://man7.org/linux/man-pages/man7/capabilities.7.html
func TestBundle_WhatMayRootDo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What may the container's root do?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	for _, user := range []struct {
		name       string
		uid        uint32
		noNewPrivs bool
	}{{"root", 0, false}, {"promised", 0, true}, {"user", 1000, false}} {
		q.Step("five different sets, uid %d, noNewPrivileges %t: `runc init` has them as written", user.uid, user.noNewPrivs)
		c := runc.Variant(q, b, "sets-"+user.name, withCapabilitySets, func(s *specs.Spec) {
			s.Process.User.UID, s.Process.NoNewPrivileges = user.uid, user.noNewPrivs
		})
		c.Create()
		pid := proc.PID(c.State().Pid)
		subject := fmt.Sprintf("uid %d, noNewPrivileges %t, ", user.uid, user.noNewPrivs)
		for _, line := range capabilityLines() {
			field, got := line.covers[0], proc.Bits(q, pid, line.name)
			assert.Check(q, cmp.Equal(got, maskOf(field)), "%s → %s of runc init", field, line.name)
			q.Covers(line.covers...)
			q.Fact(subject+"runc init: "+field, line.name+" "+got.String())
		}
		q.Step("execve(2) makes the program's sets of them, and the same ones for a program that exec adds (uid %d, noNewPrivileges %t)",
			user.uid, user.noNewPrivs)
		c.Start()
		proc.WaitFor(q, proc.Runs(pid, "sleep"))
		executed := runc.ExecProcess(q, c, c.Bundle.Spec.Process).PID
		for _, line := range capabilityLines() {
			want := map[string]proc.Mask{"root": line.root, "promised": line.noNewPrivs, "user": line.another}[user.name]
			got := proc.Bits(q, pid, line.name)
			assert.Check(q, cmp.Equal(got, want), "%s → %s of the program, %s", line.covers[0], line.name, user.name)
			q.Fact(subject+"program: "+line.name, got)
			assert.Check(q, cmp.Equal(proc.Bits(q, executed, line.name), want), "runc exec --process, %s → %s of the executed program, %s",
				line.covers[0], line.name, user.name)
		}
	}

	q.Step("root with no capability at all: what it may not do")
	none, sh, _ := runc.StartWithShell(q, b, "none", bundle.ScratchAtTmp, func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{}
	})
	// Make the files that the commands below need, as far as that needs no capability. /tmp is world-writable with a sticky bit: where
	// fs.protected_regular is set, no capability lets root open a file there by O_CREAT that another user owns. So there is /tmp/plain.
	assert.Equal(q, sh.Run("touch /tmp/mine && mkdir /tmp/dir /tmp/plain").Code, 0)
	// A file that another user owns: only a process with CAP_CHOWN can make one.
	q.Must("runc", "--root", none.Root, "exec", "--cap", "CAP_CHOWN", none.ID, "sh", "-c",
		"touch /tmp/plain/theirs && chown 1 /tmp/plain/theirs && chmod 600 /tmp/mine")
	for _, row := range actsByCapability {
		r := sh.Run(row.act)
		assert.Check(q, r.Code != 0, "%q succeeds without %s", row.act, row.capability)
		assert.Check(q, cmp.Regexp("(?i)permi(tted|ssion)", r.Out), "%q fails for another reason than a missing %s",
			row.act, row.capability)
		q.Fact("without "+row.capability, row.act+" fails: "+check.LastLine(r.Out))
	}

	q.Control("the same root with exactly the one capability")
	for _, row := range actsByCapability {
		r := q.Exec("runc", "--root", none.Root, "exec", "--cap", row.capability, none.ID, "sh", "-c", row.act)
		assert.Check(q, cmp.Equal(r.Code, 0), "%q fails with %s:\n%s", row.act, row.capability, r)
		q.Fact("with "+row.capability, fmt.Sprintf("%s: exit code %d", row.act, r.Code))
	}

	q.Run("execute", func(q *lab.Q) { executeByCapability(q, b) })

	q.Answer("The container's root may do what the capabilities of its bounding set allow; with noNewPrivileges, those of " +
		"its permitted set. An act that needs another capability fails, although the user is root.")
}

// capabilitySets has different capabilities in each of the five sets of config.json.
var capabilitySets = map[string][]string{
	"process.capabilities.bounding":    {"CAP_KILL", "CAP_CHOWN", "CAP_MKNOD", "CAP_NET_RAW", "CAP_FOWNER"},
	"process.capabilities.permitted":   {"CAP_KILL", "CAP_CHOWN", "CAP_MKNOD", "CAP_NET_RAW"},
	"process.capabilities.effective":   {"CAP_KILL", "CAP_CHOWN", "CAP_MKNOD"},
	"process.capabilities.inheritable": {"CAP_KILL", "CAP_CHOWN"},
	"process.capabilities.ambient":     {"CAP_KILL"},
}

// withCapabilitySets is an edit that gives the process capabilitySets.
func withCapabilitySets(s *specs.Spec) {
	s.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding:    capabilitySets["process.capabilities.bounding"],
		Permitted:   capabilitySets["process.capabilities.permitted"],
		Effective:   capabilitySets["process.capabilities.effective"],
		Inheritable: capabilitySets["process.capabilities.inheritable"],
		Ambient:     capabilitySets["process.capabilities.ambient"],
	}
}

// maskOf returns one of capabilitySets as /proc/PID/status shows it.
func maskOf(field string) (bits proc.Mask) {
	bit := map[string]int{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_FOWNER": unix.CAP_FOWNER, "CAP_KILL": unix.CAP_KILL, "CAP_MKNOD": unix.CAP_MKNOD,
		"CAP_NET_RAW": unix.CAP_NET_RAW,
	}
	for _, capability := range capabilitySets[field] {
		bits |= 1 << bit[capability]
	}
	return bits
}

// capabilityLine is a line of /proc/PID/status, and what execve makes of capabilitySets in it: for root, for root with noNewPrivileges, and
// for another user.
type capabilityLine struct {
	covers                    lab.Fields
	name                      string
	root, noNewPrivs, another proc.Mask
}

// capabilityLines returns a line for each of the five sets.
func capabilityLines() []capabilityLine {
	bounding, ambient := maskOf("process.capabilities.bounding"), maskOf("process.capabilities.ambient")
	permitted, inheritable := maskOf("process.capabilities.permitted"), maskOf("process.capabilities.inheritable")
	return []capabilityLine{
		{lab.Fields{"process.capabilities.bounding"}, "CapBnd", bounding, bounding, bounding},
		{lab.Fields{"process.capabilities.permitted"}, "CapPrm", bounding, permitted, ambient},
		{lab.Fields{"process.capabilities.effective"}, "CapEff", bounding, permitted, ambient},
		{lab.Fields{"process.capabilities.inheritable"}, "CapInh", inheritable, inheritable, inheritable},
		{lab.Fields{"process.capabilities.ambient"}, "CapAmb", ambient, ambient, ambient},
	}
}

// actsByCapability are acts for which root needs a capability.
var actsByCapability = []struct{ capability, act string }{
	{"CAP_CHOWN", "chown 1 /tmp/mine"},
	{"CAP_DAC_OVERRIDE", "echo >> /tmp/plain/theirs"},
	{"CAP_FOWNER", "chmod 600 /tmp/plain/theirs"},
	{"CAP_MKNOD", "mknod /tmp/null c 1 3"},
	{"CAP_SYS_ADMIN", "mount -t tmpfs tmpfs /tmp/dir"},
	{"CAP_SYS_CHROOT", "chroot / true"},
	{"CAP_SYS_NICE", "renice -n -5 -p $$"},
	{"CAP_NET_RAW", "ping -c 1 127.0.0.1"},
	{"CAP_NET_ADMIN", "ip link set dev lo mtu 1400"},
	{"CAP_NET_BIND_SERVICE", "httpd -p 127.0.0.1:80 -h /tmp"},
	{"CAP_SETGID", "start-stop-daemon -S -c 0:1000 -x /bin/true"},
}

// executeByCapability starts a program that its user may not execute by its mode: others may, its owner may not. With CAP_DAC_OVERRIDE,
// the kernel lets its owner execute it. runc asks the kernel before, by faccessat2(2), and has to ask in another way where this call is
// missing: before Linux 5.8, and below an old seccomp filter.
func executeByCapability(q *lab.Q, b *bundle.Bundle) {
	const owner, dir = 1000, "owned"
	program, err := os.ReadFile(b.Rootfs("bin", "busybox"))
	assert.NilError(q, err)
	assert.NilError(q, os.Mkdir(b.Rootfs(dir), 0o755))
	path := b.Rootfs(dir, "sleep")
	assert.NilError(q, os.WriteFile(path, program, 0o600))
	assert.NilError(q, os.Chown(path, owner, 0))
	assert.NilError(q, os.Chmod(path, 0o611))
	q.LogCommand("mkdir bundle/rootfs/%[1]s; cp bundle/rootfs/bin/busybox bundle/rootfs/%[1]s/sleep; chown %[2]d bundle/rootfs/%[1]s/sleep; "+
		"chmod 0611 bundle/rootfs/%[1]s/sleep", dir, owner)
	variant := func(name string, capabilities []string, edits ...func(*specs.Spec)) *runc.Container {
		return runc.Variant(q, b, name, append([]func(*specs.Spec){bundle.Args("/"+dir+"/sleep", "3600"), func(s *specs.Spec) {
			s.Process.User.UID, s.Process.NoNewPrivileges = owner, false
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: capabilities, Permitted: capabilities, Effective: capabilities}
		}}, edits...)...)
	}
	withoutFaccessat2 := func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch(),
			Syscalls: []specs.LinuxSyscall{{Names: []string{"faccessat2"}, Action: specs.ActErrno, ErrnoRet: new(uint(unix.ENOSYS))}}}
	}
	override := []string{"CAP_DAC_OVERRIDE"}

	q.Step("another user than root executes its program of the mode 0611: the mode forbids it, and CAP_DAC_OVERRIDE allows it")
	for _, row := range []struct {
		name, kernel string
		edits        []func(*specs.Spec)
	}{
		{"asked", "this kernel", nil},
		{"asked-otherwise", "a kernel without faccessat2(2)", []func(*specs.Spec){withoutFaccessat2}},
	} {
		c := variant(row.name, override, row.edits...)
		created := c.Try("create")
		assert.Check(q, cmp.Equal(created.Code, 0), "%s: create with a program that CAP_DAC_OVERRIDE lets its user execute:\n%s",
			row.kernel, created)
		if created.Code != 0 {
			continue
		}
		c.Start()
		pid := c.PID()
		proc.WaitFor(q, proc.Runs(pid, "sleep"))
		p := proc.Snapshot(q, pid)
		assert.Check(q, cmp.Equal(p.Exe, "/"+dir+"/sleep"), "%s: the program that runs", row.kernel)
		uid := proc.IDs(q, pid, "Uid")[1]
		assert.Check(q, cmp.Equal(uid, strconv.Itoa(owner)), "%s: user of the program", row.kernel)
		q.Fact(row.kernel+", a program of the mode 0611, by its owner: what runs", p.Exe)
		c.KillAndDelete(p)
	}

	q.Control("the same user without the capability: create fails")
	refused := variant("no-capability", nil).MustRefuse("permission denied")
	q.Fact("a program of the mode 0611, by its owner without CAP_DAC_OVERRIDE: error", runc.StableMessage(refused.Stderr))
}

// noNewPrivileges prevents that execve(2) gives a process more rights than it has: a setuid program runs with the rights of its caller.
//
// no_new_privs is a bit of the process. The kernel looks at it at each execve(2), and every child inherits it. With it, the
// set-user-ID bit of a file has no effect. The mount option nosuid does the same for all files of a mount.
//
// Hint: does a setuid ping get its raw socket when another user than root calls it?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
// Kernel: https://docs.kernel.org/userspace-api/no_new_privs.html
func TestBundle_WhatDoesNoNewPrivilegesPrevent(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does noNewPrivileges prevent?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

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
		status := proc.Status(q, p.PID, "NoNewPrivs")
		assert.Check(q, cmp.Equal(status, row.status), "NoNewPrivs of /proc/PID/status")
		assert.Check(q, cmp.Equal(sh.Run("grep NoNewPrivs /proc/self/status").Out, "NoNewPrivs:\t"+row.status),
			"a child inherits it")
		q.Covers("process.noNewPrivileges")
		q.Fact(subject+"NoNewPrivs of the process", status)
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

	q.Answer("noNewPrivileges prevents that execve gives a process more rights than it has. A setuid bit no longer " +
		"counts, for the process and for all its children.")
}

// A limit is two numbers: the kernel enforces the soft one, and the process itself may raise it as far as the hard one.
//
// rlimits become lines of /proc/PID/limits. A call that goes over a limit fails with an error of its own (EMFILE), or a signal ends the
// process (SIGXFSZ). Every process may lower its limits; only a process with CAP_SYS_RESOURCE may go above the hard limit. runc itself
// runs with the limits of its caller, which may allow only few open files. That is enough for a container with many mounts, because
// runc closes the source of each mount before the next.
//
// Hint: read /proc/PID/limits, then open too many files, and write too long a one.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-process
// Kernel: https://man7.org/linux/man-pages/man2/getrlimit.2.html
func TestBundle_WhatHappensAtALimit(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens at a limit?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	self := proc.PID(os.Getpid())
	rlimits, ownHard := limitsThatTheLabMayGive(q, self)

	q.Step("each type of rlimit is a line of /proc/PID/limits")
	limited, sh, p := runc.StartWithShell(q, b, "limited", bundle.ScratchAtTmp, func(s *specs.Spec) { s.Process.Rlimits = rlimits })
	unlimited, free, plain := runc.StartWithShell(q, b, "free", bundle.ScratchAtTmp, func(s *specs.Spec) { s.Process.Rlimits = nil })
	// A program that exec adds has the limits of config.json as well, or those of the file of exec --process.
	ofFile := *b.Spec.Process
	ofFile.Rlimits = rlimits
	executed := map[string]proc.PID{
		"runc exec": runc.ExecSleep(q, limited, "limited").PID, "runc exec --process": runc.ExecProcess(q, unlimited, &ofFile).PID,
	}
	for _, row := range rlimitLines {
		want := [2]string{fmt.Sprint(row.soft), fmt.Sprint(row.hard)}
		got := proc.Limit(q, p.PID, row.line)
		if !slices.ContainsFunc(rlimits, func(r specs.POSIXRlimit) bool { return r.Type == row.typ }) {
			q.Logf("%s is left out: the lab may not raise its own, %s", row.typ, ownHard[row.typ])
			continue
		}
		assert.Check(q, cmp.Equal(got, want), "process.rlimits[], %s: soft and hard of %s", row.typ, row.line)
		assert.Check(q, proc.Limit(q, plain.PID, row.line) != want, "%s has these values without the field too", row.line)
		for how, pid := range executed {
			assert.Check(q, cmp.Equal(proc.Limit(q, pid, row.line), want), "%s, %s: soft and hard of %s", how, row.typ, row.line)
		}
		q.Covers("process.rlimits[].type", "process.rlimits[].soft", "process.rlimits[].hard")
		q.Fact("process.rlimits[].type "+row.typ, row.line+": "+strings.Join(got[:], " "))
	}

	q.Step("a process at the limit: the call fails, or a signal ends the process")
	var files []string
	for i := range 40 {
		files = append(files, fmt.Sprintf("/tmp/%d", i))
	}
	bites := []struct{ what, act, wantOutput string }{
		{"EMFILE at the 33rd descriptor", "tee " + strings.Join(files, " ") + " < /dev/null", "Too many open files"},
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
	startBelowCallersLimit(q, b, self)

	q.Run("many-mounts", func(q *lab.Q) { createBelowLimit(q, b) })

	q.Control("the same acts in a container without limits")
	for _, bite := range bites {
		r := free.Run(bite.act)
		assert.Check(q, !strings.Contains(r.Out, bite.wantOutput), "%s without a limit: %s", bite.what, r.Out)
	}
	opened, written := free.Run("ls -d /tmp/[0-9]* | wc -l").Out, free.Run("stat -c %s /tmp/long").Out
	assert.Check(q, cmp.Equal(opened, strconv.Itoa(len(files))), "files that tee has opened without a limit")
	assert.Check(q, cmp.Equal(written, "65536"), "bytes of the file that is written without a limit")
	q.Fact("without limits: files opened", opened)
	q.Fact("without limits: bytes written", written)

	q.Answer("A call that goes over the soft limit fails with an error, or a signal ends the process. The process may " +
		"raise the soft limit as far as the hard one.")
}

// createBelowLimit creates a container with more id-mapped mounts than its caller may have files open. runc has to open the source of
// each, and to close it before the next.
func createBelowLimit(q *lab.Q, b *bundle.Bundle) {
	const mounts, files = 120, 100 // without the mounts, runc 1.5.2 has about twenty files open
	if !runc.KnowsIDMappedMounts(q) {
		q.Skip("this runtime does not know id-mapped mounts (runc does since 1.2.0); to ask this with the pinned runc, leave out RUNC= and " +
			"CDB_RUNC")
	}
	source := sourceOfIDMappedMounts(q)
	withMounts := func(s *specs.Spec) {
		s.Process.Rlimits = nil // runc init would have the limit of config.json
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}
		for i := range mounts {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: fmt.Sprintf("/many/%d", i), Type: "none", Source: source,
				Options: []string{"bind"}, UIDMappings: ids, GIDMappings: ids})
		}
	}
	callerLowers := fmt.Sprintf("ulimit -n %d", files)

	q.Step("a caller that may open %d files creates a container with %d id-mapped mounts: runc closes each source before the next",
		files, mounts)
	many := runc.Variant(q, b, "many", withMounts)
	created := q.Exec("sh", "-c", callerLowers+"; exec "+shellescape.QuoteCommand(many.Argv("create")))
	assert.Assert(q, cmp.Equal(created.Code, 0), "create of %d id-mapped mounts by a caller that may open %d files:\n%s",
		mounts, files, created)
	mapped := 0
	for _, m := range check.Mounts(q, many.Process()) {
		if strings.HasPrefix(m.Mountpoint, "/many/") && slices.Contains(check.FlagsOf(m), "idmapped") {
			mapped++
		}
	}
	assert.Check(q, cmp.Equal(mapped, mounts), "id-mapped mounts of the container, whose caller may open %d files", files)
	q.Fact(fmt.Sprintf("id-mapped mounts of a container whose caller may open %d files", files), mapped)
	many.Delete()
}

// sourceOfIDMappedMounts returns a directory from which the kernel makes id-mapped mounts: a tmpfs since Linux 6.3, or an erofs since 5.19.
// It has the named directories.
func sourceOfIDMappedMounts(q *lab.Q, names ...string) string {
	dir := q.MountTmpfs(q.Mkdir("source"))
	for _, name := range names {
		assert.NilError(q, os.Mkdir(filepath.Join(dir, name), 0o755))
		q.LogCommand("mkdir source/%s", name)
	}
	err := supportsIDMappedMounts(q, dir)
	if err == nil {
		return dir
	}
	mkfs := q.LookPathOrSkip("mkfs.erofs")
	q.Exec(q.LookPathOrSkip("modprobe"), "-a", "loop", "erofs")
	img, at := filepath.Join(q.Mkdir("image"), "source.erofs"), q.Mkdir("erofs")
	q.Must(mkfs, img, dir)
	mounted := q.Exec("busybox", "mount", "-t", "erofs", "-o", "loop,ro", img, at)
	if mounted.Code == 0 {
		q.Cleanup(func() { q.Must("busybox", "umount", "-d", at) })
		err = supportsIDMappedMounts(q, at)
	}
	if mounted.Code != 0 || err != nil {
		q.Skipf("a tmpfs of this kernel has no id-mapped mounts, nor has an erofs: %v %s; to ask this, boot Linux 6.3 or later: "+
			"make lab KERNEL=6.12", err, check.LastLine(mounted.Stderr))
	}
	return at
}

// rlimitLine is a type of process.rlimits[], its line in /proc/PID/limits, and the limits that the question gives.
type rlimitLine struct {
	typ, line  string
	soft, hard uint64
}

var rlimitLines = []rlimitLine{
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

// startBelowCallersLimit starts a container, and a program in it, by a caller whose soft limit of open files is below that of config.json.
func startBelowCallersLimit(q *lab.Q, b *bundle.Bundle, self proc.PID) {
	q.Helper()
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
	executedWith := strings.Fields(high.ExecAfter(callerLowers, "sh", "-c", "ulimit -Sn; ulimit -Hn"))
	assert.Assert(q, cmp.DeepEqual(executedWith, wantHigh[:]), "soft and hard limit of open files of an executed program, "+
		"called by a shell with the soft limit %d", callersSoft)
	// How many files a process may open at most is a setting of this machine: count from there.
	fromTop := func(limit string) string {
		return fmt.Sprintf("the hard limit of the lab - %d", ownHardest-uint64(check.Int(q, limit)))
	}
	q.Fact("soft limit of open files, with a caller whose soft limit is lower: first program", fromTop(proc.Limit(q, first.PID, line)[0]))
	q.Fact("soft limit of open files, with a caller whose soft limit is lower: executed program", fromTop(executedWith[0]))
}

// limitsThatTheLabMayGive returns the limits of rlimitLines without those that the lab, whose process is self, may not give. It returns
// in ownHard the lab's own hard limit of each type.
func limitsThatTheLabMayGive(q *lab.Q, self proc.PID) (rlimits []specs.POSIXRlimit, ownHard map[string]string) {
	q.Helper()
	// The lab may itself lack CAP_SYS_RESOURCE, and then cannot give a container a higher limit than its own.
	mayRaise := proc.Bits(q, self, "CapEff").Has(unix.CAP_SYS_RESOURCE)
	ownHard = map[string]string{}
	for _, row := range rlimitLines {
		ownHard[row.typ] = proc.Limit(q, self, row.line)[1]
		hard, err := strconv.ParseUint(ownHard[row.typ], 10, 64)
		if unlimited := err != nil; unlimited || hard >= row.hard || mayRaise {
			rlimits = append(rlimits, specs.POSIXRlimit{Type: row.typ, Soft: row.soft, Hard: row.hard})
		}
	}
	return rlimits, ownHard
}
