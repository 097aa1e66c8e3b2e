//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cdblab/helpers/host"
)

// Scope says what a question does to the machine. The words are the chapter's.
type Scope string

// The three scopes.
const (
	MutatesVM    Scope = "VM-only mutation" // it makes processes, mounts, cgroups, snapshots
	InspectsOnly Scope = "inspect-only"     // it only reads, once the state is there
	NoRoot       Scope = "no root"          // it reads sources and specifications
)

// Q is a question while it is asked. It is a testing.TB, so that every assertion and helper takes it, and it owns a
// directory and a cgroup below which all that it makes must lie.
type Q struct {
	testing.TB

	// Dir is the question's own directory, and the working directory of its commands.
	Dir string
	// Cgroup is the question's own cgroup, relative to the root of each hierarchy.
	Cgroup string
	// Part is the question's name on this host.
	Owner host.Owner

	notes *notes
	env   *environment
}

var questions atomic.Int32 // numbers the directories of one run

// Option changes how a question is asked.
type Option func(*options)

type options struct{ alone string }

// Alone has a question asked while no other is, for the reason given: what it does, or measures, others would disturb.
func Alone(why string) Option { return func(o *options) { o.alone = why } }

// Question begins a question. Questions are asked at the same time as others, unless [Alone]. At its end, when its cleanups are through, nothing may be left of what it made; what is
// left fails it, by name, and is then swept, so that the next question finds the host as this one did.
func Question(t *testing.T, scope Scope, text string, how ...Option) *Q {
	t.Helper()
	var o options
	for _, option := range how {
		option(&o)
	}
	if o.alone == "" {
		t.Parallel()
	}
	questionCounts.ask(t) // first, so that its cleanup is the last and counts what fails in the others
	q := newQ(t)
	q.notes.question(scope, text)
	q.setUp("cd "+q.Dir, "mkdir -p "+q.Dir+" "+binDir()+" && cd "+q.Dir)
	path := "export PATH=" + binDir() + ":$PATH"
	q.setUp(path, linkTools()+path)
	return q
}

// Bench is a question's frame for a benchmark: the same directory, cgroup and teardown, without notes.
func Bench(b *testing.B) *Q {
	b.Helper()
	return newQ(b)
}

func newQ(tb testing.TB) *Q {
	tb.Helper()
	if theRun == nil {
		tb.Fatal("lab.Question needs lab.Main to have begun a run: call it from TestMain")
	}
	part := host.NewOwner(theRun.Run, fmt.Sprintf("q%d", questions.Add(1)))
	q := &Q{TB: tb, Dir: part.Dir(), Cgroup: part.Cgroup(), Owner: part, env: &environment{}}
	q.notes = newNotes(tb, part)
	before, err := host.TakeInventoryOf(part)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Mkdir(q.Dir, 0o755); err != nil {
		tb.Fatalf("make the question's directory: %v", err)
	}
	tb.Cleanup(func() { q.verifyClean(before) }) // registered first, so it runs last
	q.Setenv(host.OwnerEnv, q.Dir)
	return q
}

// Run asks a part of the question, as a subtest: the same directory, cgroup and notes.
func (q *Q) Run(name string, ask func(q *Q)) bool {
	q.Helper()
	t, ok := q.TB.(*testing.T)
	if !ok {
		q.Fatal("only a test has parts")
	}
	return t.Run(name, func(t *testing.T) {
		part := *q
		part.TB = t
		part.notes = q.notes.part(t)
		ask(&part)
	})
}

// Cleanup registers a teardown as testing.TB does, but for a question whose state is to be kept (see [Kept]).
func (q *Q) Cleanup(f func()) {
	q.TB.Cleanup(func() {
		if !q.keepsState() {
			f()
		}
	})
}

// ID gives a container's id the question's suffix, where another question's or run's could meet it.
func (q *Q) ID(id string) string { return q.Owner.ID(id) }

// Mkdir makes a directory below the question's own, and returns its path. It is removed with all in it when the
// question ends; whoever puts something there that is more than a file must have removed that before.
func (q *Q) Mkdir(name string) string {
	q.Helper()
	dir := filepath.Join(q.Dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		q.Fatalf("make a directory for the question: %v", err)
	}
	q.Cleanup(func() {
		if _, err := host.Remove(dir); err != nil {
			q.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// end verifies that nothing stayed behind, or says what was kept and how to look at it.
func (q *Q) verifyClean(before host.Inventory) {
	defer q.notes.out.flush()
	if q.keepsState() {
		keep(q)
		return
	}
	// The kernel and the shim take a moment to let go: look until nothing is left.
	var left []host.Change
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		after, err := host.TakeInventoryOf(q.Owner)
		if err != nil {
			q.Fatal(err)
		}
		left = host.OwnedBy(host.Diff(before, after), before, q.Owner)
		left = q.ignoreOwnDirs(left)
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	for _, c := range left {
		q.Errorf("the question left something behind: %s", c)
	}
	if len(left) == 0 {
		if err := host.Tidy(q.Owner); err != nil {
			q.Errorf("remove the question's directory and cgroup: %v", err)
		}
		return
	}
	swept, err := host.SweepOwner(q.Owner)
	if err != nil {
		q.Errorf("sweep what the question left: %v", err)
	}
	q.Logf("swept: %s", swept)
}

// withoutFrame leaves out what belongs to the question and not to the experiment: its empty directory and its empty
// cgroups, which the runtime made on its way down to the container's, and which no runtime removes.
func (q *Q) ignoreOwnDirs(cs []host.Change) []host.Change {
	var out []host.Change
	for _, c := range cs {
		frame := c.Name == q.Dir
		if _, cgroup, _ := strings.Cut(c.Name, ":"); c.Kind == "cgroup" && (cgroup == q.Cgroup || filepath.Dir(cgroup) == "/") {
			frame = true // the second is that of a containerd namespace, above its containers' own
		}
		if !frame {
			out = append(out, c)
		}
	}
	return out
}

// tally counts the questions of a run, by test name, so that a run which asked none is not green.
var questionCounts = &tally{}

type tally struct {
	mu                               sync.Mutex
	asked, answered, failed, skipped int
	names                            map[string]bool
}

func (c *tally) ask(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.names == nil {
		c.names = map[string]bool{}
	}
	c.names[t.Name()] = true
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case t.Failed():
			c.failed++
		case t.Skipped():
			c.skipped++
		default:
			c.answered++
		}
	})
}
