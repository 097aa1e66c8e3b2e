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
// Hint: which of path, args, namespaces and mounts may be left out, and who notices when?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/bundle.md
func TestBundle_WhatDoesRuncNeedBeforeItCanCreateAContainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc need before it can create a container?")

	q.Step("the two parts of the bundle")
	b := bundle.Busybox(q, "sleep", "300")
	q.Fact("config.json", file.Exists(b.Config()))
	q.Fact("rootfs", file.Exists(b.Rootfs("bin", "sleep")))

	sleep := b.Rootfs("bin", "sleep")
	without := func(edit func(*specs.Spec)) func(*bundle.Bundle) { return func(b *bundle.Bundle) { b.Edit(edit) } }
	for _, missing := range []struct {
		what  string
		take  func(*bundle.Bundle) // takes it away
		names string               // a regular expression: what the error has to name
	}{
		{"config.json", func(b *bundle.Bundle) { away(q, b.Config()) }, "config.json"},
		{"JSON", func(b *bundle.Bundle) { b.WriteRaw(`{"ociVersion"`, `{"ociVersion"`) }, "unexpected e|config.json"},
		{"rootfs", func(b *bundle.Bundle) { away(q, b.Rootfs()) }, "rootfs"},
		{"root", without(func(s *specs.Spec) { s.Root = nil }), "root"},
		{"process", without(func(s *specs.Spec) { s.Process = nil }), "process"},
		{"args", without(func(s *specs.Spec) { s.Process.Args = nil }), "args"},
		{"cwd", without(func(s *specs.Spec) { s.Process.Cwd = "" }), "cwd"},
		{"program", func(*bundle.Bundle) { away(q, sleep) }, "sleep"},
	} {
		q.Run(missing.what, func(q *lab.Q) {
			b := b.InSubtest(q)
			q.Cleanup(func() {
				b.Restore()
				for _, path := range []string{b.Rootfs(), sleep, b.Config()} {
					back(q, path)
				}
			})
			q.Step("take away %s: create fails, says so, and leaves nothing", missing.what)
			missing.take(b)
			runc.AssertCreateRefused(q, runc.Named(q, b, "root-"+missing.what, bundle.ID), missing.names)
		})
	}

	q.Clause("Start: This operation MUST generate an error if process was not set.", lab.DeviatesUnless(false, "it does not come to that: create refuses such a bundle already"))

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

// away puts a file where it is not found.
func away(q *lab.Q, path string) {
	q.Helper()
	assert.NilError(q, os.Rename(path, path+".away"))
	q.LogCommand("mv %[1]s %[1]s.away", strings.TrimPrefix(path, q.Dir+"/"))
}

// back takes it back.
func back(q *lab.Q, path string) {
	q.Helper()
	if err := os.Rename(path+".away", path); err == nil {
		q.LogCommand("mv %[1]s.away %[1]s", strings.TrimPrefix(path, q.Dir+"/"))
	}
}
