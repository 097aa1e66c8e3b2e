//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"cdblab/helpers/host"
	"cdblab/helpers/rootfs"
	"cdblab/helpers/tools"
)

// Q is a question while it is asked. It is a testing.TB, so that assertions and helpers accept it. It owns a directory and
// a cgroup, and makes everything below them.
type Q struct {
	testing.TB

	// Dir is the question's own directory, and the working directory of its commands.
	Dir string
	// Cgroup is the question's own cgroup, relative to the root of each hierarchy.
	Cgroup string
	// Owner recognises on the host what the question has made.
	Owner host.Owner

	session *Session
	notes   *notes
	env     *environment
	before  host.Inventory // of the host, when the question began
}

// environment is what a question adds to the environment of its commands, in order.
type environment struct {
	pairs     [][2]string
	programs  map[string]tools.Program // see [Q.Use]; nil: those under test
	suggested []string                 // commands that a reader can type when the state is kept
}

// Session returns the session in which the question is asked.
func (q *Q) Session() *Session { return q.session }

// UnderTest is [Session.UnderTest], or the program that the question uses in its place: [Q.Use].
func (q *Q) UnderTest(name string) tools.Program {
	if p, ok := q.used()[name]; ok {
		return p
	}
	return q.session.UnderTest(name)
}

// Pinned is [Session.Pinned]. It is false while the question uses other programs.
func (q *Q) Pinned() bool { return len(q.used()) == 0 && q.session.Pinned() }

// RootFS is [Session.RootFS].
func (q *Q) RootFS() *rootfs.FS { return q.session.RootFS() }

// Image is [Session.Image].
func (q *Q) Image() (ref string, ours bool) { return q.session.Image() }

// ID returns a container's id with the question's suffix, for places that several questions or runs use.
func (q *Q) ID(id string) string { return q.Owner.ID(id) }

// What a test prints must come after the notes that were taken before. Assertions print by Log and fail by FailNow, so
// these methods of testing.TB print the notes first.

// Log prints the notes taken so far, then its arguments.
func (q *Q) Log(args ...any) {
	q.TB.Helper()
	q.notes.message("log", fmt.Sprintln(args...))
	q.TB.Log(args...)
}

// Logf prints the notes taken so far, then its arguments.
func (q *Q) Logf(format string, args ...any) {
	q.TB.Helper()
	q.notes.message("log", fmt.Sprintf(format, args...))
	q.TB.Logf(format, args...)
}

// Error is [Q.Log], and the question has failed.
func (q *Q) Error(args ...any) {
	q.TB.Helper()
	q.notes.message("error", fmt.Sprintln(args...))
	q.TB.Error(args...)
}

// Errorf is [Q.Logf], and the question has failed.
func (q *Q) Errorf(format string, args ...any) {
	q.TB.Helper()
	q.notes.message("error", fmt.Sprintf(format, args...))
	q.TB.Errorf(format, args...)
}

// Fatal is [Q.Error], and the question ends.
func (q *Q) Fatal(args ...any) {
	q.TB.Helper()
	q.notes.message("error", fmt.Sprintln(args...))
	q.TB.Error(args...)
	q.FailNow()
}

// Fatalf is [Q.Errorf], and the question ends.
func (q *Q) Fatalf(format string, args ...any) {
	q.TB.Helper()
	q.notes.message("error", fmt.Sprintf(format, args...))
	q.TB.Errorf(format, args...)
	q.FailNow()
}

// Skip is [Q.Log], and the question ends unanswered. The end of the run repeats the arguments, which say why, and how to mend it.
func (q *Q) Skip(args ...any) {
	q.TB.Helper()
	q.notes.message("skip", fmt.Sprintln(args...))
	q.session.skips.add(q.Name(), fmt.Sprintln(args...))
	q.TB.Skip(args...)
}

// Skipf is [Q.Logf], and the question ends unanswered, as with [Q.Skip].
func (q *Q) Skipf(format string, args ...any) {
	q.TB.Helper()
	q.notes.message("skip", fmt.Sprintf(format, args...))
	q.session.skips.add(q.Name(), fmt.Sprintf(format, args...))
	q.TB.Skipf(format, args...)
}

// keepsState reports whether the question's state is kept. Everything that takes state down calls this first.
func (q *Q) keepsState() bool {
	return q.session.keep == keepAlways || q.session.keep == keepFailed && q.Failed()
}

// Cleanup registers a teardown as testing.TB does. It is not called for a question whose state is kept.
func (q *Q) Cleanup(f func()) {
	q.TB.Cleanup(func() {
		defer q.Recover()
		if !q.keepsState() {
			f()
		}
	})
}

// Mkdir makes a directory below the question's own, and returns its path. It is removed with everything in it when the
// question ends. Whatever is not a file, such as a mount, must be taken down before.
func (q *Q) Mkdir(name string) string {
	q.Helper()
	dir := filepath.Join(q.Dir, name)
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, os.ErrExist) && q.session.keep != keepNever {
		q.Skipf("%s keeps the state of another subtest in %s: ask this subtest alone, or unset %s", keepEnv, dir, keepEnv)
	}
	if err != nil {
		q.Fatalf("make a directory for the question: %v", err)
	}
	q.Cleanup(func() {
		q.reportSpecialFiles(dir)
		if _, err := host.Remove(dir); err != nil {
			q.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// reportSpecialFiles fails the question if there are sockets, FIFOs or devices below a directory that is about to be removed.
// The inventory at the end of the question would not see them any more.
func (q *Q) reportSpecialFiles(dir string) {
	q.Helper()
	left, err := host.SpecialFiles(dir)
	if err != nil {
		q.Errorf("look for leftovers in %s: %v", dir, err)
	}
	for _, file := range left {
		q.Errorf("the question left something behind: %s", file)
	}
}

// TakeInventory returns the inventory of the host, limited to what the question can have changed.
func (q *Q) TakeInventory() host.Inventory {
	q.Helper()
	inventory, err := host.TakeInventoryOf(q.Owner)
	if err != nil {
		q.Fatal(err)
	}
	return inventory
}
