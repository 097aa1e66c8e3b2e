//go:build linux

package lab

import (
	"slices"
	"sync"
)

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
