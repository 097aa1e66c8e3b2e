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

	"cdblab/helpers/file"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Seven processes in a row, from the shim's helper to the program, and each hands on to the next by clone and execve.
//
// The helper leaves the shim behind. The shim mounts the snapshot and calls runc create, which calls itself as `runc
// init`. That one (stage 0) clones stage 1, which unshares the namespaces; but a pid namespace is only for children, so
// it clones stage 2: pid 1 of the container. Both are made with CLONE_PARENT, as children of runc create's. Stage 2
// mounts what config.json says, calls pivot_root, and opens exec.fifo, where it waits. runc start opens the other end,
// and stage 2 calls execve: the last call of runc's, and the first of the program.
//
// Hint: strace -D leaves the program the child of its caller; `grep TracerPid /proc/PID/status` shows who looks on.
// Spec: https://github.com/opencontainers/runc/blob/main/libcontainer/nsenter/README.md
// Kernel: https://man7.org/linux/man-pages/man2/pivot_root.2.html
func TestEvents_WhatDoesStraceSee(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does strace see, from shim to runc to init?")
	canTrace(q)
	dir, hostNetDir := q.Mkdir("trace"), q.Mkdir("trace-hostnet")
	// strace would hold the caller's pipes as long as the container lives: it is given none, and its program gets them
	// back.
	shim := q.WriteWrapper("strace-shim", `case " $* " in *" start "*) exec `+strace(dir, "openat,mount,pivot_root,execve")+` sh -c 'exec "$@" 2>&1' sh "$SHIM" "$@" 2>/dev/null;; esac
exec "$SHIM" "$@"`)

	runc := q.WriteWrapper("strace-runc", `case " $* " in *" create "*) exec `+strace(hostNetDir, "execve")+` "$RUNC" "$@";; esac
exec "$RUNC" "$@"`)

	d := ctrd.Shared(q)
	ref := d.PullImage()
	id := q.ID(ctrd.ID)

	q.Step("a task whose shim is called by way of strace")
	d.CreateByClient(ctrd.Extras{Runtime: shim}, ref, id, "sleep", "300")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	proc.WaitFor(q, file.Contains(fmt.Sprintf("%s/t.%d", dir, pid), `["sleep", "300"]`)) // strace writes when execve has returned
	task, self := proc.Snapshot(q, pid), proc.Self(q)
	tracers := tracersOf(q, dir)
	assert.Assert(q, cmp.Len(tracers, 1), "straces")
	assert.Check(q, cmp.Equal(proc.Status(q, pid, "TracerPid"), fmt.Sprint(tracers[0])))
	q.Fact("TracerPid of the program", tracers[0])

	tr := readTrace(q, dir)
	q.Step("shim: the helper execs, leaves the shim behind, and ends")
	helper := tr.next("the helper's execve", 0, `^execve\(".*containerd-shim.*"start"`)
	left := tr.next("its clone", proc.PID(helper.PID), `^clone.*`+process)
	server := tr.next("the shim's execve", 0, `^execve\(".*containerd-shim.*"`+id+`"`)
	assert.Check(q, cmp.Equal(server.PID, int(task.Parent)), "who execs the shim, and the parent of the program")
	assert.Check(q, left.At < server.At)
	assert.Check(q, !proc.Alive(proc.PID(helper.PID)), "the helper %d is alive", helper.PID)
	q.Fact("execve of the shim, and the program's parent", task.Parent)

	q.Step("shim: it mounts the snapshot, and calls runc create")
	tr.next("the shim's mount", proc.PID(server.PID), `^mount\("[^"]*", "`+d.Bundle(id)+`/rootfs"`)
	create := tr.next("runc's execve", 0, `^execve\(".*"create"`)
	assert.Check(q, cmp.Equal(tr.parent(proc.PID(create.PID)), server.PID), "who has cloned runc create")
	q.Fact("runc create", "cloned by the shim")

	q.Step("runc create: it calls itself as init, which is stage 0 and clones stage 1")
	const asInit = `^execve\("[^"]*", \["[^"]*", "init"\]`
	if !q.Pinned() && !tr.has(asInit) {
		q.Skipf("this runtime does not call itself as init, as runc does, so there is no stage to tell of: look with runc (unset CDB_RUNC)")
	}
	stand := tr.next("stage 0's execve", 0, asInit)
	assert.Check(q, cmp.Equal(tr.parent(proc.PID(stand.PID)), create.PID), "who has cloned stage 0")
	one := tr.next("stage 0's clone", proc.PID(stand.PID), `^clone.*CLONE_PARENT.*`+process)
	q.Fact("stage 0", "cloned by runc create, execs runc init")

	q.Step("stage 1: it unshares the namespaces, the very ones that the program has apart from the host")
	unshare := tr.next("stage 1's unshare", proc.PID(one.ret()), `^unshare\(.*CLONE_NEW`)
	two := tr.next("stage 1's clone", proc.PID(one.ret()), `^clone.*CLONE_PARENT.*`+process)
	assert.Check(q, cmp.DeepEqual(tr.unshared(), task.OwnNamespaces(self.Identity)))
	q.Fact("stage 1", unshare.Text)
	q.Fact("namespaces unshared, and the program's own", tr.unshared())

	q.Step("stage 2: it is the process that will be the program")
	assert.Check(q, cmp.Equal(two.ret(), pid), "the clone's result, and the task's pid")
	assert.Check(q, cmp.Equal(proc.InnerPID(q, pid), 1))
	q.Fact("result of stage 1's clone, and the task's pid", pid)

	q.Step("stage 2: it mounts what config.json says, in that order, and turns the root")
	first := tr.next("stage 2's first mount", pid, `^mount\(`)
	pivot := tr.next("stage 2's pivot_root", pid, `^pivot_root\(.*= 0$`)
	var attempted, configured, mounted []string
	for _, c := range tr.calls {
		// A new file system has a type, which a bind mount, a remount and a change of propagation have not.
		m := newMount.FindStringSubmatch(c.Text)
		if proc.PID(c.PID) == pid && c.At < pivot.At && m != nil && !strings.Contains(c.Text, "MS_BIND") && !strings.Contains(c.Text, "MS_REMOUNT") {
			attempted = append(attempted, m[1])
		}
	}
	all := check.Mounts(q, task)
	for _, m := range bundle.Read(q, d.Bundle(id)).Mounts {
		configured = append(configured, m.Type)
		mounted = append(mounted, check.TopMount(q, all, m.Destination).FSType)
	}
	assert.Check(q, cmp.DeepEqual(attempted, configured), "new file systems in the trace, mounts in config.json")
	assert.Check(q, cmp.DeepEqual(attempted, mounted), "new file systems in the trace, at their places in mountinfo")
	assert.Check(q, first.At < pivot.At)
	q.Fact("new file systems, and those in mountinfo", attempted)

	q.Step("stage 2 waits at exec.fifo; runc start opens the other end; and the last call is execve")
	wait := tr.next("stage 2's open of exec.fifo", pid, `^openat\(.*O_WRONLY.*exec\.fifo>?`)
	start := tr.next("runc start's execve", 0, `^execve\(".*"start"`)
	assert.Check(q, cmp.Equal(tr.parent(proc.PID(start.PID)), server.PID), "who has cloned runc start")
	tr.next("runc start's open of exec.fifo", proc.PID(start.PID), `^openat\(.*exec\.fifo", O_RDONLY`)
	exec := tr.next("the program's execve", pid, `^execve\("[^"]*sleep", \["sleep", "300"\]`)
	assert.Check(q, pivot.At < wait.At && wait.At < exec.At)
	assert.Check(q, cmp.DeepEqual(task.Args, []string{"sleep", "300"}))
	q.Fact("stage 2's last call", execCall.FindString(exec.Text))
	q.Fact("in this order", tr.seen)

	q.Control("a container in the host's network namespace: the same calls, and nowhere CLONE_NEWNET")
	hostNet := q.ID("cdb-hostnet")
	d.CreateByClient(ctrd.Extras{BinaryName: runc, Spec: []oci.SpecOpts{oci.WithHostNamespace(specs.NetworkNamespace)}}, ref, hostNet, "sleep", "300")
	d.StartTask(hostNet)
	other := proc.Snapshot(q, d.TaskPID(hostNet))
	tr = readTrace(q, hostNetDir)
	assert.Check(q, cmp.DeepEqual(tr.unshared(), other.OwnNamespaces(self.Identity)))
	assert.Check(q, !slices.Contains(tr.unshared(), "net"), "unshared: %v", tr.unshared())
	assert.Check(q, cmp.Contains(tr.unshared(), "mnt"))
	q.Fact("namespaces unshared, and its own", tr.unshared())

	q.TearDown("the task ends, its shim with it, and then strace, which has nobody left to look at", func() {
		for _, id := range []string{id, hostNet} {
			d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
			proc.WaitFor(q, d.Stopped(id))
			d.DeleteTask(id)
		}
		proc.WaitFor(q, d.HasShims(0))
		for _, dir := range []string{dir, hostNetDir} {
			proc.WaitFor(q, func(poll.LogT) poll.Result {
				if left := tracersOf(q, dir); len(left) > 0 {
					return poll.Continue("strace %v is left", left)
				}
				return poll.Success()
			})
		}
	})

	q.Answer("helper → shim → runc create → three stages of runc init: unshare, mount, pivot_root, the FIFO, execve; in this order.")
}

