//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
	"cdblab/helpers/vm"
)

// fakeGo makes a directory in which a script stands for go, and goes there. The script gets the arguments of go test; STREAM is a
// stream of a run in which one question failed, one was skipped and one was answered.
func fakeGo(t *testing.T, script string) {
	t.Helper()
	stream, err := filepath.Abs("../../helpers/results/testdata/stream.json")
	assert.NilError(t, err)
	t.Setenv("STREAM", stream)
	t.Setenv("GITHUB_STEP_SUMMARY", "")
	t.Chdir(t.TempDir())
	assert.NilError(t, os.WriteFile("go", []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

// passed is a shell command that prints the stream of a run that has passed.
const passed = `grep -v TestLifecycle_WhatDoesPauseStop $STREAM | sed 's/"Action":"fail"/"Action":"pass"/'`

func latest(name string) string { return filepath.Join(results.Dir, results.Latest, name) }

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	assert.NilError(t, err)
	return string(data)
}

func TestRun_LeavesItsResults(t *testing.T) {
	fakeGo(t, "echo \"$@\" > args; echo 'go: downloading moon' >&2; cat $STREAM; exit 1")
	summary := filepath.Join(t.TempDir(), "summary")
	assert.NilError(t, os.WriteFile(summary, []byte("before\n"), 0o644))
	t.Setenv("GITHUB_STEP_SUMMARY", summary)
	assert.Equal(t, runMain([]string{"-junit", "reports/junit.xml", "--", "./go", "test", "-v", "-run", "Lifecycle", "."}), 1)

	dir, err := filepath.Abs(results.Dir)
	assert.NilError(t, err)
	assert.Check(t, cmp.Regexp("^test -json -artifacts -outputdir "+dir+`/[-0-9T]+ -run Lifecycle \.\n$`, readFile(t, "args")))
	assert.Equal(t, readFile(t, latest(results.StreamFile)), readFile(t, os.Getenv("STREAM")))
	for _, name := range []string{results.FactsFile, results.NotebookFile, results.SummaryFile, results.JUnitFile} {
		assert.Check(t, readFile(t, latest(name)) != "", name)
	}
	assert.Equal(t, readFile(t, "reports/junit.xml"), readFile(t, latest(results.JUnitFile)))
	assert.Equal(t, readFile(t, summary), "before\n"+readFile(t, latest(results.SummaryFile)))
	times := results.Times(results.Dir, "exec=")
	assert.Check(t, times["TestLifecycle_WhatDoesPauseStop"] > 0)
	assert.Check(t, cmp.Equal(len(times), 2), "a skipped question says nothing about the next run")
}

// The user's own directory for artifacts stays, and the transcripts are copied from there.
func TestRun_KeepsTheUsersArtifacts(t *testing.T) {
	fakeGo(t, `echo "$@" > args
mkdir out/_artifacts/1 && echo runc > out/_artifacts/1/transcript.sh
sed "s,/home/reader/cdblab/_results/_artifacts/[0-9]*,$PWD/out/_artifacts/1," $STREAM; exit 1`)
	assert.Equal(t, runMain([]string{"./go", "test", "-artifacts", "-outputdir", "out", "."}), 1)
	assert.Equal(t, readFile(t, "args"), "test -json -artifacts -outputdir out .\n")
	assert.Equal(t, readFile(t, "out/_artifacts/1/transcript.sh"), "runc\n")
	assert.Equal(t, readFile(t, latest("transcripts/TestLifecycle_WhatDoesPauseStop.sh")), "runc\n")
}

func TestRun_TheExitCode(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		want   int
	}{
		"passed":                     {passed, 0},
		"failed":                     {"cat $STREAM; exit 1", 1},
		"bad flag":                   {"echo 'flag provided but not defined: -moon' >&2; exit 2", 2},
		"nothing":                    {"exit 0", 1},
		"cut":                        {passed + "| head -200", 1},
		"no question":                {`echo '{"Action":"pass","Package":"cdblab"}'`, 1},
		"lost note":                  {passed + `| sed '0,/"Key":"fact","Value":"{/s//"Key":"fact","Value":"/'`, 1},
		"skipped":                    {passed + `| sed '/BetweenCreateAndStart/s/"Action":"pass"/"Action":"skip"/'`, 1},
		"text instead of the stream": {"echo 'ok cdblab 3s'", 1},
		"the machine failed":         {`printf '%s\n' '{"Action":"output","Test":"TestX","Output":"lab: the machine failed, so nothing is known about the tests (exit code 125)\n"}' '{"Action":"fail"}'; exit 1`, vm.FaultCode},
		"killed":                     {"cat $STREAM; kill -KILL $$", 1},
		"stopped":                    {"kill -INT $PPID; sleep 0.2; head -200 $STREAM; exit 1", 130},
		"terminated":                 {"kill -TERM $PPID; exec sleep 60", 143},
	} {
		t.Run(name, func(t *testing.T) {
			fakeGo(t, test.script)
			assert.Equal(t, runMain([]string{"./go", "test", "."}), test.want)
			for _, name := range []string{results.StreamFile, results.SummaryFile, results.JUnitFile} {
				_, err := os.Stat(latest(name))
				assert.Check(t, err, "what was seen is stored, also of a run that did not end")
			}
		})
	}
}

// A go that compiles has a child all the time. If only the children were ended, it would start others.
func TestRun_StopsAGoThatCompiles(t *testing.T) {
	fakeGo(t, "trap 'touch interrupted; exit 1' INT; (sleep 0.2; kill -TERM $PPID) & for i in 1 2 3 4 5 6 7 8; do sleep 1; done")
	assert.Equal(t, runMain([]string{"./go", "test", "."}), 143)
	_, err := os.Stat("interrupted")
	assert.NilError(t, err, "go went on")
}

func TestRun_SaysThatItWasStopped(t *testing.T) {
	fakeGo(t, "trap '' INT; kill -INT $PPID; sleep 0.2; cat $STREAM; printf '{\"Action\":\"outp'; exit 1")
	assert.Equal(t, runMain([]string{"./go", "test", "."}), 130)
	assert.Equal(t, len(results.Times(results.Dir, "exec=")), 0, "its times say nothing about the next run")
	for _, name := range []string{results.SummaryFile, results.JUnitFile} {
		want := readFile(t, latest(name))
		assert.Check(t, cmp.Contains(want, "The run was stopped (interrupt)"))
		assert.Equal(t, reportMain(nil), 0)
		assert.Check(t, cmp.Equal(readFile(t, latest(name)), want), "lab report makes it again")
	}
	assert.Check(t, cmp.Contains(readFile(t, latest(results.FactsFile)), `"failedAtEnd": true`))
}

// What the VM reports before the first test is how the run is prepared. After that it is a message of its own.
func TestRun_ShowsWhatTheVMPrepares(t *testing.T) {
	says := func(text string) string {
		return `printf '%s\n' '{"Action":"output","Package":"cdblab","Output":"lab: ` + text + `\n"}'`
	}
	fakeGo(t, says("booting Linux 6.1 in the VM")+"; "+passed+"; "+says("1 asked; 3.1 s"))
	code, out := said(t, func() int { return runMain([]string{"./go", "test", "."}) })
	assert.Equal(t, code, 0)
	assert.Check(t, cmp.Contains(out, "\nbooting Linux 6.1 in the VM\ncdblab: under test\n"))
	assert.Check(t, cmp.Contains(out, "\nlab: 1 asked; 3.1 s\n"))
}

// Without go there is a message and no run.
func TestRun_WithoutGo(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.Equal(t, runMain([]string{"./moon", "test", "."}), 1)
	assert.Check(t, cmp.Contains(readFile(t, latest(results.SummaryFile)), "start ./moon"))
	assert.Equal(t, runMain([]string{"./moon"}), 2)
}

// If the stream can't be stored, the run goes on, and has failed at the end.
func TestTee_GoesOnWithoutItsFile(t *testing.T) {
	var shown bytes.Buffer
	tee := &tee{in: strings.NewReader("a\nb\n"), to: failingWriter{}}
	assert.NilError(t, results.EachLine(tee, func(l []byte) { shown.Write(l) }))
	assert.Equal(t, shown.String(), "a\nb\n")
	assert.Check(t, cmp.ErrorIs(tee.err, errFull))
}

var errFull = errors.New("no space left on device")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

// said runs a function, and returns its exit code with what it has printed to standard output.
func said(t *testing.T, main func() int) (int, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "stdout")
	f, err := os.Create(file)
	assert.NilError(t, err)
	defer f.Close()
	was := os.Stdout
	os.Stdout = f
	defer func() { os.Stdout = was }()
	return main(), readFile(t, file)
}

