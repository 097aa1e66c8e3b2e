//go:build linux

package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"cdblab/helpers/host"
	"cdblab/helpers/rootfs"
	"cdblab/helpers/syllabus"
	"cdblab/helpers/tools"
)

// Session is one run of the lab. It has what all questions of the run share. TestMain makes the session, and questions are
// asked through it.
type Session struct {
	chapter      fs.FS
	syllabus     []syllabus.Question
	tools        map[string]tools.Program // by the name that the chapter types
	stack        stack                    // see Session.describe
	rootfs       *rootfs.FS
	run          *host.Run // nil until Run has begun
	keep         keepPolicy
	stepping     *stepping    // nil: the run does not stop at each step
	oneByOne     bool         // no two questions are asked at the same time
	lastQuestion atomic.Int32 // number of the question that was begun last; its directory has this number
	counts       counts
	skips        skips
	maySkip      []MaySkip
	clauses      clauses
	kept         keptDirs
	signalled    atomic.Bool // a signal ends the run

	mu       sync.Mutex
	shared   map[string]any // see [Once]
	cleanups []func() error
}

// NewSession prepares a run of the questions in chapter, which has the chapter's source files. The table has what may be skipped
// where CDB_REQUIRE=all demands that all questions are answered.
func NewSession(chapter fs.FS, table ...MaySkip) *Session {
	return &Session{chapter: chapter, maySkip: table, shared: map[string]any{}}
}

// Owner returns the owner of what the questions of the run share.
func (s *Session) Owner() host.Owner { return s.run.Owner }

// Once returns what the questions of a session share under a name. The first question that calls Once for a name makes it,
// and other questions wait until it is made. If it has files, use [Session.Mkdir]; if it has processes, use [Session.Cmd];
// register with [Session.Cleanup] how it is taken down.
func Once[T any](s *Session, name string, make func() (T, error)) (T, error) {
	s.mu.Lock()
	once, ok := s.shared[name].(func() (T, error))
	if !ok {
		once = sync.OnceValues(make)
		s.shared[name] = once
	}
	s.mu.Unlock()
	return once()
}

// Mkdir makes a directory that the questions of the run share, and returns its path. The caller removes it in a
// [Session.Cleanup].
func (s *Session) Mkdir(name string) (string, error) {
	dir := filepath.Join(s.run.Dir(), name)
	return dir, os.MkdirAll(dir, 0o755)
}

// Cleanup registers a function that takes down what questions share. The functions are called when the last question has
// ended, in reverse order. They are not called if state is kept.
func (s *Session) Cleanup(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *Session) runCleanups() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, s.cleanups[i]())
	}
	s.cleanups = nil
	return errors.Join(errs...)
}

// binDir has each program under test under the name that the chapter types.
func (s *Session) binDir() string { return filepath.Join(s.run.Dir(), "bin") }

// tmpDir has the temporary files of the commands. ctr mounts a snapshot there: a sweep finds the mount if ctr was killed.
func (s *Session) tmpDir() string { return filepath.Join(s.run.Dir(), "tmp") }

// environ returns the environment with which the session's commands start.
func (s *Session) environ(path string) []string {
	return append(cleanEnviron(), "PATH="+path, "TMPDIR="+s.tmpDir())
}

// lookPath finds a program. The chapter's names (runc, ctr) are the programs under test, not those in the host's PATH.
func (s *Session) lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if program, ok := s.tools[name]; ok {
		return program.Path, nil
	}
	return exec.LookPath(name)
}

// Cmd is [Q.Cmd] for a program that serves all questions of the run. It works in a directory of [Session.Mkdir].
func (s *Session) Cmd(dir string, argv ...string) (*exec.Cmd, error) {
	path, err := s.lookPath(argv[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Dir = dir
	cmd.Env = append(s.environ(s.binDir()+":"+os.Getenv("PATH")), host.OwnerEnv+"="+s.run.Mark())
	return cmd, nil
}
