//go:build linux

package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"cdblab/helpers/host"
)

// What questions of a run share lives as long as the run: it lies in the run's own directory, its processes carry the
// run's mark, and it is taken down when the last question has ended, however that ended.

// RunPart is the run under way, by name.
func RunOwner() host.Owner { return theRun.Owner }

// Shared makes a directory that the questions of the run share, and returns its path. Who calls it removes it, with
// [AtEnd].
func Shared(name string) (string, error) {
	dir := filepath.Join(theRun.Dir(), name)
	return dir, os.MkdirAll(dir, 0o755)
}

// SharedCmd is [Q.Cmd] for what serves all questions of the run: it works in a directory of [Shared].
func SharedCmd(dir string, argv ...string) (*exec.Cmd, error) {
	path, err := resolve(argv[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+binDir()+":"+os.Getenv("PATH"), host.OwnerEnv+"="+theRun.Dir())
	return cmd, nil
}

// resolve finds a program. The names of the chapter (runc, ctr) mean what is under test, not what the host's PATH has.
func resolve(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if under, ok := underTest[name]; ok {
		return under.Path, nil
	}
	return exec.LookPath(name)
}

var atEnd struct {
	mu  sync.Mutex
	all []func() error
}

// AtEnd registers a teardown for the end of the run. Where state is to be kept for a look, it is left out, as the
// teardown of a question is.
func AtEnd(f func() error) {
	atEnd.mu.Lock()
	defer atEnd.mu.Unlock()
	atEnd.all = append(atEnd.all, f)
}

// endShared runs what AtEnd registered, the last first.
func endShared() error {
	atEnd.mu.Lock()
	defer atEnd.mu.Unlock()
	var errs []error
	for i := len(atEnd.all) - 1; i >= 0; i-- {
		errs = append(errs, atEnd.all[i]())
	}
	atEnd.all = nil
	return errors.Join(errs...)
}
