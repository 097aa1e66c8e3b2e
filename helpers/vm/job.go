//go:build linux

package vm

import (
	"crypto/rand"
	_ "embed"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"cdblab/helpers/vm/protocol"
)

// guestProgram is what runs in the guest: a test binary or a shell.
type guestProgram struct {
	args      []string // args[0] is a path in the guest
	dir       string
	sourceDir string        // where the guest mounts protocol.SourceTree; "" for none
	mkdir     []string      // directories to create before the program starts
	results   []string      // files and directories that the guest sends back
	hostDir   string        // where they belong on the host, if results has one directory; "": at the same path
	boot      *bootWatch    // for a disk of the user; nil for the lab's own VM
	terminal  bool          // it needs a terminal
	timeout   time.Duration // the test binary's own -test.timeout; 0 for none
	files     fileTree      // the work disk: the program and its source tree
}

// shellScript prepares the chapter's bundle and starts a shell. It runs in the guest.
//
//go:embed shell.sh
var shellScript string

// shellProgram returns a shell on a terminal.
func shellProgram() *guestProgram {
	files := fileTree{}
	files.addContent(protocol.ProgramDir+"/shell.sh", shellScript)
	files.addDir(protocol.SourceTree)
	return &guestProgram{
		args: []string{"/bin/sh", protocol.ProgramDir + "/shell.sh"}, dir: "/root", terminal: true, files: files,
	}
}

// newJob returns the job that asks the guest to run p. toolEnv has the variables that name the tools in the guest.
func newJob(p *guestProgram, conf Config, toolEnv []string, mergeOutput bool) *protocol.Job {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	return &protocol.Job{
		Args:        guestArgs(p, conf),
		Env:         guestEnv(p.dir, toolEnv),
		Dir:         p.dir,
		SourceDir:   p.sourceDir,
		Mkdir:       p.mkdir,
		Results:     p.results,
		MergeOutput: mergeOutput,
		Terminal:    p.terminal,
		RandomSeed:  seed,
	}
}

// guestArgs returns the command line of the program in the guest. There, fewer tests run at a time than the lab's own number, unless the
// caller's own -parallel says otherwise: the guest has little memory, and under emulation each switch between processes costs dearly. All
// questions of two sections took 212 s with -parallel 1 on one emulated CPU, 303 s with 2 and 384 s with 8.
func guestArgs(p *guestProgram, conf Config) []string {
	if p.terminal || len(p.args) == 0 {
		return p.args
	}
	parallel := 2 * conf.CPUs
	if conf.Accel == "tcg" && conf.CPUs == 1 {
		parallel = 1
	}
	first := max(1, slices.Index(p.args, "--")+1) // of the test binary's arguments
	// Of two values the last one counts.
	return slices.Insert(slices.Clone(p.args), first, "-test.parallel="+strconv.Itoa(parallel))
}

// guestEnv returns the environment of the program in the guest.
func guestEnv(dir string, toolEnv []string) []string {
	env := append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "TMPDIR=/tmp",
		"PWD=" + dir, "CDB_DISPOSABLE=yes",
	}, toolEnv...)
	// Then the variables of the host, except those that are set already: the tools have other paths in the guest. If a
	// name had two values, Go would use the first one and a shell the last one.
	set := map[string]bool{}
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		set[name] = true
	}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "CDB_JANITOR":
			// It turns a test binary into the janitor of the run that it names, so the binary would ask nothing and exit 0.
			continue
		case "TERM", "GODEBUG", "GOTRACEBACK", "GORACE", "GOMAXPROCS":
		default:
			if set[name] || !strings.HasPrefix(name, "CDB_") {
				continue
			}
		}
		env = append(env, e)
	}
	return env
}
