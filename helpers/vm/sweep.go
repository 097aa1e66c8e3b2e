//go:build linux

package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What stays in the cache although no run needs it at the moment.
const (
	tempAge   = time.Hour           // temporary files: no run works on one for so long
	imageAge  = 7 * 24 * time.Hour  // images and pid 1: both are made again within seconds
	kernelUse = 30 * 24 * time.Hour // kernels, and the lab's own package lists: both have to be fetched again
	maxImages = 10                  // of 140 MB each; every change of a tool makes one
)

// sweep removes what is not needed any more. No other run uses the cache.
func (c *Cache) sweep(now time.Time) {
	for _, dir := range []string{c.dir, c.path("kernel")} {
		for _, e := range entries(dir) {
			// .new-* and .fetch-*: of commit. .lab-*: of unnamedFile. .disk-*, .esp-*: of inspectDisk. erofs-*: of go-erofs. .*.json: of
			// renameio. .back-*, .root-*, init-*.new-*: of older versions of the lab.
			name := e.Name()
			if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "erofs-") || strings.Contains(name, ".new-") {
				removeIfOlder(filepath.Join(dir, name), now.Add(-tempAge))
			}
		}
	}
	var images []string // the most recently used first
	for _, e := range entries(c.dir) {
		switch file := c.path(e.Name()); {
		case filepath.Ext(file) == ".json":
			path := strings.TrimSuffix(file, ".json")
			if _, err := os.Stat(path); err != nil && isMade(e.Name()) {
				_ = os.Remove(file)
			}
		case isMade(e.Name()):
			if _, err := os.Stat(recordOf(file)); err != nil {
				removeIfOlder(file, now.Add(-tempAge)) // of an older version of the lab, or of a run that was killed
			} else if modTime(recordOf(file)).Before(now.Add(-imageAge)) {
				c.remove(file)
			} else if strings.HasPrefix(e.Name(), "root-") {
				images = append(images, file)
			}
		}
	}
	slices.SortFunc(images, func(a, b string) int { return modTime(recordOf(b)).Compare(modTime(recordOf(a))) })
	for _, file := range images[min(maxImages, len(images)):] {
		c.remove(file)
	}
	removeIfOlder(c.path("apt"), now.Add(-kernelUse))
	c.sweepKernels(now)
}

// isMade reports whether the name is that of an image or of pid 1, or of the record of one.
func isMade(name string) bool {
	return strings.HasPrefix(name, "root-") || strings.HasPrefix(name, "init-")
}

// sweepKernels removes the kernels that no version means any more, because the distribution has a newer one or because no
// run has asked for the version for a long time.
func (c *Cache) sweepKernels(now time.Time) {
	dir := c.path("kernel")
	chosen := map[string]bool{}
	for _, e := range entries(dir) {
		if !strings.HasPrefix(e.Name(), "choice-") {
			continue
		}
		file := filepath.Join(dir, e.Name())
		if removeIfOlder(file, now.Add(-kernelUse)) {
			continue
		}
		var choice kernelChoice
		if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &choice) == nil {
			chosen[choice.Package] = true
		}
	}
	for _, e := range entries(dir) {
		name := strings.TrimSuffix(e.Name(), ".json")
		if strings.HasPrefix(name, "choice-") || strings.HasPrefix(name, ".") || chosen[name] {
			continue
		}
		c.remove(filepath.Join(dir, name))
	}
}

// remove removes a file or directory of the cache, and its record. The record goes last: until then the next sweep finds
// what is left.
func (c *Cache) remove(path string) {
	if os.RemoveAll(path) == nil {
		_ = os.Remove(recordOf(path))
	}
}

// entries returns the entries of a directory, or none. Not filepath.Glob: the path of the checkout may contain characters
// of a pattern.
func entries(dir string) []os.DirEntry {
	list, _ := os.ReadDir(dir)
	return list
}

// modTime returns the time of a file, or the zero time if there is none.
func modTime(file string) time.Time {
	info, err := os.Lstat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// removeIfOlder removes a file or directory that is older than limit, and reports whether it did.
func removeIfOlder(path string, limit time.Time) bool {
	if t := modTime(path); t.IsZero() || !t.Before(limit) {
		return false
	}
	return os.RemoveAll(path) == nil
}
