//go:build linux

package mutants

import (
	"fmt"

	"github.com/gofrs/flock"
)

// Lock locks a file, or returns an error that says to wait.
func Lock(path string) (unlock func(), err error) {
	lock := flock.New(path, flock.SetPermissions(0o644))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("another process has locked %s: wait until it has ended", path)
	}
	return func() { _ = lock.Unlock() }, nil
}
