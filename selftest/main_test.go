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
	"regexp"
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
	bystander := exec.Command("sleep", "3600")
	if err := bystander.Start(); err != nil {
		fmt.Println("selftest:", err)
		os.Exit(1)
	}
	go func() {
		_ = bystander.Wait()
		close(bystanderEnded)
	}()
	code := m.Run()
	_ = bystander.Process.Kill()
	os.Exit(code)
}

// bystanderEnded is closed when a process has ended that is in the cgroup of the test, as the runs are, and that is not the lab's.
var bystanderEnded = make(chan struct{})

// chapterQuestions selects the five questions of the chapter itself. Together they make every kind of thing that can be left
// behind.
const chapterQuestions = "-test.run=WhatDoesRuncNeed|GeneratedBundleRelate|WhatIsTheDifference|WhereDoesTheShimAppear|WhatCanContainerdTell"

// testMark is in the environment of each run of this test, and so in that of the programs that the run starts. A run of another
// user at the same time does not have it.
var testMark = fmt.Sprintf("CDB_SELFTEST=%d.%d", os.Getpid(), time.Now().UnixNano())

// lab is a run of the lab, in a process of its own.
type lab struct {
	*exec.Cmd
	out  bytes.Buffer
	rest chan string // what it prints after startUntil, until nothing has its output open
}

// newLab prepares a run of the lab with flags of the test binary ("-test.run=Task") and environment variables ("CDB_KEEP=1").
func newLab(flagsAndVariables ...string) *lab {
	l := &lab{Cmd: exec.Command("./" + testBinary)}
	l.Dir = root
	l.Env = append(os.Environ(), testMark)
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

// shell prepares a shell script that may call the lab's test binary as "$LAB". It works in the root directory of the module.
func shell(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, testBinary))
	assert.NilError(t, err)
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), testMark, "LAB="+path)
	return cmd
}

// tool returns a path of a program in .lab/bin without spaces and quotes, which the path of the checkout may have.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, ".lab", "bin", name))
	assert.NilError(t, err)
	link := filepath.Join(t.TempDir(), name)
	assert.NilError(t, os.Symlink(path, link))
	return link
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
				l.rest = make(chan string, 1)
				go func() {
					rest, _ := io.ReadAll(out)
					l.rest <- string(rest)
				}()
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
// ignores what comes and goes on any host by itself, and what belongs to runs that were in progress before, or are in progress
// now: the runs of the test itself have ended.
func assertHostUnchanged(t *testing.T, before host.Inventory) {
	t.Helper()
	var changes []host.Change
	// The janitor needs seconds on a busy machine. A host that is as it was costs no time.
	retry.Until(3*time.Minute, func() bool {
		others, err := host.RunsInProgress()
		assert.NilError(t, err)
		changes = slices.DeleteFunc(host.Diff(before, takeInventory(t)), func(c host.Change) bool {
			runs := others
			if c.Gone {
				runs = append(runsOf(before), others...)
			}
			return isOfOthers(c) || isBelowAnothersCgroup(before, c) || len(runs) > 0 && isOfAnyRun(c) ||
				slices.ContainsFunc(runs, func(o host.Owner) bool { return o.Owns(c.Name) || o.Owns(c.Description) })
		})
		return len(changes) == 0
	})
	for _, c := range changes {
		t.Errorf("the host is not as it was: %s", c)
	}
	select {
	case <-bystanderEnded:
		t.Error("the host is not as it was: a process that is not the lab's was ended")
	default:
	}
}

// isOfAnyRun reports whether a change is of what all runs of the lab share while one is in progress, or of a cgroup around one.
func isOfAnyRun(c host.Change) bool {
	return c.Name == host.Dir || strings.HasSuffix(c.Name, ":"+host.Cgroup) ||
		strings.Contains(c.Name, ":"+host.Cgroup+"/confined-") || // make sabotage and mutants
		c.Kind == "cgroup controller" || c.Name == filepath.Join(host.Dir, "cgroup.subtree_control")
}

// Where service managers, sessions, container managers and snapd make cgroups and mounts at any time.
var (
	othersCgroups = regexp.MustCompile(`:/(system|user|machine|init)\.(slice|scope)(/|$)`)
	othersMounts  = regexp.MustCompile(`^/(run/(user|credentials|systemd|docker|snapd)|proc/sys/fs|snap|var/(snap|lib/(docker|snapd)))(/| )`)
)

// named matches a path of which a component is the lab's or the test's. An id of others may have cdb in it: e66330cdb248.
var named = regexp.MustCompile(`(^|[:/])cdb`)

// isOfOthers reports whether a change is of what other programs do on any host, for example when a timer starts a service.
func isOfOthers(c host.Change) bool {
	switch c.Kind {
	case "process", "namespace":
		return c.Gone || !isOfTheTest(c.Description)
	case "socket": // of a terminal, of an agent
		return !strings.Contains(c.Name, "cdb") && !strings.Contains(c.Name, "containerd")
	case "cgroup":
		return othersCgroups.MatchString(c.Name) && !named.MatchString(c.Name)
	case "mount":
		return othersMounts.MatchString(c.Name)
	case "loop device":
		return !strings.Contains(c.Description, "cdb") && !strings.Contains(c.Description, "containerd")
	}
	return false
}

// isBelowAnothersCgroup reports whether a cgroup came or went below one that was there before and is not the lab's: a manager of
// containers or of sessions does that at any time. The names of the cgroups that this test makes to be left alone match [named].
func isBelowAnothersCgroup(before host.Inventory, c host.Change) bool {
	hierarchy, path, _ := strings.Cut(c.Name, ":/")
	top, _, below := strings.Cut(path, "/")
	_, known := before["cgroup"][hierarchy+":/"+top]
	return c.Kind == "cgroup" && below && known && !named.MatchString(path)
}

// isOfTheTest reports whether the description of a process is of one that a run of this test has started. The lab passes CDB_*
// variables on to the programs that it runs. A container has another environment, and a cgroup of the lab.
func isOfTheTest(description string) bool {
	if strings.Contains(description, "cdb-lab") {
		return true
	}
	_, pid, _ := strings.Cut(description, "pid ")
	pid, _, _ = strings.Cut(pid, " ")
	environ, _ := os.ReadFile(filepath.Join("/proc", pid, "environ"))
	return bytes.Contains(environ, []byte(testMark))
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

// sweepKilled runs `lab sweep` after a run was killed, and asserts that the sweep has found the leftovers. A run of another user
// sweeps as well when it begins, and may have been faster.
func sweepKilled(t *testing.T) {
	t.Helper()
	var swept string
	var others []host.Owner
	retry.Until(10*time.Second, func() (done bool) { // a child that the run had just forked has the run's lock until its execve
		swept += sweep(t)
		var err error
		others, err = host.RunsInProgress()
		assert.NilError(t, err)
		return len(others) > 0 || strings.Contains(swept, "swept /run/cdb-lab/")
	})
	t.Log(swept)
	assert.Check(t, len(others) > 0 || strings.Contains(swept, "swept /run/cdb-lab/"), "the sweep has found nothing: %q", swept)
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
