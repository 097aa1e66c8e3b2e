//go:build linux && vmlab

package cdblab

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// runc needs a bundle: a directory with a config.json and the root filesystem that it names. It needs nothing else.
//
// runc checks config.json before it makes anything. Whether the program exists, it sees last: `runc init` looks for it in the finished
// container. In both cases create fails, names what is missing, and removes what it has made. A mount namespace, /proc and /dev
// are enough. runc insists on the mount namespace only if config.json masks paths or makes them read-only, as that of `runc spec` does.
// runc asks for no image, no daemon and no network; `runc spec` writes a config.json to begin with, and the root filesystem is any
// directory that has the program.
//
// Hint: which of path, args, namespaces and mounts may be left out, and which operation reports that one is missing?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/bundle.md
func TestBundle_WhatDoesRuncNeedBeforeItCanCreateAContainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc need before it can create a container?")
	defer q.Recover()
	relative := func(path string) string { return strings.TrimPrefix(path, q.Dir+"/") }

	q.Step("the two parts of the bundle")
	b := bundle.Busybox(q, "sleep", "3600")
	q.Fact("config.json", file.Exists(b.Config()))
	q.Fact("rootfs", file.Exists(b.Rootfs("bin", "sleep")))

	hide := func(q *lab.Q, path string) {
		assert.NilError(q, os.Rename(path, path+".away"))
		q.LogCommand("mv %[1]s %[1]s.away", relative(path))
	}
	unhide := func(q *lab.Q, path string) {
		if err := os.Rename(path+".away", path); err == nil {
			q.LogCommand("mv %[1]s.away %[1]s", relative(path))
		}
	}
	sleep := b.Rootfs("bin", "sleep")
	edit := func(edit func(*specs.Spec)) func(*lab.Q, *bundle.Bundle) {
		return func(_ *lab.Q, b *bundle.Bundle) { b.Edit(edit) }
	}
	for _, missing := range []struct {
		what      string
		takeAway  func(*lab.Q, *bundle.Bundle)
		wantError string // a regular expression: what the error has to name
	}{
		{"config.json", func(q *lab.Q, b *bundle.Bundle) { hide(q, b.Config()) }, "config.json not found"},
		{"JSON", func(_ *lab.Q, b *bundle.Bundle) { b.WriteRaw(`{"ociVersion"`, `{"ociVersion"`) }, "unexpected e(nd|of)"},
		{"rootfs", func(q *lab.Q, b *bundle.Bundle) { hide(q, b.Rootfs()) }, "rootfs.*no such file"},
		{"root", edit(func(s *specs.Spec) { s.Root = nil }), "root must be specified"},
		{"process", edit(func(s *specs.Spec) { s.Process = nil }), "process property must not be empty"},
		{"args", edit(func(s *specs.Spec) { s.Process.Args = nil }), "args must not be empty"},
		{"cwd", edit(func(s *specs.Spec) { s.Process.Cwd = "" }), "cwd property must not be empty"},
		// It has masked paths, which runc mounts in a mount namespace only.
		{"namespaces", edit(func(s *specs.Spec) { s.Linux.Namespaces, s.Hostname = nil, "" }), "private MNT namespace"},
		{"program", func(q *lab.Q, _ *bundle.Bundle) { hide(q, sleep) }, "sleep.*executable file not found"},
	} {
		q.Run(missing.what, func(q *lab.Q) {
			b := b.InSubtest(q)
			q.Cleanup(func() {
				b.Restore()
				for _, path := range []string{b.Rootfs(), sleep, b.Config()} {
					unhide(q, path)
				}
			})
			q.Step("take away %s: create fails, names it in the error, and leaves nothing behind", missing.what)
			missing.takeAway(q, b)
			refused := runc.Named(q, b, "root-"+missing.what, bundle.ID).MustRefuseWithoutLeftovers(missing.wantError)
			q.Fact("create without "+missing.what+": error", runc.LastLogMessage(refused))
		})
	}

	q.Step("start of the container without process fails: create has refused it, although the specification requires process only at start")
	without := runc.Variant(q, b, "without-process", func(s *specs.Spec) { s.Process = nil })
	refused := without.Try("create")
	assert.Check(q, refused.Code != 0, "create of a container without process succeeds:\n%s", refused)
	q.Fact("create without process: exit code", refused.Code)
	started := without.Try("start")
	runc.AssertMessage(q, started.Stderr, "does not exist|process")
	q.Fact("start without process: error", runc.LastLogMessage(started))
	q.Clause("Start: This operation MUST generate an error if process was not set.", lab.MetIf(started.Code != 0, "start succeeds"))

	q.Step("most mounts and namespaces may be left out: a mount namespace, /proc and /dev are enough")
	// Without /dev, runc makes the device files in the rootfs. Without /proc, most releases cannot finish the container.
	least := runc.Variant(q, b, "least", func(s *specs.Spec) {
		s.Linux.Namespaces, s.Hostname = []specs.LinuxNamespace{{Type: specs.MountNamespace}}, ""
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination != "/proc" && m.Destination != "/dev" })
	}).CreateAndStart()
	own := least.OwnNamespaces(proc.Self(q).Identity)
	assert.Check(q, cmp.DeepEqual(own, []string{"mnt"}), "namespaces of its own, where config.json has a mount namespace alone")
	q.Fact("smallest bundle: namespaces of its own", own)

	q.Control("the same bundle with all of its parts is created")
	c := runc.New(q, b)
	c.Create()
	created := proc.Snapshot(q, proc.PID(c.State().Pid))
	check.OnlyProcessInCgroup(q, created.Identity, b.Spec.Linux.CgroupsPath)
	status := c.State().Status
	assert.Check(q, cmp.Equal(status, specs.StateCreated), "status of the container of the whole bundle")
	q.Fact("whole bundle", status)
	c.Must("delete", "--force")
	proc.WaitFor(q, proc.Dead(created.Identity))

	q.Answer("runc needs a config.json and the rootfs that it names. If a required part is missing, create fails, names " +
		"it, and leaves nothing behind. Most of the namespaces and mounts may be left out.")
}
