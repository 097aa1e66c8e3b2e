//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cdblab/helpers/host"
	"cdblab/helpers/syllabus"
	"cdblab/helpers/tools"
)

// Scope says what a question does to the machine, in the chapter's words.
type Scope string

// The three scopes.
const (
	MutatesVM    Scope = "VM-only mutation" // it makes processes, mounts, cgroups, snapshots
	InspectsOnly Scope = "inspect-only"     // it only reads, once the state exists
	NoRoot       Scope = "no root"          // it reads sources and specifications
)

// Option changes how a question is asked.
type Option func(*options)

type options struct{ alone string }

// Alone returns the option to ask a question while no other question is asked. The reason says what other questions would
// disturb.
func Alone(reason string) Option { return func(o *options) { o.alone = reason } }

// Question begins a question. It is asked at the same time as others, unless it is [Alone]. Those that the chapter itself asks are asked
// one by one and before the others: go test runs what is not parallel first. When a question has ended and its cleanups have run, nothing
// that it made may be left. A leftover fails the question, by name, and is then swept, so that the next question finds the host in the
// same state as this one did.
func (s *Session) Question(t *testing.T, scope Scope, text string, opts ...Option) *Q {
	t.Helper()
	var o options
	for _, option := range opts {
		option(&o)
	}
	if o.alone == "" && !slices.Contains(syllabus.Chapter, t.Name()) {
		t.Parallel()
	}
	if s.stepping.hasEnded() {
		t.Skip("the reader has ended the run")
	}
	openLastRun()
	s.counts.count(t) // first, so that its cleanup is the last one and counts what fails in the others
	q := s.newQ(t)
	q.notes.question(string(scope), text, s.stack)
	q.logSetUp("cd "+q.Dir, "mkdir -p "+q.Dir+" "+s.binDir()+" && cd "+q.Dir)
	path := "export PATH=" + s.binDir() + ":$PATH"
	q.logSetUp(path, s.linkTools()+path)
	return q
}

// linkTools returns the shell commands that link the programs under test into binDir, for a transcript that is run again.
func (s *Session) linkTools() string {
	var b strings.Builder
	for _, tool := range tools.All {
		if p, ok := s.tools[tool.Name]; ok {
			fmt.Fprintln(&b, quote([]string{"ln", "-sf", p.Path, filepath.Join(s.binDir(), p.Name)}))
		}
	}
	return b.String()
}

// Benchmark begins a benchmark. It has a question's directory, cgroup and teardown, and takes no notes.
func (s *Session) Benchmark(b *testing.B) *Q {
	b.Helper()
	return s.newQ(b)
}

func (s *Session) newQ(tb testing.TB) *Q {
	tb.Helper()
	if s.run == nil {
		tb.Fatal("a question needs a run: call Session.Run in TestMain")
	}
	owner := s.run.OfQuestion(fmt.Sprintf("q%d", s.lastQuestion.Add(1)))
	q := &Q{TB: tb, Dir: owner.Dir(), Cgroup: owner.Cgroup(), Owner: owner, session: s, env: &environment{}}
	q.notes = newNotes(tb, owner, s)
	q.before = q.TakeInventory()
	if err := os.Mkdir(q.Dir, 0o755); err != nil {
		tb.Fatalf("make the question's directory: %v", err)
	}
	tb.Cleanup(func() { q.verifyClean(q.before) }) // registered first, so it runs last
	q.SetCommandEnv(host.OwnerEnv, q.Owner.Mark())
	return q
}

// Run asks a subtest of the question, in the same directory and cgroup. Its notes continue those of the question.
func (q *Q) Run(name string, ask func(q *Q)) bool {
	q.Helper()
	t, ok := q.TB.(*testing.T)
	if !ok {
		q.Fatal("a benchmark has no subtests")
	}
	defer q.endIfEnded()
	return t.Run(name, func(t *testing.T) {
		sub := *q
		sub.TB = t
		sub.notes = q.notes.subtest(t)
		defer func() { q.session.counts.subtest(t.Name(), t.Skipped()) }() // deferred: a skip ends the goroutine
		defer sub.Recover()
		ask(&sub)
	})
}
