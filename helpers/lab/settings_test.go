//go:build linux

package lab

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/slowness"
	"cdblab/helpers/syllabus"
	"cdblab/helpers/tools"
)

func TestCheckSettings_RefusesAValueWithoutAMeaning(t *testing.T) {
	for _, variable := range settings {
		t.Setenv(variable, "")
	}
	_, err := CheckSettings()
	assert.NilError(t, err)
	for variable, values := range map[string]map[string]bool{
		keepEnv:           {"": true, "0": true, "no": true, "false": true, "failed": true, "1": true, "faild": false, "all ": false},
		timeoutEnv:        {"": true, "90s": true, "5m": true, "5": false, "-1s": false, "0": false, "soon": false},
		disposableEnv:     {"": true, "yes": true, "no": true, "1": false, "YES": false},
		requireEnv:        {"": true, "all": true, "some": false},
		stepEnv:           {"": true, "1": true, "0": true, "yes": false},
		"CDB_DISK_PINNED": {"": true, "1": true, "0": true, "yes": false},
		tools.PinnedEnv: {
			"": true, "CDB_RUNC": true, "CDB_CTR,CDB_SHIM,CDB_BUSYBOX": true,
			"runc": false, "CDB_RUNC CDB_CTR": false, "CDB_RUNC, CDB_CTR": false, "CDB_RUNC,": false, "all": false,
		},
		tools.ReleasesEnv: {"": true, t.TempDir(): true, "/no/such/directory": false, "/etc/passwd": false},
		imageEnv: {
			"": true, "docker.io/library/busybox:latest": true, "localhost/none:1": true, "127.0.0.1:5000/a/b:1": true,
			"ghcr.io/a/b@sha256:" + strings.Repeat("0", 64): true,
			"busybox": false, "busybox:latest": false, "docker.io/library/busybox": false, "https://docker.io/library/busybox:1": false,
			"not an image": false, "localhost:1": false,
		},
		registryEnv: {
			"": true, "127.0.0.1:5000": true, "127.0.0.1:0": true, "[::1]:5000": true,
			"0.0.0.0:5000": false, ":5000": false, "192.0.2.1:5000": false, "127.0.0.1": false, "127.0.0.1:http": false,
			"localhost:5000": false, // what it is decides /etc/hosts
		},
	} {
		t.Run(variable, func(t *testing.T) {
			for value, good := range values {
				t.Setenv(variable, value)
				_, err := CheckSettings()
				assert.Check(t, cmp.Equal(err == nil, good), "%s=%q: %v", variable, value, err)
				if !good {
					assert.Check(t, cmp.ErrorContains(err, variable+"="+value))
					assert.Check(t, cmp.ErrorContains(err, "unset "+variable))
				}
			}
		})
	}
}

func TestCheckNames_RefusesAVariableThatNothingReads(t *testing.T) {
	assert.NilError(t, checkNames([]string{
		"PATH=/bin", "CDB_RUNC=/x", "CDB_RUN=/run/cdb-lab/1:0", "CDB_CDBLAB=/x", "CDB_TEST_X=1", "CDB_CTR_PACKAGE=x",
	}))
	err := checkNames([]string{"CDB_KEEP=1", "CDB_RUNCC=/x"})
	assert.ErrorContains(t, err, "CDB_RUNCC=/x has no meaning")
	assert.ErrorContains(t, err, "unset CDB_RUNCC\n  The variables are CDB_RUNC, ")
	assert.Check(t, !cmp.Contains(err.Error(), "CDB_KEEP=1")().Success())
}

// docs/settings.md and the table of variables name the same.
func TestSettings_AreThoseOfTheDocumentation(t *testing.T) {
	doc, err := os.ReadFile("../../docs/settings.md")
	assert.NilError(t, err)
	for _, name := range regexp.MustCompile(`CDB_[A-Z_]+`).FindAllString(string(doc), -1) {
		assert.Check(t, cmp.Contains(settings, name))
	}
}

