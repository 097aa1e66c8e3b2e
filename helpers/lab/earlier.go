//go:build linux

package lab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"cdblab/helpers/howto"
	"cdblab/helpers/tools"
)

// Earlier returns a program of an earlier release: q.Earlier("runc", "1.1.11"), q.Earlier("ctr", "1.7.29"). The build information in
// its file says that it is this release. tools.Earlier has the releases. Where the release is not built, the question or subtest is
// skipped.
func (q *Q) Earlier(name, version string) tools.Program {
	q.Helper()
	for _, r := range tools.Earlier {
		for _, t := range r.Tools() {
			if t.Name != name || r.Version != version {
				continue
			}
			p, err := t.FindEarlier(".", version)
			if err != nil {
				q.Skipf("this compares with an earlier release: %s", notBuilt(err))
			}
			return p
		}
	}
	q.Fatalf("no release %s %s: add it to the table Earlier in helpers/tools/earlier.go", name, version)
	return tools.Program{}
}

// notBuilt says why a release cannot be used, and what to do.
func notBuilt(err error) string {
	e, ok := errors.AsType[*tools.NotFoundError](err)
	switch {
	case !ok:
		return err.Error()
	case howto.InTarball():
		return e.Seen + "\n    the directory releases of the tarball has to have it: unpack the tarball again"
	}
	return e.Error()
}

// EarlierStack returns the programs of an earlier release by their names: of containerd the daemon, ctr and the shim. It is
// [Q.Earlier] for all of them.
func (q *Q) EarlierStack(name, version string) map[string]tools.Program {
	q.Helper()
	stack := map[string]tools.Program{}
	for _, t := range (tools.Release{Name: name}).Tools() {
		stack[t.Name] = q.Earlier(t.Name, version)
	}
	return stack
}

// programsDir is the directory below the question's own with the programs that it uses in place of those under test.
const programsDir = "programs"

// Use has the question, or the subtest, use these programs in place of those under test from now until its end: in its commands and on
// the PATH of the daemons that it starts, and [Q.UnderTest] returns them. A program replaces the one of the same name that was used
// before, as an upgrade does. A process that runs already keeps its program.
//
//	q.Use(q.Earlier("runc", "1.1.11"))
//	c := runc.New(q, …)
func (q *Q) Use(programs ...tools.Program) {
	q.Helper()
	if q.env.programs == nil {
		q.env.programs = map[string]tools.Program{}
		q.Mkdir(programsDir)
		q.logSetUp("export PATH="+programsDir+":$PATH", "mkdir -p "+programsDir+" && export PATH="+q.programsDir()+":$PATH")
		q.TB.Cleanup(func() { q.env.programs = nil })
	}
	for _, p := range programs {
		link := filepath.Join(q.programsDir(), p.Name)
		next := link + ".new"
		// As a package manager replaces a file: at no time is there none.
		if err := errors.Join(os.Symlink(p.Path, next), os.Rename(next, link)); err != nil {
			q.Fatalf("use %s: %v", p.Path, err)
		}
		q.env.programs[p.Name] = p
		q.LogCommandAs(fmt.Sprintf("ln -sf …/%s %s   # %s", filepath.Base(p.Path), programsDir, p.Version),
			quote([]string{"ln", "-sf", p.Path, link}))
	}
}

// UseUnderTest ends [Q.Use]: the question uses the programs under test of these names again, or of all names if there are none.
func (q *Q) UseUnderTest(names ...string) {
	q.Helper()
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(q.env.programs))
	}
	var programs []tools.Program
	for _, name := range names {
		programs = append(programs, q.session.UnderTest(name))
	}
	q.Use(programs...)
}

// used returns the programs that the question uses in place of those under test.
func (q *Q) used() map[string]tools.Program {
	if q.env == nil {
		return nil
	}
	return q.env.programs
}

func (q *Q) programsDir() string { return filepath.Join(q.Dir, programsDir) }