// canTrace skips the question where strace is not there or may not look.
func canTrace(q *lab.Q) {
	q.Helper()
	path := q.LookPathOrSkip("strace")
	if r := q.Exec(path, "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=execve", "true"); r.Code != 0 {
		q.Skipf("strace cannot look here: %s\n"+
			"    it needs ptrace(2) (sysctl kernel.yama.ptrace_scope below 3, no seccomp filter around this machine), "+
			"and strace 5.3 or later (make deps)", strings.TrimSpace(r.Stderr))
	}
}

// strace is a command line that traces what makes processes and namespaces, and these calls besides: a file for each
// thread in dir, with times; as a grandchild, so that the program stays its caller's child.
func strace(dir, calls string) string {
	return "strace -D -f -ff -ttt -y -s 256 --seccomp-bpf -o " + dir + "/t -e 'trace=clone,?clone3,?fork,?vfork,unshare," + calls + "'"
}

// tracersOf lists the straces that write into a directory.
func tracersOf(q *lab.Q, dir string) []proc.PID {
	return proc.Find(q, func(_ proc.PID, comm string, args []string) bool {
		return comm == "strace" && slices.Contains(args, dir+"/t")
	})
}

// process is what a clone that makes a process, and no thread, ends with.
const process = `SIGCHLD.* = [0-9]+$`

