//go:build linux && vmlab

package cdblab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"

	"cdblab/helpers/bundle"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/host"
	"cdblab/helpers/image"
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
	q := lab.Question(t, lab.MutatesVM, "What does runc need before it can create a container?")

	q.Step("runc spec writes a config.json, and it is the library's example, byte for byte")
	spec := q.Mkdir("spec")
	q.Must("runc", "spec", "--bundle", "spec")
	again := q.Exec("runc", "spec", "--bundle", "spec")
	assert.Check(q, again.Code != 0, "it overwrites a config.json that is there:\n%s", again)
	written, err := os.ReadFile(filepath.Join(spec, "config.json"))
	assert.NilError(q, err)
	example, err := bundle.Marshal(specconv.Example())
	assert.NilError(q, err)
	if lab.UnderTest("runc").Pinned {
		assert.Equal(q, string(written), string(example))
		q.Fact("runc spec", "as specconv.Example, byte for byte")
	} else {
		difference, err := bundle.Difference(specconv.Example(), bundle.Read(q, spec))
		assert.NilError(q, err)
		q.Fact("runc spec, against the pinned runc's", difference)
	}

	q.Step("before anything runs: what config.json says of path, args, namespaces and mounts")
	b := bundle.Busybox(q, "sleep", "300")
	read := bundle.Read(q, b.Dir)
	assert.Equal(q, read.Root.Path, "rootfs")
	assert.DeepEqual(q, read.Process.Args, []string{"sleep", "300"})
	assert.Check(q, !read.Process.Terminal)
	q.Fact("root.path", read.Root.Path)
	q.Fact("process.args", read.Process.Args)
	var namespaces []string
	for _, ns := range read.Linux.Namespaces {
		namespaces = append(namespaces, string(ns.Type))
	}
	for _, ns := range []string{"pid", "network", "ipc", "uts", "mount"} {
		assert.Check(q, cmp.Contains(namespaces, ns))
	}
	q.Fact("linux.namespaces", namespaces)
	var mounts []string
	for _, m := range read.Mounts {
		mounts = append(mounts, m.Destination)
	}
	for _, m := range []string{"/proc", "/dev", "/sys"} {
		assert.Check(q, cmp.Contains(mounts, m))
	}
	q.Fact("mounts", mounts)
	_, err = os.Stat(b.Rootfs("bin", "sleep"))
	assert.NilError(q, err, "the rootfs has no sleep")

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
			b := b.In(q)
			q.Cleanup(func() {
				b.Restore()
				for _, path := range []string{b.Rootfs(), sleep, b.Config()} {
					back(q, path)
				}
			})
			q.Step("take away %s: create fails, says so, and leaves nothing", missing.what)
			missing.take(b)
			assertRefused(q, runc.Named(q, b, "root-"+missing.what, bundle.ID), missing.names)
		})
	}

	q.Control("the same bundle, whole again, is created")
	c := runc.New(q, b)
	c.Create()
	created := proc.Snapshot(q, c.State().Pid)
	assertInCgroup(q, created.Identity, b.Spec.Linux.CgroupsPath)
	q.Fact("whole bundle", c.State().Status)
	c.Must("delete", "--force")
	proc.WaitFor(q, proc.Dead(created.Identity))

	q.Answer("config.json and the rootfs that it names. What is missing there is refused at create, and nothing is left.")
}

// assertRefused asserts that create fails with an error that names what is missing, and that it leaves no state, no cgroup, no
// process and no mount.
func assertRefused(q *lab.Q, c *runc.Container, names string) {
	q.Helper()
	before, err := host.TakePicture()
	assert.NilError(q, err)
	r := c.Try("create")
	assert.Check(q, r.Code != 0, "create succeeds:\n%s", r)
	said := strings.TrimSpace(r.Stderr)
	assert.Check(q, cmp.Regexp("(?i)"+names, said), "the error does not name what is missing")
	q.Fact("create says", message(said))
	after, err := host.TakePicture()
	assert.NilError(q, err)
	for _, change := range host.Of(host.Diff(before, after), before, q.Part) {
		// The parents of the container's cgroup stay: the runtime makes them on its way down, and removes only its own.
		if frame := change.Kind == "cgroup" && !strings.HasSuffix(change.Name, c.ID); !frame {
			q.Errorf("a refused create left something behind: %s", change)
		}
	}
	assert.Check(q, missing(c.StateDir()), "a refused create left its state: %s", c.StateDir())
}

