package results

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// Dir is the directory of the results of all runs, in the root directory of the module. Each run has a directory in it, whose
// name is the time at which the run began.
const Dir = ".lab/results"

// Latest is the symbolic link in [Dir] to the results of the last run.
const Latest = "latest"

const timeLayout = "2006-01-02T15-04-05"

// ofRun matches the names that NewDir gives.
var ofRun = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?$`)

// IsDirOfRun reports whether a directory has a name that [NewDir] gives: the time of a run.
func IsDirOfRun(name string) bool { return ofRun.MatchString(name) }

// NewDir makes the directory for the results of a run that begins now, in a directory for all runs. Two runs that begin in the
// same second get different directories.
func NewDir(all string, now time.Time) (string, error) {
	if err := os.MkdirAll(all, 0o755); err != nil {
		return "", err
	}
	name := now.Local().Format(timeLayout)
	for i := 1; ; i++ {
		dir := filepath.Join(all, name)
		if i > 1 {
			dir += fmt.Sprintf(".%d", i)
		}
		err := os.Mkdir(dir, 0o755)
		if !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
}

// Link makes the link in the directory for all runs that leads to a run.
func Link(all, dir string) error {
	return renameio.Symlink(filepath.Base(dir), filepath.Join(all, Latest))
}

// Prune removes the results of all runs except the newest ones, and returns how many it has removed. One that cannot be removed does
// not keep the others. A directory that was renamed is not touched.
func Prune(all string, keep int) (int, error) {
	entries, err := os.ReadDir(all)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !e.IsDir() || !ofRun.MatchString(e.Name()) })
	old := entries[:max(0, len(entries)-keep)] // ReadDir sorts them, and so does the time in their names
	removed := 0
	var errs []error
	for _, e := range old {
		if err := os.RemoveAll(filepath.Join(all, e.Name())); err != nil {
			errs = append(errs, err)
		} else {
			removed++
		}
	}
	return removed, errors.Join(errs...)
}
