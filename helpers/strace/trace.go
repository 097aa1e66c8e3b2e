//go:build linux

package strace

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/check"
	"cdblab/helpers/proc"
)

// Call is one system call in a trace.
type Call struct {
	Time string   // seconds, as strace writes them: all have the same length, so they can be compared as strings
	PID  proc.PID // process that called; a thread's calls are its process's
	Text string   // name(arguments) = result
}

// Name returns the name of the system call.
func (c Call) Name() string {
	name, _, _ := strings.Cut(c.Text, "(")
	return name
}

var result = regexp.MustCompile(`= (-?[0-9]+)`)

// Result returns the result of the call, or -1 if the trace has none.
func (c Call) Result() int {
	all := result.FindAllStringSubmatch(c.Text, -1)
	if len(all) == 0 {
		return -1
	}
	n, _ := strconv.Atoi(all[len(all)-1][1])
	return n
}

// CreatesProcess is the end of a pattern for the text of a clone that creates a process. A clone that creates a thread
// does not match it.
const CreatesProcess = `SIGCHLD.* = [0-9]+$`

// Trace is what strace has written about a program and its descendants.
type Trace struct {
	Calls []Call // of all processes, in the order of their times

	tb      testing.TB
	parents map[proc.PID]proc.PID // process → process that cloned it
	next    int                   // index in Calls at which Next goes on
	found   []string              // names of the calls that Next has found
}

var traceLine = regexp.MustCompile(`^([0-9]+\.[0-9]+) ([a-z].*)$`)

// Read reads the trace in dir, which a command of [CommandLine] has written.
func Read(tb testing.TB, dir string) *Trace {
	tb.Helper()
	tr := &Trace{tb: tb, parents: map[proc.PID]proc.PID{}}
	names, err := filepath.Glob(output(dir) + ".*")
	assert.NilError(tb, err)
	creators := map[proc.PID]proc.PID{} // thread → thread that cloned it
	for _, name := range names {
		thread := proc.PID(check.Int(tb, strings.TrimPrefix(filepath.Ext(name), ".")))
		text, err := os.ReadFile(name)
		assert.NilError(tb, err)
		for line := range strings.Lines(string(text)) {
			m := traceLine.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil {
				continue
			}
			c := Call{m[1], thread, m[2]}
			tr.Calls = append(tr.Calls, c)
			switch created := proc.PID(c.Result()); {
			case !strings.HasPrefix(c.Text, "clone"), created <= 0:
			case strings.Contains(c.Text, "CLONE_THREAD"):
				creators[created] = thread
			default:
				tr.parents[created] = thread
			}
		}
	}
	processOf := func(thread proc.PID) proc.PID {
		for creators[thread] != 0 {
			thread = creators[thread]
		}
		return thread
	}
	for i := range tr.Calls {
		tr.Calls[i].PID = processOf(tr.Calls[i].PID)
	}
	for child, parent := range tr.parents {
		tr.parents[child] = processOf(parent)
	}
	slices.SortStableFunc(tr.Calls, func(a, b Call) int { return strings.Compare(a.Time, b.Time) })
	return tr
}

// Has reports whether the trace has a call whose text matches the pattern.
func (tr *Trace) Has(pattern string) bool {
	re := regexp.MustCompile(pattern)
	return slices.ContainsFunc(tr.Calls, func(c Call) bool { return re.MatchString(c.Text) })
}

// AnyProcess stands for any process in [Trace.Next] and [Trace.First].
const AnyProcess proc.PID = 0

// First returns the first call of the process pid in the whole trace whose text matches the pattern. It is for a call that may come
// before or after the one that [Trace.Next] returned. Without such a call the test fails; what names it in the failure.
func (tr *Trace) First(what string, pid proc.PID, pattern string) Call {
	tr.tb.Helper()
	i := slices.IndexFunc(tr.Calls, matcher(pid, pattern))
	if i < 0 {
		tr.tb.Fatalf("the trace does not have %s\nlast calls of process %d:\n%s", what, pid, tr.lastCalls(pid))
	}
	return tr.Calls[i]
}

// matcher returns whether a call is one of the process, and its text matches.
func matcher(pid proc.PID, pattern string) func(Call) bool {
	re := regexp.MustCompile(pattern)
	return func(c Call) bool { return (pid == AnyProcess || c.PID == pid) && re.MatchString(c.Text) }
}

// Next returns the first call of the process pid whose text matches the pattern, after the call that Next returned
// before. If there is none, the test fails; what names the call in the failure.
func (tr *Trace) Next(what string, pid proc.PID, pattern string) Call {
	tr.tb.Helper()
	matches := matcher(pid, pattern)
	for i := tr.next; i < len(tr.Calls); i++ {
		if c := tr.Calls[i]; matches(c) {
			tr.next = i + 1
			tr.found = append(tr.found, c.Name())
			return c
		}
	}
	var earlier []string
	for i, c := range tr.Calls[:tr.next] {
		if matches(c) {
			earlier = append(earlier, fmt.Sprintf("call %d of process %d: %s", i, c.PID, c.Text))
		}
	}
	last := "the beginning"
	if tr.next > 0 {
		last = fmt.Sprintf("call %d, %.200s", tr.next-1, tr.Calls[tr.next-1].Text)
	}
	tr.tb.Fatalf("the trace does not have %s after %s\nmatching calls before that: %q\nlast calls of process %d:\n%s",
		what, last, earlier, pid, tr.lastCalls(pid))
	return Call{}
}

// lastCalls returns the last 20 calls of a process, one a line.
func (tr *Trace) lastCalls(pid proc.PID) string {
	var out []string
	for _, c := range tr.Calls {
		if c.PID == pid {
			out = append(out, fmt.Sprintf("%.120s", c.Text))
		}
	}
	return strings.Join(out[max(0, len(out)-20):], "\n")
}

// Found returns the names of the calls that [Trace.Next] has found, in order.
func (tr *Trace) Found() []string { return tr.found }

// Parent returns the process that cloned the process pid.
func (tr *Trace) Parent(pid proc.PID) proc.PID { return tr.parents[pid] }

var namespaceFlag = regexp.MustCompile(`CLONE_NEW[A-Z]+`)

// NewNamespaces returns the kinds of the namespaces that unshare and clone have created, by their names in
// /proc/PID/ns; sorted, each once.
func (tr *Trace) NewNamespaces() []string {
	var out []string
	for _, c := range tr.Calls {
		if !strings.HasPrefix(c.Text, "unshare(") && !strings.HasPrefix(c.Text, "clone") || c.Result() < 0 {
			continue
		}
		for _, flag := range namespaceFlag.FindAllString(c.Text, -1) {
			if flag == "CLONE_NEWNS" {
				out = append(out, "mnt")
			} else {
				out = append(out, strings.ToLower(strings.TrimPrefix(flag, "CLONE_NEW")))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