func TestParseKeep(t *testing.T) {
	for value, want := range map[string]keepPolicy{
		"": keepNever, "0": keepNever, "no": keepNever, "false": keepNever, "failed": keepFailed, "1": keepAlways, "yes": keepAlways,
	} {
		got, err := parseKeep(value)
		assert.Check(t, err)
		assert.Check(t, cmp.Equal(got, want), "%s=%q", keepEnv, value)
	}
}

func TestCleanEnviron_ContainsNothingThatChangesTheProgramsUnderTest(t *testing.T) {
	got := inheritedFrom([]string{
		"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "LANG=C.UTF-8", "LC_ALL=C", "http_proxy=http://192.0.2.1:3128", "CDB_TIMEOUT=5m",
		"NOTIFY_SOCKET=/run/notify", "LISTEN_FDS=1", "LISTEN_PID=7", "CONTAINERD_NAMESPACE=k8s.io", "CONTAINERD_SNAPSHOTTER=native",
		"CONTAINERD_ADDRESS=/run/x", "RUNC_DEBUG=1", "XDG_RUNTIME_DIR=/run/user/0", "CDB_RUN=/run/cdb-lab/1:0123", "GRPC_TRACE=all",
	})
	assert.DeepEqual(t, got, []string{
		"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "LANG=C.UTF-8", "LC_ALL=C", "http_proxy=http://192.0.2.1:3128", "CDB_TIMEOUT=5m",
	})
}

// A pattern for subtests that matches none asks nothing, and go test says "ok".
func TestCounts_APatternThatMatchesNoSubtestIsRed(t *testing.T) {
	setRun(t, "TestTask_X/typo")
	c := &counts{asked: 1, answered: 1}
	assert.ErrorContains(t, c.verify(nil), `no subtest was asked: -run "TestTask_X/typo"`)
	c.subtests++
	assert.NilError(t, c.verify(nil))
}

// setRun sets go test's -run until the test ends.
func setRun(t *testing.T, pattern string) {
	t.Helper()
	run := flag.Lookup("test.run").Value.String()
	t.Cleanup(func() { _ = flag.Set("test.run", run) })
	assert.NilError(t, flag.Set("test.run", pattern))
}

// A question of which the user has selected subtests, and all of them were skipped, has answered nothing.
func TestCounts_AQuestionWhoseSelectedSubtestsWereSkippedIsNotAnswered(t *testing.T) {
	for _, c := range []struct {
		run     string
		skipped map[string]bool // the subtests, and whether they are skipped
		want    string          // in the error
	}{
		{"X/crun", map[string]bool{"X/crun": true}, "no question was answered: all 1 that were asked, or their subtests that -run selects,"},
		{"X/crun", map[string]bool{"X/crun": false}, ""},
		{"X/r", map[string]bool{"X/crun": true, "X/runc": false}, ""},
		{"X/outer/inner", map[string]bool{"X/outer": false, "X/outer/inner": true}, "no question was answered"},
		{"X/outer", map[string]bool{"X/outer": false, "X/outer/inner": true}, ""}, // all of the outer one was selected
		{"X/a|Y/b/c", map[string]bool{"X/a": false}, ""},
		{"X/a|Y/b/c", map[string]bool{"X/a": true}, "no question was answered"},
		{"X", map[string]bool{"X/crun": true}, ""}, // the rest of the question was answered
	} {
		t.Run(c.run, func(t *testing.T) {
			setRun(t, c.run)
			counted := &counts{asked: 1, names: map[string]bool{"X": true}}
			for name, skipped := range c.skipped {
				counted.subtest(name, skipped)
			}
			counted.ended("X", false, false)
			err := counted.verify([]syllabus.Question{{Test: "X"}})
			if c.want == "" {
				assert.Check(t, err)
			} else {
				assert.Check(t, cmp.ErrorContains(err, c.want))
			}
		})
	}
}

