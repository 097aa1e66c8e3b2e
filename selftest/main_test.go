//go:build linux && vmlab && selftest

// Package selftest tests the lab itself: that nothing stays behind however a run ends, that two runs do not meet, that a
// containerd of the host's own runs on unharmed, and that what is wrong is said. It takes root and a disposable VM, as
// the lab does, and the programs that `make selftest` builds before.
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
)

// The lab's test binary and its command, as `make selftest` builds them; and the module's root, where go test would run
// the binary.
const (
	root       = ".."
	testBinary = ".lab/lab.test"
	command    = ".lab/bin/lab"
)

func TestMain(m *testing.M) {
	for _, f := range []string{testBinary, command} {
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

// starred are the five questions of the chapter itself, which stand for all: together they make everything that can be
// left behind.
const starred = "-test.run=WhatDoesRuncNeed|GeneratedBundleRelate|WhatIsTheDifference|WhereDoesTheShimAppear|WhatCanContainerdTell"

// lab is a run of the lab.
type lab struct {
	*exec.Cmd
	out bytes.Buffer
}

// newLab prepares a run of the lab with flags of the test binary ("-test.run=Task") and variables ("CDB_KEEP=1").
func newLab(words ...string) *lab {
	l := &lab{Cmd: exec.Command("./" + testBinary)}
	l.Dir = root
	l.Env = os.Environ()
	for _, w := range words {
		if strings.HasPrefix(w, "-") {
			l.Args = append(l.Args, w)
		} else {
			l.Env = append(l.Env, w)
		}
	}
	l.Stdout, l.Stderr = &l.out, &l.out
	return l
}

// run runs the lab to its end and returns its exit code and what it printed.
func (l *lab) run(t *testing.T) (int, string) {
	t.Helper()
	_ = l.Cmd.Run()
	return l.ProcessState.ExitCode(), l.out.String()
}

// startUntil starts the lab and returns when it has noted the nth command that has the words in it.
func (l *lab) startUntil(t *testing.T, words string, nth int) {
	t.Helper()
	l.Args = append(l.Args, "-test.v", "-test.parallel=1") // one by one, and each note at once
	l.Stdout, l.Stderr = nil, nil
	out, err := l.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, l.Start())
	lines := bufio.NewScanner(io.TeeReader(out, &l.out))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "         $ ") && strings.Contains(lines.Text(), words) {
			if nth--; nth <= 0 {
				go io.Copy(io.Discard, out)
				return
			}
		}
	}
	t.Fatalf("the lab ended before that:\n%s", l.out.String())
}

func picture(t *testing.T) host.Inventory {
	t.Helper()
	p, err := host.TakeInventory()
	assert.NilError(t, err)
	return p
}

// assertSame asserts that the host is as it was: not only that nothing of the lab's is left, but that nothing at all has
// changed; but for processes that are none of the lab's programs, for those come and go on any host.
func assertSame(t *testing.T, before host.Inventory) {
	t.Helper()
	var changes []host.Change
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		changes = slices.DeleteFunc(host.Diff(before, picture(t)), func(c host.Change) bool {
			if c.Kind == "socket" { // a terminal, an agent: anybody on the host may open one
				return !strings.Contains(c.Name, "cdb") && !strings.Contains(c.Name, "containerd")
			}
			if c.Kind != "process" && c.Kind != "namespace" {
				return false
			}
			ours := strings.Contains(c.Description, "cdb-lab")
			for _, name := range []string{"(runc", "(containerd", "(ctr)", "(lab.test)", "(exe)"} {
				ours = ours || strings.Contains(c.Description, name)
			}
			return c.Gone || !ours
		})
		if len(changes) == 0 || time.Now().After(deadline) {
			break
		}
	}
	for _, c := range changes {
		t.Errorf("the host is not as it was: %s", c)
	}
}

func sweep(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("./"+command, "sweep")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

// janitorOf finds the janitor of a run, which is the run's child until the run dies.
func janitorOf(t *testing.T, pid int) int {
	t.Helper()
	ps, err := host.Processes()
	assert.NilError(t, err)
	for _, p := range ps {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if int(p.Parent) == pid && strings.HasPrefix(string(args), "cdb-lab-janitor") {
			return int(p.PID)
		}
	}
	t.Fatalf("run %d has no janitor", pid)
	return 0
}

func kill(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	assert.NilError(t, unix.Kill(pid, sig))
}
