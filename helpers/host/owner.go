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

// Owner owns what the lab makes: it is a run of the lab, or one question of a run. The owner of a process, a mount or a
// cgroup is recognised by names alone, so it can be found after the process that made it has died.
type Owner struct {
	Run      string // the run's number
	Question string // q1, q2, …; "" for the whole run
	pattern  *regexp.Regexp
}

// NewOwner returns the owner for a question of a run, or for the whole run if question is "".
func NewOwner(run, question string) Owner {
	o := Owner{Run: run, Question: question}
	path, suffix := regexp.QuoteMeta(run), regexp.QuoteMeta(run)+`-q[0-9]+`
	if question != "" {
		path += "/" + regexp.QuoteMeta(question)
		suffix = regexp.QuoteMeta(run + "-" + question)
	}
	// A name ends where neither a letter nor a digit follows: the names of run 10 do not match run 1.
	o.pattern = regexp.MustCompile(`(` + Cgroup + `/` + path + `|/cdb-[0-9a-z-]*-` + suffix + `)([^0-9A-Za-z]|$)`)
	return o
}

// Dir returns the directory below which the owner makes all its files.
func (o Owner) Dir() string { return filepath.Join(Dir, o.Run, o.Question) }

// Cgroup returns the cgroup below which the owner makes the cgroups whose path it may choose.
func (o Owner) Cgroup() string { return filepath.Join(Cgroup, o.Run, o.Question) }

// ID returns a container's id with a suffix by which the owner is recognised. containerd derives the path of a cgroup from
// its namespace and the container's id alone (/cdb-lab/<id>). Without the suffix, two runs would use the same cgroup.
func (o Owner) ID(id string) string { return fmt.Sprintf("%s-%s-%s", id, o.Run, o.Question) }

// Owns reports whether s names something of the owner. s is a path, or the description of a process.
func (o Owner) Owns(s string) bool { return o.pattern.MatchString(s) }

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
