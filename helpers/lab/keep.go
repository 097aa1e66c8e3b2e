//go:build linux

package lab

import (
	"os"
	"slices"
	"sync"
)

// keepEnv says which state is kept, so that a reader can look at it: of all questions (CDB_KEEP=1), or of those that fail
// (CDB_KEEP=failed).
const keepEnv = "CDB_KEEP"

// keepPolicy is which questions leave their state on the machine.
type keepPolicy int

const (
	keepNever keepPolicy = iota
	keepFailed
	keepAlways
)

// keepPolicyFromEnv returns the policy that keepEnv asks for. Every value that it does not know keeps all state.
func keepPolicyFromEnv() keepPolicy {
	switch os.Getenv(keepEnv) {
	case "", "0", "no":
		return keepNever
	case "failed":
		return keepFailed
	}
	return keepAlways
}

// keptDirs are the directories of the questions whose state is kept.
type keptDirs struct {
	mu   sync.Mutex
	dirs []string
}

func (k *keptDirs) add(dir string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirs = append(k.dirs, dir)
}

func (k *keptDirs) list() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.dirs)
}
