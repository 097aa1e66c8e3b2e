//go:build linux && vmlab

package cdblab

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// A bundle: a directory with a config.json and the root filesystem that it names. Nothing else.
//
// runc reads all of config.json before it makes anything, so what is missing is refused at create, by name, and leaves
// nothing behind. It asks for no image, no daemon and no network; `runc spec` writes a config.json to begin with, and
// the root filesystem is any directory that has the program.
//
// Hint: which of path, args, namespaces and mounts may be left out, and which operation reports that one is missing?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/bundle.md
func TestBundle_WhatDoesRuncNeedBeforeItCanCreateAContainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc need before it can create a container?")
	defer q.Recover()
	relative := func(path string) string { return strings.TrimPrefix(path, q.Dir+"/") }

	q.Step("the two parts of the bundle")
	b := bundle.Busybox(q, "sleep", "300")
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
		{"config.json", func(q *lab.Q, b *bundle.Bundle) { hide(q, b.Config()) }, "config.json"},
		{"JSON", func(_ *lab.Q, b *bundle.Bundle) { b.WriteRaw(`{"ociVersion"`, `{"ociVersion"`) }, "unexpected e|config.json"},
		{"rootfs", func(q *lab.Q, b *bundle.Bundle) { hide(q, b.Rootfs()) }, "rootfs"},
		{"root", edit(func(s *specs.Spec) { s.Root = nil }), "root"},
		{"process", edit(func(s *specs.Spec) { s.Process = nil }), "process"},
		{"args", edit(func(s *specs.Spec) { s.Process.Args = nil }), "args"},
		{"cwd", edit(func(s *specs.Spec) { s.Process.Cwd = "" }), "cwd"},
		{"program", func(q *lab.Q, _ *bundle.Bundle) { hide(q, sleep) }, "sleep"},
	} {
		q.Run(missing.what, func(q *lab.Q) {
			b := b.InSubtest(q)
			q.Cleanup(func() {
				b.Restore()
				for _, path := range []string{b.Rootfs(), sleep, b.Config()} {
					unhide(q, path)
				}
			})
			q.Step("take away %s: create fails, names it in the error, and leaves nothing", missing.what)
			missing.takeAway(q, b)
			refused := runc.Named(q, b, "root-"+missing.what, bundle.ID).MustRefuseWithoutLeftovers(missing.wantError)
			q.Fact("create without "+missing.what+": error", runc.LastLogMessage(refused))
		})
	}

	q.Clause("Start: This operation MUST generate an error if process was not set.",
		lab.DeviatesUnless(false, "it does not come to that: create refuses such a bundle already"))

	q.Control("the same bundle, whole again, is created")
	c := runc.New(q, b)
	c.Create()
	created := proc.Snapshot(q, proc.PID(c.State().Pid))
	check.OnlyProcessInCgroup(q, created.Identity, b.Spec.Linux.CgroupsPath)
	q.Fact("whole bundle", c.State().Status)
	c.Must("delete", "--force")
	proc.WaitFor(q, proc.Dead(created.Identity))

	q.Answer("config.json and the rootfs that it names. What is missing there is refused at create, and nothing is left.")
}