var (
	traceLine = regexp.MustCompile(`^([0-9]+\.[0-9]+) ([a-z].*)$`)
	traceRet  = regexp.MustCompile(`= (-?[0-9]+)`)
	newMount  = regexp.MustCompile(`^mount\("[^"]*", "[^"]*", "([a-z0-9]+)", .* = 0$`)
	namespace = regexp.MustCompile(`CLONE_NEW[A-Z]+`)
	execCall  = regexp.MustCompile(`^execve\([^\]]*\]`)
)

// call is one system call of a trace.
type call struct {
	At   string // seconds, as strace writes them: all of one length
	PID  int    // of the process; threads are their process's
	Text string // name(arguments) = result
}

// ret is the call's result.
func (c call) ret() int {
	all := traceRet.FindAllStringSubmatch(c.Text, -1)
	if len(all) == 0 {
		return -1
	}
	n, _ := strconv.Atoi(all[len(all)-1][1])
	return n
}

// straced is all that was traced, in order, and what of it has been told.
type straced struct {
	q       *lab.Q
	calls   []call
	parents map[int]int // process → process that cloned it
	at      int
	seen    []string
}

func readTrace(q *lab.Q, dir string) *straced {
	q.Helper()
	tr := &straced{q: q, parents: map[int]int{}}
	names, err := filepath.Glob(dir + "/t.*")
	assert.NilError(q, err)
	leader := map[int]int{} // thread → the thread that cloned it
	for _, name := range names {
		tid := check.Int(q, strings.TrimPrefix(filepath.Ext(name), "."))
		text, err := os.ReadFile(name)
		assert.NilError(q, err)
		for line := range strings.Lines(string(text)) {
			if m := traceLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				c := call{m[1], tid, m[2]}
				tr.calls = append(tr.calls, c)
				switch {
				case !strings.HasPrefix(c.Text, "clone"), c.ret() <= 0:
				case strings.Contains(c.Text, "CLONE_THREAD"):
					leader[c.ret()] = tid
				default:
					tr.parents[c.ret()] = tid
				}
			}
		}
	}
	of := func(tid int) int {
		for leader[tid] != 0 {
			tid = leader[tid]
		}
		return tid
	}
	for i := range tr.calls {
		tr.calls[i].PID = of(tr.calls[i].PID)
	}
	for child, parent := range tr.parents {
		tr.parents[child] = of(parent)
	}
	slices.SortStableFunc(tr.calls, func(a, b call) int { return strings.Compare(a.At, b.At) })
	return tr
}

