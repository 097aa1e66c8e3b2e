//go:build linux

package dist

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cdblab/helpers/tools"
)

// Top is the directory that the tarball unpacks to.
const Top = "cdblab"

// The files below [Top].
const (
	Program     = "cdblab"         // the command that users type
	TestBinary  = "lib/lab.test"   // the questions
	Test2JSON   = "lib/test2json"  // converts the output of the questions to the stream of go test -json
	Init        = "lib/lab-init"   // runs the questions in a VM that boots a disk of the user
	BinDir      = "bin"            // runc, containerd, ctr and the shim that go.mod pins, and busybox
	ReleasesDir = "releases"       // the earlier releases that questions compare with, without symbol tables
	WorkDir     = "chapter"        // the questions run in it: testdata has the tables that they compare with
	ChapterDir  = "chapter/" + Top // the source of the questions. A message names it from WorkDir: cdblab/task_test.go
	VersionFile = "VERSION"
	SumsFile    = "SHA256SUMS"
)

// Tree is the directory of a tarball that was unpacked.
type Tree string

// Find returns the tree that the running program is a part of. ok is false in a checkout.
func Find() (tree Tree, ok bool) {
	exe, err := os.Executable()
	if err != nil {
		return "", false
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", false
	}
	tree = Tree(filepath.Dir(exe))
	_, err = os.Stat(tree.path(SumsFile))
	return tree, err == nil && filepath.Base(exe) == Program
}

func (t Tree) path(name string) string { return filepath.Join(string(t), name) }

// Program returns the path of the program that users type.
func (t Tree) Program() string { return t.path(Program) }

// TestBinary returns the path of the questions.
func (t Tree) TestBinary() string { return t.path(TestBinary) }

// Test2JSON returns the path of the converter.
func (t Tree) Test2JSON() string { return t.path(Test2JSON) }

// WorkDir returns the directory in which the questions run.
func (t Tree) WorkDir() string { return t.path(WorkDir) }

// Chapter returns the directory with the source of the questions.
func (t Tree) Chapter() string { return t.path(ChapterDir) }

// Version returns what the tarball was built from, in one line.
func (t Tree) Version() string {
	data, err := os.ReadFile(t.path(VersionFile))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}

// Verify compares each file with its digest in [SumsFile]. The error names what is missing or damaged.
func (t Tree) Verify() error {
	f, err := os.Open(t.path(SumsFile))
	if err != nil {
		return err
	}
	defer f.Close()
	var errs []error
	lines := bufio.NewScanner(f)
	n := 0
	for ; lines.Scan(); n++ {
		want, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			return fmt.Errorf("%s: line %d is no digest: unpack the tarball again", f.Name(), n+1)
		}
		got, err := tools.Digest(t.path(name))
		if err == nil && got != "sha256:"+want {
			err = fmt.Errorf("%s is damaged: its digest is %s, and %s has %s", t.path(name), got, SumsFile, want)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, lines.Err())...); err != nil {
		return fmt.Errorf("the unpacked tarball is not complete: %w\nunpack it again", err)
	}
	if n == 0 {
		return fmt.Errorf("%s is empty: unpack the tarball again", f.Name())
	}
	return nil
}
