//go:build linux

package cgroup

import (
	"os"
	"path/filepath"

	"gotest.tools/v3/poll"
)

// StatReaches returns a check that succeeds when a counter in a file of a controller has reached n. The file has a key and a
// value on each line, such as cpu.stat.
func (g Group) StatReaches(controller, file, key string, n uint64) poll.Check {
	path := filepath.Join(g.Dir(controller), file)
	return func(poll.LogT) poll.Result {
		data, err := os.ReadFile(path)
		if err != nil {
			return poll.Error(err)
		}
		if got, err := stat(string(data), key); err != nil || got < n {
			return poll.Continue("%s in %s is %d (%v), not yet %d", key, path, got, err, n)
		}
		return poll.Success()
	}
}
