//go:build linux

package host

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"cdblab/helpers/cgroup"
)

// Part is a part of the lab by name: a run, or one question of it. By the name alone one can tell whose a process, a
// mount or a cgroup is, after everything that made it has died.
type Owner struct {
	Run      string // the run's number
	Question string // q1, q2, …; "" for the whole run
	pattern  *regexp.Regexp
}

// NewPart names a run, or with a question one of its questions.
func NewOwner(run, question string) Owner {
	p := Owner{Run: run, Question: question}
	below, suffix := regexp.QuoteMeta(run), regexp.QuoteMeta(run)+`-q[0-9]+`
	if question != "" {
		below += "/" + regexp.QuoteMeta(question)
		suffix = regexp.QuoteMeta(run + "-" + question)
	}
	// A name ends where neither letter nor digit follows: run 1 is not found in run 10's names.
	p.pattern = regexp.MustCompile(`(` + Cgroup + `/` + below + `|/cdb-[0-9a-z-]*-` + suffix + `)([^0-9A-Za-z]|$)`)
	return p
}

// Dir is the directory below which the part makes everything.
func (p Owner) Dir() string { return filepath.Join(Dir, p.Run, p.Question) }

// Cgroup is the cgroup below which it makes those cgroups whose path it may choose.
func (p Owner) Cgroup() string { return filepath.Join(Cgroup, p.Run, p.Question) }

// ID gives a container's id a suffix, so that the part is known by it. containerd derives the cgroup's path from its
// namespace and the container's id alone (/cdb-lab/<id>), and there two runs would meet.
func (p Owner) ID(id string) string { return fmt.Sprintf("%s-%s-%s", id, p.Run, p.Question) }

// Carries says whether s, such as a path or the description of a process, names the part or something of it.
func (p Owner) Owns(s string) bool { return p.pattern.MatchString(s) }

// runOf returns the number of the run that a directory entry below Dir or Cgroup belongs to.
func runOf(name string) (run string, ok bool) {
	if m := ownedEntry.FindStringSubmatch(name); m != nil {
		return m[1], true
	}
	_, err := strconv.Atoi(name)
	return name, err == nil
}

// suffix is what the names of any run's parts have: see [Part.ID].
var ownedName = regexp.MustCompile(`/cdb-[0-9a-z-]*-[0-9]+-q[0-9]+`)

var ownedEntry = regexp.MustCompile(`^cdb-[0-9a-z-]*-([0-9]+)-q[0-9]+$`)

// labCgroups lists the cgroups of a hierarchy that are the lab's, whichever part's: those below Cgroup, and those below
// a cgroup of a containerd namespace whose name begins as the lab's does. Parents come first.
func labCgroups(h cgroup.Hierarchy) []string {
	var out []string
	for _, top := range labRoots(h) {
		out = append(out, cgroup.Subtree(h, top)...)
	}
	return out
}

// tops lists the cgroups of a hierarchy's root below which the lab's are.
func labRoots(h cgroup.Hierarchy) []string {
	dirs, _ := filepath.Glob(h.Path(Cgroup) + "*")
	var out []string
	for _, dir := range dirs {
		out = append(out, "/"+filepath.Base(dir))
	}
	return out
}

// pathBegins says whether path has prefix as its first components.
func pathBegins(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}