func TestRun_CountsASubtestThatWasSkipped(t *testing.T) {
	setRun(t, "X/sub")
	q, _, _ := recordedQuestion(t)
	q.TB = t
	q.Run("sub", func(q *Q) { q.Skip("this machine has no crun") })
	q.session.counts.ended(t.Name(), false, false)
	assert.Equal(t, q.session.counts.skipped, 1)
	q.Run("sub", func(*Q) {})
	q.session.counts.ended(t.Name(), false, false)
	assert.Equal(t, q.session.counts.answered, 1)
}

// A run in which everything was skipped has shown nothing.
func TestCounts_ARunWithoutAnAnswerIsRed(t *testing.T) {
	question := []syllabus.Question{{Test: "TestTask_X"}}
	for _, c := range []struct {
		counts *counts
		want   string // in the error
	}{
		{&counts{asked: 2, skipped: 2}, "no question was answered"},
		{&counts{asked: 2, skipped: 1, answered: 1}, ""},
		{&counts{asked: 2, skipped: 1, failed: 1}, ""}, // it is red already
	} {
		c.counts.names = map[string]bool{"TestTask_X": true}
		err := c.counts.verify(question)
		if c.want == "" {
			assert.Check(t, err)
		} else {
			assert.Check(t, cmp.ErrorContains(err, c.want))
		}
	}
}

func TestSkips_AreFailuresWhereAllIsRequired(t *testing.T) {
	var s skips
	s.add("TestTask_X/erofs", "this kernel has no erofs: modprobe erofs\n")
	s.add("TestBundle_X", "one CPU")
	table := []MaySkip{{Test: "TestTask_X/.*", Reason: "the cloud kernel has no erofs"}}
	t.Setenv(requireEnv, "")
	assert.NilError(t, s.verify(table))
	t.Setenv(requireEnv, "all")
	err := s.verify(table)
	assert.ErrorContains(t, err, "TestBundle_X was skipped, and CDB_REQUIRE=all demands an answer: one CPU")
	assert.Check(t, !cmp.Contains(err.Error(), "erofs")().Success())
	assert.NilError(t, s.verify(append(table, MaySkip{Test: "TestBundle_X"})))
	assert.ErrorContains(t, s.verify(append(table, MaySkip{Test: "TestBundle_X", Says: "hybrid"})), "demands an answer: one CPU",
		"an entry is for its reason only")
	assert.NilError(t, s.verify(append(table, MaySkip{Test: "TestBundle_X", Says: "^one"})))
	assert.ErrorContains(t, s.verify([]MaySkip{{Test: "TestBundle_"}, {Test: "TestTask_X/.*"}}), "TestBundle_X was skipped",
		"an entry matches the whole name")
}

// skipping is a testing.TB that records that it was skipped.
type skipping struct {
	testing.TB
	skipped *bool
}

func (s skipping) Skip(...any)          { *s.skipped = true }
func (s skipping) Skipf(string, ...any) { *s.skipped = true }

func TestQ_RecordsWhyItWasSkipped(t *testing.T) {
	q, _, _ := recordedQuestion(t)
	var skipped bool
	q.TB = skipping{t, &skipped}
	q.Skipf("this machine has no %s", "crun")
	q.Skip("one", "CPU")
	assert.Check(t, skipped)
	got := q.session.skips.sorted()
	assert.Assert(t, cmp.Len(got, 2))
	assert.Equal(t, got[0], skip{t.Name(), "this machine has no crun"})
	assert.Equal(t, got[1], skip{t.Name(), "one CPU"})
}

func TestCommandTimeout_IsLongerOnASlowMachineUnlessTheUserSetsIt(t *testing.T) {
	slowness.Set(3)
	t.Cleanup(func() { slowness.Set(1) })
	t.Setenv(timeoutEnv, "")
	assert.Check(t, commandTimeout() == 3*defaultTimeout, "it is %v", commandTimeout())
	t.Setenv(timeoutEnv, "5s")
	assert.Check(t, commandTimeout() == 5*time.Second, "it is %v", commandTimeout())
}
