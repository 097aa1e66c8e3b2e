//go:build linux

package vm

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cdblab/helpers/vm/protocol"
)

// maxSourceFile is the size of the largest file of the source tree that the guest gets.
const maxSourceFile = 64 << 20

// testProgram returns a test binary, argv[0], with its arguments and the source tree that it runs in. All paths in the
// guest are those of the host.
func testProgram(ctx context.Context, argv []string, log func(string, ...any)) (*guestProgram, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(argv[0])
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(binary); err != nil || !info.Mode().IsRegular() {
		return nil, &Fault{
			Tried: "find the test binary " + binary, Seen: "there is no such file",
			Do: "run the lab with make lab, or with go test -exec 'lab exec'",
		}
	}
	sourceDir := moduleRoot(dir)
	if sourceDir == "" {
		sourceDir = dir
	}
	guestPath := protocol.ProgramDir + "/" + filepath.Base(binary)
	files := fileTree{}
	if err := files.addProgram(ctx, guestPath, binary); err != nil {
		return nil, err
	}
	files.addDir(protocol.SourceTree)
	err = files.addHostDir(protocol.SourceTree, sourceDir, func(rel string, d fs.DirEntry) (skip bool) {
		name := d.Name()
		// Caches and results in the top directory: the tests do not need them.
		top := !strings.Contains(rel, "/") && (strings.HasPrefix(name, ".") || name == "_artifacts") && d.IsDir()
		if top || name == ".git" || strings.HasSuffix(name, ".test") {
			return true
		}
		// No test needs a file of this size. It is a disk image, or an archive.
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() && info.Size() > maxSourceFile {
			log("the VM does not get %s, which has %d MB", rel, info.Size()>>20)
			return true
		}
		return false
	})
	if err != nil {
		return nil, &Fault{Tried: "read the source tree " + sourceDir, Seen: err.Error(), Do: "make it readable for you"}
	}
	p := &guestProgram{
		args: append([]string{guestPath}, argv[1:]...), dir: dir, sourceDir: sourceDir,
		timeout: testTimeout(argv), files: files,
	}
	p.results, p.mkdir = testResults(argv[1:], dir)
	return p, nil
}

// testResults returns the files and directories that a test binary writes with these flags, and the directories that
// must exist before it starts.
//
// Only these files are sent back. A guest that misbehaves can write only the files that the caller asked for.
func testResults(args []string, dir string) (results, mkdir []string) {
	value := map[string]string{}
	for _, a := range args {
		if name, v, ok := strings.Cut(strings.TrimLeft(a, "-"), "="); ok && strings.HasPrefix(a, "-") {
			value[strings.TrimPrefix(name, "test.")] = v
		} else if strings.HasPrefix(a, "-") {
			value[strings.TrimPrefix(name, "test.")] = "true"
		}
	}
	out := dir
	if v := value["outputdir"]; v != "" {
		out = absIn(dir, v)
		mkdir = append(mkdir, out)
	}
	for _, name := range []string{"coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace"} {
		if v := value[name]; v != "" {
			v = absIn(out, v) // as package testing does
			results, mkdir = append(results, v), append(mkdir, filepath.Dir(v))
		}
	}
	if v := value["gocoverdir"]; v != "" {
		v = absIn(dir, v)
		results, mkdir = append(results, v), append(mkdir, v)
	}
	if v := value["testlogfile"]; v != "" {
		// This file tells go test on which files the result depends, for its cache. The guest's files are not the
		// host's, so this file is not sent back. But the test binary must be able to write it.
		mkdir = append(mkdir, filepath.Dir(v))
	}
	if value["artifacts"] == "true" {
		results = append(results, filepath.Join(out, "_artifacts"))
	}
	return results, mkdir
}

// absIn returns p as an absolute path; a relative p lies below dir.
func absIn(dir, p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(dir, p)
}

// testTimeout returns the test binary's own -test.timeout, or 0.
func testTimeout(args []string) time.Duration {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "-test.timeout="); ok {
			d, _ := time.ParseDuration(v)
			return d
		}
	}
	return 0
}

// TestCount is the number of tests at the top level that passed, failed and were skipped.
type TestCount struct{ Passed, Failed, Skipped int }

func (c TestCount) String() string {
	return fmt.Sprintf("%d asked, %d answered, %d failed, %d skipped", c.Passed+c.Failed+c.Skipped, c.Passed, c.Failed, c.Skipped)
}

// testCounter counts the lines "--- PASS: " and so on in a test binary's output, except those of subtests. A test binary prints
// these lines with -v, and for failures.
type testCounter struct {
	count TestCount
	line  []byte // the beginning of the line that is being written
}

func (t *testCounter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		if room := 1024 - len(t.line); room > 0 { // the verdict and the name of a test
			t.line = append(t.line, part[:min(room, len(part))]...)
		}
		if ended {
			t.countLine()
			t.line = t.line[:0]
		}
		rest = after
	}
	return len(b), nil
}

func (t *testCounter) countLine() {
	// With -json, test2json's marker comes first, and the lines of subtests are not indented: their names have a slash.
	l := bytes.TrimPrefix(t.line, []byte{0x16})
	verdict, name, _ := bytes.Cut(l, []byte(": "))
	if name, _, _ = bytes.Cut(name, []byte(" (")); bytes.ContainsRune(name, '/') {
		return
	}
	switch string(verdict) {
	case "--- PASS":
		t.count.Passed++
	case "--- FAIL":
		t.count.Failed++
	case "--- SKIP":
		t.count.Skipped++
	}
}
