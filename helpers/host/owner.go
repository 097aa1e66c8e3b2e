//go:build linux

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Owner owns what the lab makes: it is a run of the lab, or one question of a run. What an owner has made can be recognised
// after the process that made it has died: a file and a cgroup by their path, a process by its [Owner.Mark].
type Owner struct {
	Run      string // the run's number
	Question string // q1, q2, …; "" for the whole run
	id       string // the run's random id; "" if it is not known, and then no process is provably the owner's
	names    *regexp.Regexp
	cgroups  *regexp.Regexp
}

// NewOwner returns the owner for a question of a run, or for the whole run if question is "". The owner does not know the
// run's id, so it owns no process.
func NewOwner(run, question string) Owner {
	o := Owner{Run: run, Question: question}
	path, suffix := regexp.QuoteMeta(run), regexp.QuoteMeta(run)+`-q[0-9]+`
	if question != "" {
		path += "/" + regexp.QuoteMeta(question)
		suffix = regexp.QuoteMeta(run + "-" + question)
	}
	// A name ends where neither a letter nor a digit follows: the names of run 10 do not match run 1. A path begins at the
	// beginning of the text or after a separator: the cgroup /docker/1f/cdb-lab/1/q3 belongs to another lab, in a container.
	const begin, end = `(^|[:= @])`, `([^0-9A-Za-z]|$)`
	id := `cdb-[0-9a-z-]*-` + suffix
	places := `(/run)?` + Cgroup + `/` + path + `|(` + Cgroup + `|/(run|var|etc|opt|tmp)(/[^ ]*)?)?/` + id
	o.names = regexp.MustCompile(begin + `(` + places + `)` + end)
	o.cgroups = regexp.MustCompile(`^(` + Cgroup + `/` + path + end + `|(` + Cgroup + `)?/` + id + `(/|$))`)
	return o
}

// withID returns the owner with the random id of its run.
func (o Owner) withID(id string) Owner {
	o.id = id
	return o
}

// OfQuestion returns the owner for a question of the same run.
func (o Owner) OfQuestion(question string) Owner { return NewOwner(o.Run, question).withID(o.id) }

// Dir returns the directory below which the owner makes all its files.
func (o Owner) Dir() string { return filepath.Join(Dir, o.Run, o.Question) }

// Cgroup returns the cgroup below which the owner makes the cgroups whose path it may choose.
func (o Owner) Cgroup() string { return filepath.Join(Cgroup, o.Run, o.Question) }

// ID returns a container's id with a suffix by which the owner is recognised. containerd derives the path of a cgroup from
// its namespace and the container's id alone (/cdb-lab/<id>). Without the suffix, two runs would use the same cgroup. A character
// that a name of the owner's does not have, such as the dots of a version, becomes a hyphen: otherwise a sweep would not find it.
func (o Owner) ID(id string) string {
	return fmt.Sprintf("%s-%s-%s", notInNames.ReplaceAllString(id, "-"), o.Run, o.Question)
}

// notInNames matches a character that [NewOwner] does not expect in the first part of an id.
var notInNames = regexp.MustCompile(`[^0-9a-z-]`)

// Mark returns the value of [OwnerEnv] for the owner's processes: its directory and the random id of its run. A number is
// used again by later runs, the id is not.
func (o Owner) Mark() string { return o.Dir() + ":" + o.id }

// ownsMark reports whether a value of [OwnerEnv] is the mark of the owner, or of one of its questions.
func (o Owner) ownsMark(mark string) bool {
	dir, id, _ := strings.Cut(mark, ":")
	return o.id != "" && id == o.id && pathBegins(dir, o.Dir())
}

// Owns reports whether the name of something (a path, a cgroup, a mount with its source) shows that the owner has made it.
// Nothing is killed or removed by this alone.
func (o Owner) Owns(name string) bool { return o.names.MatchString(name) }

// OwnsCgroup reports whether the owner has made a cgroup. The path is relative to the root of the hierarchy as this process
// sees it, and the lab's own cgroups begin there.
func (o Owner) OwnsCgroup(path string) bool { return o.cgroups.MatchString(path) }

// hasOwner matches a path with an id of [Owner.ID], of any run.
var hasOwner = regexp.MustCompile(`/cdb-[0-9a-z-]*-[0-9]+-q[0-9]+`)

// ownedID matches an id of [Owner.ID], of any run, and captures the run's number.
var ownedID = regexp.MustCompile(`^cdb-[0-9a-z-]*-([0-9]+)-q[0-9]+$`)

// runOf returns the number of the run to which a directory entry below Dir or Cgroup belongs.
func runOf(name string) (run string, ok bool) {
	if match := ownedID.FindStringSubmatch(name); match != nil {
		return match[1], true
	}
	_, err := strconv.Atoi(name)
	return name, err == nil
}

// pathBegins reports whether the first components of path are those of prefix.
func pathBegins(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
