//go:build linux

package runc

import (
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
)

// MustRefuse asserts that create fails, that its error matches a regular expression (in upper or lower case), and that it
// leaves no state of the container. It returns what came of create.
//
// It does not look for other leftovers. The question itself does that, when it ends.
func (c *Container) MustRefuse(wantError string) lab.Result {
	c.q.Helper()
	r := c.Try("create")
	assert.Check(c.q, r.Code != 0, "create succeeds:\n%s", r)
	AssertMessage(c.q, r.Stderr, wantError)
	assert.Check(c.q, !file.Exists(c.StateDir()), "a refused create left its state: %s", c.StateDir())
	return r
}

// MustRefuseWithoutLeftovers is [Container.MustRefuse], and asserts in addition that create leaves no cgroup, no process and
// no mount.
func (c *Container) MustRefuseWithoutLeftovers(wantError string) lab.Result {
	c.q.Helper()
	before := c.q.TakeInventory()
	r := c.MustRefuse(wantError)
	for _, change := range host.OwnedBy(host.Diff(before, c.q.TakeInventory()), c.q.Owner) {
		// The parents of the container's cgroup stay: the runtime makes them on its way down, and removes only its own.
		if parent := change.Kind == "cgroup" && !strings.HasSuffix(change.Name, c.ID); !parent {
			c.q.Errorf("a refused create left something behind: %s", change)
		}
	}
	return r
}

// MaskPIDs replaces the pids of the runtime's own processes in a message, because they differ from run to run.
func MaskPIDs(message string) string { return ownPID.ReplaceAllString(message, "${1}PID") }

var ownPID = regexp.MustCompile(`(nsexec-\d\[|/proc/)\d+`)

// KnowsTimeNamespaces reports whether the runtime knows the namespace type "time". If `runc features` does not list it, create is tried:
// a runtime that does not know the type names it in its error.
func KnowsTimeNamespaces(q *lab.Q, b *bundle.Bundle) bool {
	q.Helper()
	if f := Features(q); f.Linux != nil && slices.Contains(f.Linux.Namespaces, string(specs.TimeNamespace)) {
		return true
	}
	c := Variant(q, b, "time", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	})
	r := c.Try("create")
	if r.Code == 0 {
		c.Must("delete", "--force")
		return true
	}
	// Of the message alone: each line of runc's log has the word, because it begins with time="…".
	assert.Check(q, cmp.Regexp("(?i)time namespace|namespace.*time", LastLogMessage(r)), "create is refused for another reason")
	return false
}
