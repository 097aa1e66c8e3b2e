//go:build linux && vmlab && selftest

// Package selftest tests the lab itself: that nothing stays behind however a run ends, that two runs do not disturb each other,
// that the host's own containerd runs on unharmed, that a runtime which breaks a promise fails the lab, and that error
// messages name the cause and the remedy. Like the lab, it needs root and a disposable VM. It needs the programs that `make
// selftest` builds before.
package selftest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"cdblab/helpers/host"
	"cdblab/helpers/retry"
)

const (
	root       = ".."            // of the module; go test runs the lab's test binary there
	testBinary = ".lab/lab.test" // as `make selftest` builds it
	labCommand = ".lab/bin/lab"  // as `make selftest` builds it
)

func TestMain(m *testing.M) {
	for _, f := range []string{testBinary, labCommand} {
		if _, err := os.Stat(filepath.Join(root, f)); err != nil {
			fmt.Println("selftest:", err, "\n  run: make selftest")
			os.Exit(1)
		}
	}
	if os.Geteuid() != 0 {
		fmt.Println("selftest: needs root, as the lab does.\n  run: make selftest")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// chapterQuestions selects the five questions of the chapter itself. Together they make every kind of thing that can be left
// behind.
const chapterQuestions = "-test.run=WhatDoesRuncNeed|GeneratedBundleRelate|WhatIsTheDifference|WhereDoesTheShimAppear|WhatCanContainerdTell"

// lab is a run of the lab, in a process of its own.
type lab struct {
	*exec.Cmd
	out bytes.Buffer
}

// newLab prepares a run of the lab with flags of the test binary ("-test.run=Task") and environment variables ("CDB_KEEP=1").
func newLab(flagsAndVariables ...string) *lab {
	l := &lab{Cmd: exec.Command("./" + testBinary)}
	l.Dir = root
	l.Env = os.Environ()
	for _, word := range flagsAndVariables {
		if strings.HasPrefix(word, "-") {
			l.Args = append(l.Args, word)
		} else {
			l.Env = append(l.Env, word)
		}
	}
	l.Stdout, l.Stderr = &l.out, &l.out
	return l
}

// run runs the lab, waits for its end, and returns its exit code and its output.
func (l *lab) run(t *testing.T) (int, string) {
	t.Helper()
	_ = l.Cmd.Run()
	return l.ProcessState.ExitCode(), l.out.String()
}

// startUntil starts the lab. It returns when the lab has noted the nth command that contains text, and is about to run it.
func (l *lab) startUntil(t *testing.T, text string, nth int) {
	t.Helper()
	l.Args = append(l.Args, "-test.v", "-test.parallel=1") // one question at a time, and each note is printed at once
	l.Stdout, l.Stderr = nil, nil
	out, err := l.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, l.Start())
	lines := bufio.NewScanner(io.TeeReader(out, &l.out))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "         $ ") && strings.Contains(lines.Text(), text) {
			if nth--; nth <= 0 {
				go io.Copy(io.Discard, out)
				return
			}
		}
	}
	t.Fatalf("the lab ended before it noted %q. Its output:\n%s", text, l.out.String())
}

func takeInventory(t *testing.T) host.Inventory {
	t.Helper()
	inventory, err := host.TakeInventory()
	assert.NilError(t, err)
	return inventory
}

// runsOf returns the runs that have a directory in an inventory.
func runsOf(inventory host.Inventory) []host.Owner {
	var out []host.Owner
	for dir := range inventory["directory"] {
		if filepath.Dir(dir) == host.Dir {
			out = append(out, host.NewOwner(filepath.Base(dir), ""))
		}
	}
	return out
}

// assertHostUnchanged asserts that the host is as it was: nothing of the lab is left, and nothing else has changed either. It
// ignores other programs' processes and sockets, because those come and go on any host. It ignores what belongs to runs that were
// in progress before, or are in progress now: the runs of the test itself have ended.
func assertHostUnchanged(t *testing.T, before host.Inventory) {
	t.Helper()
	var changes []host.Change
	retry.Until(15*time.Second, func() bool {
		others, err := host.RunsInProgress()
		assert.NilError(t, err)
		changes = slices.DeleteFunc(host.Diff(before, takeInventory(t)), func(c host.Change) bool {
			runs := others
			if c.Gone {
				runs = append(runsOf(before), others...)
			}
			if len(runs) > 0 && (c.Name == host.Dir || strings.HasSuffix(c.Name, ":"+host.Cgroup)) ||
				slices.ContainsFunc(runs, func(o host.Owner) bool { return o.Owns(c.Name) || o.Owns(c.Description) }) {
				return true
			}
			switch c.Kind {
			case "socket": // of a terminal, of an agent: any program on the host may open one
				return !strings.Contains(c.Name, "cdb") && !strings.Contains(c.Name, "containerd")
			case "process", "namespace":
				return c.Gone || !isOfTheLab(c.Description)
			}
			return false
		})
		return len(changes) == 0
	})
	for _, c := range changes {
		t.Errorf("the host is not as it was: %s", c)
	}
}

// isOfTheLab reports whether the description of a process names the lab, or one of the programs that the lab runs.
func isOfTheLab(description string) bool {
	return slices.ContainsFunc([]string{"cdb-lab", "(runc", "(containerd", "(ctr)", "(lab.test)", "(exe)"}, func(name string) bool {
		return strings.Contains(description, name)
	})
}

// sweep runs `lab sweep` and returns its output.
func sweep(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("./"+labCommand, "sweep")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

// janitorOf returns the pid of a run's janitor, which is a child of the run's process until that dies.
func janitorOf(t *testing.T, pid int) int {
	t.Helper()
	processes, err := host.Processes()
	assert.NilError(t, err)
	for _, p := range processes {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if int(p.Parent) == pid && strings.HasPrefix(string(args), "cdb-lab-janitor") {
			return int(p.PID)
		}
	}
	t.Fatalf("the run with pid %d has no janitor", pid)
	return 0
}

func kill(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	assert.NilError(t, unix.Kill(pid, sig))
}