// A file of the results that cannot be written keeps no other one from being written. But the run is not green: a CI would take the
// results for complete.
func TestRun_SaysWhichResultsCouldNotBeWritten(t *testing.T) {
	fakeGo(t, `while [ "$1" != -outputdir ]; do shift; done; mkdir "$2/index.html"; `+passed)
	code, out := said(t, func() int { return runMain([]string{"./go", "test", "."}) })
	assert.Equal(t, code, 1)
	assert.Check(t, cmp.Regexp(`The results could not be written in full: write .*/index.html: `, out))
	assert.Check(t, cmp.Contains(out, "\n1 passed, 0 failed, 1 skipped\n"))
	entries, err := os.ReadDir(latest(""))
	assert.NilError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	assert.DeepEqual(t, names, []string{
		results.FactsFile, results.NotebookFile, results.JUnitFile, results.StreamFile, results.SummaryFile,
		results.TranscriptsDir,
	})
	assert.Check(t, len(results.Times(results.Dir, "exec=")) > 0)
}

// onFullDisk says to a test that it runs in a mount namespace of its own.
const onFullDisk = "CDB_TEST_ON_FULL_DISK"

// Nothing is left of a file that does not fit on the disk: half a facts.json would be compared as a whole one.
func TestRun_OnAFullDisk(t *testing.T) {
	if os.Getenv(onFullDisk) == "" {
		inMountNamespace(t, onFullDisk)
		return
	}
	// The disk fills up when the run has ended, and before its results are written.
	fakeGo(t, `dd if=/dev/zero of=.lab/results/filler bs=4k 2>/dev/null; `+passed)
	assert.NilError(t, os.MkdirAll(results.Dir, 0o755))
	if err := syscall.Mount("tmpfs", results.Dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("this machine lets no user mount a small file system: %v; run the test as root", err)
	}
	t.Cleanup(func() { assert.Check(t, syscall.Unmount(results.Dir, syscall.MNT_DETACH)) })
	code, out := said(t, func() int { return runMain([]string{"./go", "test", "."}) })
	assert.Equal(t, code, 1)
	assert.Check(t, cmp.Contains(out, "store the stream: write .lab/results/"))
	assert.Check(t, cmp.Contains(out, "The results could not be written in full: "))
	for _, name := range []string{results.FactsFile, results.NotebookFile, results.SummaryFile, results.JUnitFile} {
		assert.Check(t, cmp.Regexp("write .lab/results/[-0-9T]+/"+name+": .*no space left on device", out))
		_, err := os.Stat(latest(name))
		assert.Check(t, os.IsNotExist(err), "%s is there: %v", name, err)
	}
	assert.Check(t, cmp.Contains(out, "\n1 passed, 0 failed, 1 skipped\n"), "the run itself goes on")
	entries, err := os.ReadDir(latest(""))
	assert.NilError(t, err)
	for _, e := range entries {
		assert.Check(t, e.Name() == results.StreamFile || e.IsDir(), "%s is left, and is not complete", e.Name())
	}
}

// inMountNamespace runs the test once more, in a mount namespace of its own, where the variable is set. No other process sees a mount
// of it.
func inMountNamespace(t *testing.T, variable string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOSPC) { // ENOSPC: max_user_namespaces is 0
		t.Skipf("this machine lets no user make a mount namespace: %v; run the test as root", err)
	}
	assert.NilError(t, err, "%s", out)
	if _, reason, skipped := bytes.Cut(out, []byte("run_test.go:")); skipped && bytes.Contains(out, []byte("--- SKIP")) {
		t.Skipf("%s", reason)
	}
	assert.Check(t, cmp.Contains(string(out), "--- PASS: "+t.Name()))
}

func TestWriteFile_SaysThatTheDiskIsFull(t *testing.T) {
	err := writeFile("/dev/full", func(w io.Writer) error {
		_, err := io.WriteString(w, "facts")
		return err
	})
	assert.Check(t, cmp.ErrorContains(err, "write /dev/full: "))
	assert.Check(t, cmp.ErrorContains(err, "no space left on device"))
}
