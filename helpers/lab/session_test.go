//go:build linux

package lab

import (
	"errors"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/host"
)

func TestOnce_MakesWhatQuestionsShareOnce(t *testing.T) {
	s := NewSession(fstest.MapFS{})
	var made atomic.Int32
	makeDaemon := func() (int, error) { return int(made.Add(1)), nil }
	var questions sync.WaitGroup
	for range 10 {
		questions.Go(func() {
			daemon, err := Once(s, "daemon", makeDaemon)
			assert.Check(t, err)
			assert.Check(t, cmp.Equal(daemon, 1))
		})
	}
	questions.Wait()
	registry, err := Once(s, "registry", func() (string, error) { return "another name", nil })
	assert.NilError(t, err)
	assert.Equal(t, registry, "another name")
}

func TestOnce_ReturnsTheSameErrorToEachQuestion(t *testing.T) {
	s := NewSession(fstest.MapFS{})
	failed, calls := errors.New("no daemon"), 0
	for range 2 {
		_, err := Once(s, "daemon", func() (int, error) { calls++; return 0, failed })
		assert.ErrorIs(t, err, failed)
	}
	assert.Equal(t, calls, 1)
}

func TestSession_RunsCleanupsInReverseOrderAndReportsAllErrors(t *testing.T) {
	s := NewSession(fstest.MapFS{})
	var order []int
	for i := range 3 {
		s.Cleanup(func() error {
			order = append(order, i)
			return []error{errors.New("first"), nil, errors.New("third")}[i]
		})
	}
	err := s.runCleanups()
	assert.DeepEqual(t, order, []int{2, 1, 0})
	assert.ErrorContains(t, err, "first")
	assert.ErrorContains(t, err, "third")
	assert.NilError(t, s.runCleanups(), "each runs once")
}

// What a killed ctr has mounted on a temporary directory is found by the sweep of the run.
func TestEnviron_TemporaryFilesAreTheRuns(t *testing.T) {
	t.Setenv("TMPDIR", "/elsewhere")
	s := NewSession(fstest.MapFS{})
	s.run = &host.Run{Owner: host.NewOwner("1", "")}
	shared, err := s.Cmd("/", "sh", "-c", "echo $TMPDIR")
	assert.NilError(t, err)
	q := &Q{TB: t, Dir: "/", session: s, env: &environment{}}
	for _, cmd := range []*exec.Cmd{shared, q.Cmd(t.Context(), "sh", "-c", "echo $TMPDIR")} {
		out, err := cmd.Output()
		assert.NilError(t, err)
		assert.Equal(t, string(out), "/run/cdb-lab/1/tmp\n")
	}
}

func TestKeepsState_FollowsThePolicy(t *testing.T) {
	for policy, want := range map[keepPolicy][2]bool{keepNever: {false, false}, keepFailed: {false, true}, keepAlways: {true, true}} {
		for i, failed := range []bool{false, true} {
			q := &Q{TB: failing{t, failed}, session: &Session{keep: policy}}
			assert.Check(t, cmp.Equal(q.keepsState(), want[i]), "policy %d, failed %v", policy, failed)
		}
	}
}

// failing is a testing.TB that has failed or not.
type failing struct {
	testing.TB
	failed bool
}

func (f failing) Failed() bool { return f.failed }

func TestRecover_FailsTheQuestionAndShowsTheStack(t *testing.T) {
	q, errors, _ := recordedQuestion(t)
	func() {
		defer q.Recover()
		var none []int
		t.Log(none[len(errors.errors)])
	}()
	assert.Assert(t, cmp.Len(errors.errors, 1))
	assert.Check(t, cmp.Contains(errors.errors[0], "the question panicked: runtime error: index out of range"))
	assert.Check(t, cmp.Contains(errors.errors[0], "TestRecover_FailsTheQuestionAndShowsTheStack"))
	func() { defer q.Recover() }()
	assert.Check(t, cmp.Len(errors.errors, 1), "no panic is no failure")
}

// A goroutine of a question may panic as well. The question asserts the error that Go returns.
func TestGo_APanicInAGoroutineIsAnErrorWithTheStack(t *testing.T) {
	failed := errors.New("no daemon")
	assert.Check(t, <-Go(func() error { return nil }))
	assert.Check(t, cmp.ErrorIs(<-Go(func() error { return failed }), failed))
	err := <-Go(func() error {
		var none []int
		return errors.Join(failed, errors.New(t.Name()[none[0]:]))
	})
	assert.Check(t, cmp.ErrorContains(err, "a goroutine of the question panicked: runtime error: index out of range"))
	assert.Check(t, cmp.ErrorContains(err, "TestGo_APanicInAGoroutineIsAnErrorWithTheStack"))
}
