//go:build linux

package node

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	imageUse  = 30 * 24 * time.Hour // images, and package lists, that were not used for so long are removed
	maxImages = 8                   // of 300 MB each; each new version of a package makes one
)

// sweep removes what is not needed any more. No other process makes images, and a VM that has an image open keeps it.
func (s *store) sweep(now time.Time) {
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		if strings.HasPrefix(e.Name(), ".new-") { // of a process that was killed
			_ = os.RemoveAll(path)
		}
		if image, ok := strings.CutSuffix(path, ".qcow2.json"); ok && used(image+".qcow2").IsZero() {
			_ = os.Remove(path)
		}
	}
	lists, _ := os.ReadDir(filepath.Join(s.dir, "apt"))
	for _, e := range lists {
		dir := filepath.Join(s.dir, "apt", e.Name())
		if used(filepath.Join(dir, "fetched")).Before(now.Add(-imageUse)) {
			_ = os.RemoveAll(dir)
		}
	}
	images := s.images() // the most recently used first
	slices.SortFunc(images, func(a, b string) int { return used(recordOf(b)).Compare(used(recordOf(a))) })
	for i, path := range images {
		if i >= maxImages || used(recordOf(path)).Before(now.Add(-imageUse)) {
			_ = os.Remove(path)
			_ = os.Remove(recordOf(path))
		}
	}
}

// used returns the time of a file, or the zero time if the file does not exist.
func used(file string) time.Time {
	info, err := os.Stat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