// has says whether any call matches.
func (tr *straced) has(pattern string) bool {
	re := regexp.MustCompile(pattern)
	return slices.ContainsFunc(tr.calls, func(c call) bool { return re.MatchString(c.Text) })
}

// next is the first call, after the one that next has found before, of a process (0: any) that matches.
func (tr *straced) next(what string, pid proc.PID, pattern string) call {
	tr.q.Helper()
	re := regexp.MustCompile(pattern)
	for i := tr.at; i < len(tr.calls); i++ {
		if c := tr.calls[i]; (pid == 0 || proc.PID(c.PID) == pid) && re.MatchString(c.Text) {
			tr.at = i + 1
			name, _, _ := strings.Cut(c.Text, "(")
			tr.seen = append(tr.seen, name)
			return c
		}
	}
	var before []string
	for i, c := range tr.calls[:tr.at] {
		if (pid == 0 || proc.PID(c.PID) == pid) && re.MatchString(c.Text) {
			before = append(before, fmt.Sprintf("call %d of process %d: %s", i, c.PID, c.Text))
		}
	}
	last := "the beginning"
	if tr.at > 0 {
		last = fmt.Sprintf("call %d, %.200s", tr.at-1, tr.calls[tr.at-1].Text)
	}
	tr.q.Fatalf("%s is not in the trace after %s\nbefore it: %q\nof the process: %s", what, last, before, tr.of(pid))
	return call{}
}

// of lists the calls of a process, for whoever misses one.
func (tr *straced) of(pid proc.PID) string {
	var out []string
	for _, c := range tr.calls {
		if proc.PID(c.PID) == pid {
			out = append(out, fmt.Sprintf("%.120s", c.Text))
		}
	}
	return strings.Join(out[max(0, len(out)-20):], "\n")
}

// parent is the process that has cloned this one.
func (tr *straced) parent(pid proc.PID) int { return tr.parents[int(pid)] }

// unshared lists the namespaces that were made, by the names that /proc/PID/ns has for them.
func (tr *straced) unshared() []string {
	names := map[string]string{"CLONE_NEWNS": "mnt"}
	var out []string
	for _, c := range tr.calls {
		if (strings.HasPrefix(c.Text, "unshare(") || strings.HasPrefix(c.Text, "clone")) && c.ret() >= 0 {
			for _, flag := range namespace.FindAllString(c.Text, -1) {
				name := names[flag]
				if name == "" {
					name = strings.ToLower(strings.TrimPrefix(flag, "CLONE_NEW"))
				}
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
