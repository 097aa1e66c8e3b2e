//go:build linux

package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cdblab/helpers/proc"
)

// DefaultPlaces are the directories that runc and containerd use by default. The lab configures other directories, so
// nothing of the lab may appear there.
var DefaultPlaces = []string{
	"/run/containerd", "/var/lib/containerd", "/etc/containerd", "/opt/containerd",
	"/run/nri", "/opt/nri", "/run/runc", "/run/crun",
}

// madeFile in a run's directory lists the directories of [DefaultPlaces] that the run has made, one a line. usedFile lists those
// that it uses and that were there before, because the host's own containerd uses them as well.
const (
	madeFile = "default-places"
	usedFile = "default-places-of-the-host"
)

// places is a set of default places.
type places struct {
	mu  sync.Mutex
	all map[string]bool
}

var usedPlaces = places{all: map[string]bool{}}

func (p *places) has(place string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[place]
}

// UseDefaultPlace makes directories of one of the [DefaultPlaces] for a program that cannot be configured to use another
// one, such as an older containerd. From then on, what appears in that place belongs to the lab only if it has a name of the
// lab. UseDefaultPlace notes which directories the run has made, so that a sweep of the run removes them.
func UseDefaultPlace(run Owner, place string, dirs ...string) error {
	usedPlaces.mu.Lock()
	defer usedPlaces.mu.Unlock()
	if usedPlaces.all[place] {
		return nil
	}
	var missing, there []string
	for _, dir := range append(dirs, place) {
		// Of two runs at the same time, the run that ends last removes what the first one has made.
		if !exists(dir) || madeByARun(dir) {
			missing = append(missing, dir)
		} else if dir != place {
			there = append(there, dir)
		}
	}
	for note, list := range map[string][]string{madeFile: missing, usedFile: there} {
		if err := os.WriteFile(filepath.Join(Dir, run.Run, note), []byte(strings.Join(list, "\n")), 0o644); err != nil {
			return fmt.Errorf("note that the run uses %s: %w", place, err)
		}
	}
	usedPlaces.all[place] = true
	for _, dir := range append([]string{place}, dirs...) {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	return nil
}

// madeByARun reports whether a run that is in progress has made the directory.
func madeByARun(dir string) bool {
	notes, _ := filepath.Glob(filepath.Join(Dir, "*", madeFile))
	return slices.ContainsFunc(notes, func(note string) bool {
		data, _ := os.ReadFile(note)
		return slices.Contains(strings.Fields(string(data)), dir)
	})
}

// usedByARun reports whether a run that is in progress uses a directory of [DefaultPlaces], which may have been there before.
func usedByARun(place string) bool {
	notes, _ := filepath.Glob(filepath.Join(Dir, "*", madeFile+"*"))
	return slices.ContainsFunc(notes, func(note string) bool {
		data, _ := os.ReadFile(note)
		return namesPlace(string(data), place)
	})
}

// namesPlace reports whether a note has the place, or a directory in it.
func namesPlace(note, place string) bool {
	return slices.ContainsFunc(strings.Fields(note), func(dir string) bool { return pathBegins(dir, place) })
}

// leaveDefaultPlaces removes the directories that a run has made in default places, the entries whose name shows that the
// run owns them, and the sockets at which no process listens any more. A directory stays if other programs have entries in
// it by now. In a directory that was there before, it removes only what has the run's name.
func leaveDefaultPlaces(run Owner) error {
	if run.Question != "" {
		return nil
	}
	for _, note := range []string{usedFile, madeFile} {
		path := filepath.Join(Dir, run.Run, note)
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for dir := range strings.FieldsSeq(string(data)) {
			if !slices.ContainsFunc(DefaultPlaces, func(place string) bool { return pathBegins(dir, place) }) {
				return fmt.Errorf("%s names %s, which is no directory that the lab makes: it is not removed; look at the file and remove it by hand",
					path, dir)
			}
			if err := leaveDir(run, dir, note == madeFile); err != nil {
				return err
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// leaveDir removes from a directory what the run has made there, and the directory itself if the lab has made it and it is empty.
func leaveDir(run Owner, path string, made bool) error {
	dir, err := openDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		below := filepath.Join(path, e.Name())
		switch {
		case run.Owns(below):
			if _, err := removeAt(dir, e.Name()); err != nil {
				return err
			}
		case e.IsDir() && strings.HasPrefix(e.Name(), "cdb-"): // a containerd namespace of the lab, which all runs use
			if err := leaveDir(run, below, made); err != nil {
				return err
			}
		case made && e.Type()&os.ModeSocket != 0 && isStaleSocket(below):
			_ = unix.Unlinkat(int(dir.Fd()), e.Name(), 0)
		}
	}
	if !made {
		return nil
	}
	if err := unix.Rmdir(path); err != nil && err != unix.ENOENT && err != unix.ENOTEMPTY && err != unix.EBUSY {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// isStaleSocket reports whether no process listens at a socket any more.
func isStaleSocket(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// defaultSockets returns the sockets in default places that belong to a process: those at which it listens.
func defaultSockets(pid proc.PID) []string {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil
	}
	paths := map[string]string{} // inode → path; see addSockets
	for line := range strings.SplitSeq(string(data), "\n") {
		if f := strings.Fields(line); len(f) == 8 && inDefaultPlace(f[7]) {
			paths[f[6]] = f[7]
		}
	}
	if len(paths) == 0 {
		return nil
	}
	var out []string
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		target, _ := os.Readlink(fd)
		inode, _ := strings.CutPrefix(strings.TrimSuffix(target, "]"), "socket:[")
		if path, ok := paths[inode]; ok {
			out = append(out, path)
		}
	}
	return out
}

// shimSocket matches the address of a shim in the files address and bootstrap.json of a task's bundle.
var shimSocket = regexp.MustCompile(`unix://(/[^"\s]+)`)

// noted returns the sockets in default places that the bundles of the owner's tasks name, also those of shims that were killed.
func noted(owner Owner) []string {
	var out []string
	for _, daemon := range []string{"*", "*/*"} {
		for _, name := range []string{"address", "bootstrap.json"} {
			files, _ := filepath.Glob(filepath.Join(owner.Dir(), daemon, "state/io.containerd.runtime.v2.task/*/*", name))
			for _, f := range files {
				data, _ := os.ReadFile(f)
				if m := shimSocket.FindSubmatch(data); m != nil && inDefaultPlace(string(m[1])) {
					out = append(out, string(m[1]))
				}
			}
		}
	}
	return out
}

func inDefaultPlace(path string) bool {
	return slices.ContainsFunc(DefaultPlaces, func(place string) bool { return pathBegins(path, place) })
}

// removeSockets removes those of the sockets at which no process listens any more.
func removeSockets(sockets []string) {
	for _, socket := range sockets {
		info, err := os.Lstat(socket)
		if err != nil || info.Mode()&os.ModeSocket == 0 || !isStaleSocket(socket) {
			continue
		}
		_ = unix.Unmount(socket, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // a question that was killed may have pinned it by a mount
		if dir, err := openDir(filepath.Dir(socket)); err == nil {
			_ = unix.Unlinkat(int(dir.Fd()), filepath.Base(socket), 0)
			dir.Close()
		}
	}
}