// away puts a file where it is not found.
func away(q *lab.Q, path string) {
	q.Helper()
	assert.NilError(q, os.Rename(path, path+".away"))
	q.Did("mv %[1]s %[1]s.away", strings.TrimPrefix(path, q.Dir+"/"))
}

// back takes it back.
func back(q *lab.Q, path string) {
	q.Helper()
	if err := os.Rename(path+".away", path); err == nil {
		q.Did("mv %[1]s.away %[1]s", strings.TrimPrefix(path, q.Dir+"/"))
	}
}

// message picks the message out of runc's log line.
func message(line string) string {
	if _, msg, ok := strings.Cut(line, `msg="`); ok {
		return strings.ReplaceAll(strings.TrimSuffix(msg, `"`), `\"`, `"`)
	}
	return line
}

// The same two things: a config.json and a rootfs. Only that containerd generates the one and mounts the other.
//
// The image's config became process.env, args and cwd; the layers became the mount at rootfs, made from a snapshot; the
// runtime's options lie beside config.json and not in it; the cgroup's path is made of the namespace and the id; what
// `tasks start` was given (terminal, FIFOs) is the shim's business, and of it only the terminal is in config.json.
//
// Hint: the bundle lies below containerd's state directory, by namespace and id.
// Spec: https://github.com/opencontainers/image-spec/blob/main/conversion.md
func TestBundle_HowDoesContainerdsGeneratedBundleRelateToTheHandBuiltOne(t *testing.T) {
	q := lab.Question(t, lab.MutatesVM, "How does containerd's generated bundle relate to the hand-built one?")
	hand := bundle.Busybox(q, "sleep", "300")
	d := ctrd.Start(q)
	id := q.ID(ctrd.ID)

	q.Step("containerd generates a bundle when a task is started")
	ref := pull(q, d)
	d.CreateContainer(ref, id, "sleep", "300")
	d.StartTask(id)
	dir := d.Bundle(id)
	generated := bundle.Read(q, dir)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	task := proc.Snapshot(q, pid)
	q.Fact("bundle", dir)
	q.Fact("in it", files(q, dir))

	q.Step("task arguments: what was typed after the id is process.args, and what runs")
	assert.DeepEqual(q, generated.Process.Args, []string{"sleep", "300"})
	assert.DeepEqual(q, task.Args, generated.Process.Args)
	assert.Check(q, !generated.Process.Terminal)
	shim := proc.Snapshot(q, int(task.Parent))
	var fifos []string
	for _, target := range shim.FDs {
		if strings.HasPrefix(target, d.FifoDir) {
			fifos = append(fifos, strings.TrimPrefix(filepath.Base(target), id+"-"))
		}
	}
	slices.Sort(fifos)
	assert.Check(q, cmp.Contains(fifos, "stdout"))
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	assert.NilError(q, err)
	assert.Check(q, !strings.Contains(string(config), d.FifoDir), "the FIFOs are in config.json")
	q.Fact("process.args", generated.Process.Args)
	q.Fact("FIFOs, held by the shim alone", slices.Compact(fifos))

	q.Step("image config: its Env is process.env, its Cmd is process.args where nothing was typed")
	if _, ours := lab.ImageRef(); ours {
		for _, env := range image.Config.Env {
			assert.Check(q, cmp.Contains(generated.Process.Env, env))
			assert.Check(q, cmp.Contains(task.Env, env))
		}
		d.CreateContainer(ref, q.ID("cdb-cmd"))
		assert.DeepEqual(q, d.Spec(q.ID("cdb-cmd")).Process.Args, image.Config.Cmd)
		q.Fact("process.args of the image's Cmd", d.Spec(q.ID("cdb-cmd")).Process.Args)
		assert.Check(q, !slices.Contains(hand.Spec.Process.Env, image.Config.Env[1]), "the hand-built bundle has the image's environment")
	}
	q.Fact("process.env", generated.Process.Env)

	q.Step("snapshot mounts: rootfs is a mount point, and no field of config.json says of what")
	mounted := mountAt(q, filepath.Join(dir, "rootfs"))
	assert.Equal(q, generated.Root.Path, "rootfs")
	assert.Check(q, mounted != nil, "nothing is mounted at %s/rootfs", dir)
	if mounted != nil {
		q.Fact("rootfs", mounted.FSType)
		assert.Check(q, !strings.Contains(string(config), mounted.FSType), "config.json speaks of %s", mounted.FSType)
		assert.Check(q, cmp.Contains(mounted.VFSOptions, d.Root), "the snapshot is not below containerd's root")
	}
	assert.Check(q, mountAt(q, hand.Rootfs()) == nil, "control: the hand-built rootfs is a plain directory")

	q.Step("runtime options: beside config.json, for the shim")
	options, err := os.ReadFile(filepath.Join(dir, "options.json"))
	assert.NilError(q, err)
	assert.Check(q, cmp.Contains(string(options), d.RuncRoot))
	assert.Check(q, !strings.Contains(string(config), d.RuncRoot), "config.json speaks of the runtime's root")
	_, err = os.Stat(filepath.Join(d.RuncRoot, ctrd.Namespace, id, "state.json"))
	assert.NilError(q, err, "the runtime was not given that root")
	q.Fact("runtime's --root", d.RuncRoot)

	q.Step("namespaces: the same types, and all the program's own, but for the cgroup namespace")
	// runc spec asks for one where the host has cgroup v2 alone; ctr never does.
	extra := slices.DeleteFunc(types(hand.Spec), func(ns string) bool { return slices.Contains(types(generated), ns) })
	if cgroupVersion(q) == "v2" {
		assert.Check(q, cmp.DeepEqual(extra, []string{"cgroup"}), "only the hand-built one has these")
	} else {
		assert.Check(q, cmp.Len(extra, 0), "only the hand-built one has these")
	}
	self := proc.Self(q)
	for _, ns := range []string{"ipc", "mnt", "net", "pid", "uts"} {
		assert.Check(q, cmp.Contains(task.Own(self.Identity), ns))
	}
	assert.Check(q, cmp.Equal(task.NS["cgroup"], self.NS["cgroup"]), "the task's cgroup namespace is the host's")
	q.Fact("linux.namespaces", types(generated))
	q.Fact("only in the hand-built one", extra)

	q.Step("cgroups: the path is /<containerd namespace>/<container id>")
	assert.Equal(q, generated.Linux.CgroupsPath, "/"+ctrd.Namespace+"/"+id)
	assertInCgroup(q, task.Identity, generated.Linux.CgroupsPath)
	q.Fact("linux.cgroupsPath", generated.Linux.CgroupsPath)

	q.Step("field by field: - the hand-built one, + the generated one")
	difference, err := bundle.Difference(hand.Spec, generated)
	assert.NilError(q, err)
	text := strings.NewReplacer(q.Dir, "$Q", q.Cgroup, "$CGROUP", id, ctrd.ID).Replace(strings.Join(difference, "\n") + "\n")
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		q.Fact(line[:1], line[2:])
	}
	if _, ours := lab.ImageRef(); ours && lab.Pinned() {
		golden.Assert(q, text, "bundle-difference-cgroup-"+cgroupVersion(q)+".golden")
	}

	q.Answer("The same parts: containerd writes config.json from image config and arguments, and mounts the rootfs from a snapshot.")
}

// types lists the namespaces of a configuration, sorted.
func types(s *specs.Spec) []string {
	var out []string
	for _, ns := range s.Linux.Namespaces {
		out = append(out, string(ns.Type))
	}
	slices.Sort(out)
	return out
}
