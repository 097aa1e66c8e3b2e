//go:build linux

package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// DefaultPlaces are the directories that runc and containerd use by default. The lab configures other directories, so
// nothing of the lab may appear there.
var DefaultPlaces = []string{
	"/run/containerd", "/var/lib/containerd", "/etc/containerd", "/opt/containerd",
	"/run/nri", "/opt/nri", "/run/runc", "/run/crun",
}

// madeFile in a run's directory lists the directories of [DefaultPlaces] that the run has made.
const madeFile = "default-places"

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
	var missing []string
	for _, dir := range append(dirs, place) {
		// Of two runs at the same time, the run that ends last removes what the first one has made.
		if !exists(dir) || madeByARun(dir) {
			missing = append(missing, dir)
		}
	}
	note := filepath.Join(Dir, run.Run, madeFile)
	if err := os.WriteFile(note, []byte(strings.Join(missing, "\n")), 0o644); err != nil {
		return fmt.Errorf("note that the run uses %s: %w", place, err)
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

// leaveDefaultPlaces removes the directories that a run has made in default places, the entries whose name shows that the
// run owns them, and the sockets at which no process listens any more. A directory stays if other programs have entries in
// it by now.
func leaveDefaultPlaces(run Owner) error {
	note := filepath.Join(Dir, run.Run, madeFile)
	data, err := os.ReadFile(note)
	if run.Question != "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for dir := range strings.FieldsSeq(string(data)) {
		if !slices.ContainsFunc(DefaultPlaces, func(place string) bool { return pathBegins(dir, place) }) {
			return fmt.Errorf("%s names %s, which is no directory that the lab makes: it is not removed; look at the file and remove it by hand",
				note, dir)
		}
		if err := leaveDir(run, dir); err != nil {
			return err
		}
	}
	return os.Remove(note)
}

func leaveDir(run Owner, path string) error {
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
			if err := leaveDir(run, below); err != nil {
				return err
			}
		case e.Type()&os.ModeSocket != 0 && isStaleSocket(below):
			_ = unix.Unlinkat(int(dir.Fd()), e.Name(), 0)
		}
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
