//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"cdblab/helpers/dist"
	"cdblab/helpers/results"
	"cdblab/helpers/vm"
)

// diskFlags are what lab disk and cdblab run -disk have in common.
type diskFlags struct {
	conf      vm.Config
	questions string
	timeout   time.Duration
	verbose   bool
	junit     string
	ofVM      []string // the flags for lab exec that were given
}

func (f *diskFlags) add(set *flag.FlagSet) {
	set.StringVar(&f.questions, "run", "", "ask only the questions that match this regular `expression`, like go test's -run")
	set.DurationVar(&f.timeout, "timeout", 90*time.Minute, "how long the questions may take")
	set.BoolVar(&f.verbose, "v", false, "show the notes of all questions in full")
	set.StringVar(&f.junit, "junit", "", "write the JUnit report to this `file` as well")
}

// diskMain asks the questions in a throw-away VM that boots a disk image. The settings of the VM are those of lab exec.
func diskMain(args []string) int {
	var f diskFlags
	set := flag.NewFlagSet("lab disk", flag.ExitOnError)
	f.conf.Flags(set)
	ofVM := map[string]bool{}
	set.VisitAll(func(fl *flag.Flag) { ofVM[fl.Name] = true })
	f.add(set)
	test2json := set.String("test2json", "", "the `path` of test2json: go tool -n test2json")
	_ = set.Parse(args)
	if f.conf.Disk == "" || *test2json == "" || set.NArg() > 0 {
		set.Usage()
		return 2
	}
	set.Visit(func(fl *flag.Flag) {
		if ofVM[fl.Name] {
			f.ofVM = append(f.ofVM, "-"+fl.Name+"="+fl.Value.String())
		}
	})
	if _, err := f.conf.CheckSettings(); err != nil {
		return exitCode(nil, err)
	}
	return f.run(*test2json, os.Args[0], results.Dir)
}

// checkNoProgram returns an error if the environment names a program under test, which a disk image has itself.
func checkNoProgram(get func(name string) string) error {
	for _, name := range []string{"RUNC", "CONTAINERD", "CTR", "SHIM"} {
		for _, variable := range []string{name, "CDB_" + name} {
			if value := get(variable); value != "" {
				return fmt.Errorf("%s is %q, and a disk image has programs of its own\n  what to do: leave out %s, or DISK",
					variable, value, variable)
			}
		}
	}
	return nil
}

// run asks the questions. program is this program, and all is the directory of all results.
func (f *diskFlags) run(test2json, program, all string) int {
	if err := checkNoProgram(os.Getenv); err != nil {
		logf("%v", err)
		return vm.FaultCode
	}
	if os.Getenv("CDB_STEP") == "1" {
		logf("a run cannot stop at each step in a disk image. For a prompt in it: make shell DISK=%s", f.conf.Disk)
		return vm.FaultCode
	}
	if err := checkSettings(); err != nil {
		return exitCode(nil, err)
	}
	r, err := newLabRun(all, func(dir string) ([]string, error) {
		dir, err := filepath.Abs(dir)
		argv := slices.Concat([]string{test2json, "-t", "-p", "cdblab", program, "exec"}, f.ofVM,
			[]string{"-disk", f.conf.Disk, "-tarball", f.conf.Tarball, fmt.Sprintf("-pinned=%v", f.conf.Pinned),
				"lab.test", "-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + f.timeout.String(),
				"-test.run=" + f.questions, "-test.artifacts", "-test.outputdir=" + dir})
		return argv, errors.Join(err, os.MkdirAll(filepath.Join(dir, "_artifacts"), 0o755))
	})
	if err != nil {
		logf("%v", err)
		return 1
	}
	return r.do("preparing a throw-away VM for "+f.conf.Disk, f.verbose, f.junit)
}

// askMain runs the questions of the tarball: in a VM that boots a disk of the user, and for a reader who stops at each step. It says
// first about which programs.
func askMain(tree dist.Tree, args []string) int {
	set := flag.NewFlagSet("cdblab ask", flag.ExitOnError)
	pinned := set.Bool("pinned", false, "ask about the programs of the tarball")
	_ = set.Parse(args)
	choose(tree, *pinned)
	err := os.Chdir(tree.WorkDir())
	if err == nil {
		err = syscall.Exec(tree.TestBinary(), append([]string{tree.TestBinary()}, set.Args()...), os.Environ())
	}
	logf("run the questions of %s: %v", tree, err)
	return 1
}
