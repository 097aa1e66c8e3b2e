//go:build linux && vmlab && selftest

package selftest

import (
	"bufio"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/host"
	"cdblab/helpers/proc"
)

// A signal ends a run in which a dozen questions are asked at the same time. The questions go on while the run is swept, so they
// make things behind the sweep. When the run and its janitor are gone, nothing of the run is there. Nothing is waited for then.
func TestKilled_ARunOfManyQuestionsLeavesNothing(t *testing.T) {
	const busyQuestions = 6
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			l := newLab("-test.run=Lifecycle_Wh|Task_Wh", "-test.parallel=12")
			number := l.startUntilRun(t)
			var marks []string
			proc.WaitFor(t, func(poll.LogT) poll.Result {
				marks = questionMarks(t, number)
				if len(marks) < busyQuestions {
					return poll.Continue("%d questions of run %s have processes, not yet %d: %q", len(marks), number, busyQuestions, marks)
				}
				return poll.Success()
			})
			_, id, _ := strings.Cut(marks[0], ":")
			run, err := host.ParseMark(filepath.Join(host.Dir, number) + ":" + id)
			assert.NilError(t, err)
			janitor := proc.Snapshot(t, proc.PID(janitorOf(t, l.Process.Pid)))

			kill(t, l.Process.Pid, sig)
			_ = l.Wait()
			proc.WaitFor(t, proc.Dead(janitor.Identity))
			assertNothingLeft(t, run)
		})
	}
}

// startUntilRun starts the lab, and returns the number of its run as soon as the lab has printed it.
func (l *lab) startUntilRun(t *testing.T) string {
	t.Helper()
	l.Stdout, l.Stderr = nil, nil
	out, err := l.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, l.Start())
	lines := bufio.NewScanner(io.TeeReader(out, &l.out))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 2 && f[0] == "run" && filepath.Dir(f[1]) == host.Dir {
			go io.Copy(io.Discard, out)
			return filepath.Base(f[1])
		}
	}
	t.Fatalf("the lab ended before it printed the directory of its run. Its output:\n%s", l.out.String())
	return ""
}

// questionMarks returns the marks of the questions of a run that have processes.
func questionMarks(t *testing.T, run string) []string {
	t.Helper()
	processes, err := host.Processes()
	assert.NilError(t, err)
	var out []string
	for _, p := range processes {
		if strings.HasPrefix(p.Mark, filepath.Join(host.Dir, run, "q")) {
			out = append(out, p.Mark)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// assertNothingLeft asserts that a run has neither processes nor mounts, cgroups, sockets or files.
func assertNothingLeft(t *testing.T, run host.Owner) {
	t.Helper()
	processes, err := host.Processes()
	assert.NilError(t, err)
	for _, p := range processes {
		if p.OwnedBy(run) {
			t.Errorf("the run left something behind: process %s", p)
		}
	}
	inventory := takeInventory(t)
	others, err := host.RunsInProgress()
	assert.NilError(t, err)
	if slices.ContainsFunc(others, func(o host.Owner) bool { return o.Run == run.Run }) {
		return // another run on this machine has got the number, and the names with it
	}
	for _, kind := range []string{"mount", "cgroup", "socket", "socket file", "FIFO", "directory", "file"} {
		for name, description := range inventory[kind] {
			if run.Owns(name) || run.Owns(description) {
				t.Errorf("the run left something behind: %s %s %s", kind, name, description)
			}
		}
	}
}
