//go:build linux

package runc

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
)

// HookDir is where the container of [WithHooks] has the directory of its [HookLog].
const HookDir = "/seen"

// HookLog is a file in which hooks and the container's program write down that they run: each appends its name.
type HookLog struct {
	Dir string // has the file, order, and what else the hooks write; the container has it as [HookDir]
	q   *lab.Q
}

// WithHooks prepares another container of the bundle, with a [HookLog]. The edit sets the hooks; a hook in the host's
// mount namespace writes to $dir/order, one in the container's root to /seen/order. The program writes "program" there
// and sleeps.
//
// A hook inherits nothing: it would be no process of the question's, and could outlive it. So the environment of each hook has the mark.
func WithHooks(q *lab.Q, b *bundle.Bundle, name string, edit func(hooks *specs.Hooks, dir string)) (*Container, HookLog) {
	q.Helper()
	log := HookLog{Dir: q.Mkdir("seen-" + name), q: q}
	program := bundle.Args("sh", "-c", "echo program >> "+HookDir+"/order; exec sleep 3600")
	c := Variant(q, b, name, program, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: HookDir, Type: "bind", Source: log.Dir, Options: []string{"bind", "rw"}})
		s.Hooks = &specs.Hooks{}
		edit(s.Hooks, log.Dir)
		for _, p := range HookPoints {
			hooks := *p.Of(s.Hooks)
			for i := range hooks {
				hooks[i].Env = append(slices.Clip(hooks[i].Env), host.OwnerEnv+"="+q.Owner.Mark())
			}
		}
	})
	return c, log
}

// Entries returns the names of what has run, in the order in which it ran.
func (l HookLog) Entries() []string {
	l.q.Helper()
	path := filepath.Join(l.Dir, "order")
	if !file.Exists(path) {
		return nil
	}
	return strings.Fields(file.Read(l.q, path))
}

// HasEntries returns a check that succeeds when the log has at least n entries.
func (l HookLog) HasEntries(n int) poll.Check {
	return func(poll.LogT) poll.Result {
		text, _ := file.TryRead(filepath.Join(l.Dir, "order"))
		if entries := strings.Fields(text); len(entries) < n {
			return poll.Continue("the log of the hooks has %d entries %q, not yet %d", len(entries), entries, n)
		}
		return poll.Success()
	}
}
