//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// Q is a question while it is asked. It is a testing.TB, so that every assertion and helper takes it. It owns a
// directory and a cgroup, and everything that it makes lies below them.
type Q struct {
	testing.TB

	// Dir is the question's own directory, and the working directory of its commands.
	Dir string
	// Cgroup is the question's own cgroup, relative to the root of each hierarchy.
	Cgroup string
	// Owner is how what the question makes is recognised on the host.
	Owner host.Owner

	session *Session
	notes   *notes
	env     *environment
}

// Option changes how a question is asked.
type Option func(*options)

type options struct{ alone string }

// Alone has a question asked while no other is, for the reason given: other questions would disturb what it does or
// measures.
func Alone(why string) Option { return func(o *options) { o.alone = why } }

// Question begins a question. It is asked at the same time as others, unless it is [Alone]. When it has ended and its
// cleanups have run, nothing that it made may be left. A leftover fails the question, by name, and is then swept, so that the next
// question finds the host as this one did.
func (s *Session) Question(t *testing.T, scope Scope, text string, how ...Option) *Q {
	t.Helper()
	var o options
	for _, option := range how {
		option(&o)
	}
	if o.alone == "" {
		t.Parallel()
	}
	s.counts.count(t) // first, so that its cleanup is the last and counts what fails in the others
	q := s.newQ(t)
	q.notes.question(scope, text)
	q.logSetUp("cd "+q.Dir, "mkdir -p "+q.Dir+" "+s.binDir()+" && cd "+q.Dir)
	path := "export PATH=" + s.binDir() + ":$PATH"
	q.logSetUp(path, s.linkTools()+path)
	return q
}

// Benchmark begins a benchmark with a question's directory, cgroup and teardown, and without notes.
func (s *Session) Benchmark(b *testing.B) *Q {
	b.Helper()
	return s.newQ(b)
}

func (s *Session) newQ(tb testing.TB) *Q {
	tb.Helper()
	if s.run == nil {
		tb.Fatal("a question needs a run: call Session.Run in TestMain")
	}
	owner := host.NewOwner(s.run.Owner.Run, fmt.Sprintf("q%d", s.questions.Add(1)))
	q := &Q{TB: tb, Dir: owner.Dir(), Cgroup: owner.Cgroup(), Owner: owner, session: s, env: &environment{}}
	q.notes = newNotes(tb, owner, s.oneByOne)
	before, err := host.TakeInventoryOf(owner)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Mkdir(q.Dir, 0o755); err != nil {
		tb.Fatalf("make the question's directory: %v", err)
	}
	tb.Cleanup(func() { q.verifyClean(before) }) // registered first, so it runs last
	q.SetCommandEnv(host.OwnerEnv, q.Dir)
	return q
}

// Session returns the session in which the question is asked.
func (q *Q) Session() *Session { return q.session }

// Run asks a subtest of the question, in the same directory and cgroup. Its notes continue those of the question.
func (q *Q) Run(name string, ask func(q *Q)) bool {
	q.Helper()
	t, ok := q.TB.(*testing.T)
	if !ok {
		q.Fatal("a benchmark has no subtests")
	}
	return t.Run(name, func(t *testing.T) {
		sub := *q
		sub.TB = t
		sub.notes = q.notes.subtest(t)
		ask(&sub)
	})
}

// ID returns a container's id with the question's suffix, for places where the ids of several questions or runs meet.
func (q *Q) ID(id string) string { return q.Owner.ID(id) }

// Mkdir makes a directory below the question's own, and returns its path. It is removed with everything in it when the
// question ends. What is more than a file, such as a mount, has to be taken down before.
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

// verifyClean verifies that the question left nothing behind, or prints what was kept and how to look at it.
func (q *Q) verifyClean(before host.Inventory) {
	defer q.notes.out.flush()
	if q.keepsState() {
		q.printKept()
		return
	}
	// The kernel and the shim take a moment to release everything: look until nothing is left.
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
		if err := host.RemoveEmpty(q.Owner); err != nil {
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

// ignoreOwnDirs drops what belongs to the question and not to the experiment: the question's empty directory, and its empty
// cgroups. The runtime made these on its way down to the container's cgroup, and no runtime removes them.
func (q *Q) ignoreOwnDirs(cs []host.Change) []host.Change {
	var out []host.Change
	for _, c := range cs {
		own := c.Name == q.Dir
		if _, cgroup, _ := strings.Cut(c.Name, ":"); c.Kind == "cgroup" && (cgroup == q.Cgroup || filepath.Dir(cgroup) == "/") {
			own = true // the second is the cgroup of a containerd namespace, above those of its containers
		}
		if !own {
			out = append(out, c)
		}
	}
	return out
}
