//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cdblab/helpers/check"

	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// An example, compiled into it: the library's specconv.Example, and with --rootless what specconv.ToRootless makes of it.
//
// It is a configuration to begin with and no default: a runtime takes nothing from it that config.json does not say. It
// asks for a shell with a terminal over a read-only rootfs, in namespaces of its own, with three capabilities. It never
// overwrites a config.json.
//
// Hint: marshal the library's example as runc does, and compare the bytes.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#configuration-schema-example
// Kernel: https://man7.org/linux/man-pages/man7/user_namespaces.7.html, for --rootless
func TestBundle_WhatDoesRuncSpecWrite(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `runc spec` write?")

	rootless := specconv.Example()
	specconv.ToRootless(rootless)
	for _, row := range []struct {
		dir   string
		flags []string
		want  *specs.Spec
	}{
		{"spec", nil, specconv.Example()},
		{"rootless", []string{"--rootless"}, rootless},
	} {
		q.Step("%s", strings.Join(append([]string{"runc spec"}, row.flags...), " "))
		dir := q.Mkdir(row.dir)
		q.Must(slices.Concat([]string{"runc", "spec", "--bundle", row.dir}, row.flags)...)
		assert.Check(q, cmp.DeepEqual(file.Names(q, dir), []string{"config.json"}), "what it writes")
		written := file.Read(q, filepath.Join(dir, "config.json"))
		want, err := bundle.Marshal(row.want)
		assert.NilError(q, err)
		if q.UnderTest("runc").Pinned {
			assert.Equal(q, written, string(want))
			q.Fact("config.json", "the library's example, byte for byte")
		} else {
			difference, err := bundle.Difference(row.want, bundle.Read(q, dir))
			assert.NilError(q, err)
			q.Fact("against the pinned runc's", difference)
		}
	}

	q.Step("it says the version of the specification that it follows, and asks for a shell with a terminal")
	s := bundle.Read(q, filepath.Join(q.Dir, "spec"))
	assert.Check(q, cmp.Regexp(`^1\.[0-9]+\.[0-9]+`, s.Version))
	assert.Check(q, cmp.DeepEqual(s.Process.Args, []string{"sh"}))
	assert.Check(q, s.Process.Terminal && s.Root.Readonly && s.Process.NoNewPrivileges)
	q.Fact("ociVersion", s.Version)
	q.Fact("capabilities", s.Process.Capabilities.Bounding)

	q.Step("the rootless one: a user namespace whose root is the caller, and no network namespace of its own")
	r := bundle.Read(q, filepath.Join(q.Dir, "rootless"))
	assert.Check(q, cmp.DeepEqual(r.Linux.UIDMappings, []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Geteuid()), Size: 1}}))
	assert.Check(q, slices.Contains(bundle.NamespaceTypes(r), "user") && !slices.Contains(bundle.NamespaceTypes(s), "user"), "user namespaces: %v, and %v", bundle.NamespaceTypes(r), bundle.NamespaceTypes(s))
	q.Fact("namespaces", bundle.NamespaceTypes(s))
	q.Fact("namespaces, rootless", bundle.NamespaceTypes(r))

	q.Step("it refuses to overwrite")
	assert.NilError(q, os.WriteFile(filepath.Join(q.Dir, "spec", "config.json"), []byte("mine"), 0o644))
	q.LogCommand("echo mine > spec/config.json")
	again := q.Exec("runc", "spec", "--bundle", "spec")
	assert.Check(q, again.Code != 0, "it overwrites a config.json that is there:\n%s", again)
	assert.Check(q, cmp.Equal(file.Read(q, filepath.Join(q.Dir, "spec", "config.json")), "mine"))
	q.Fact("runc spec says", runc.LastLogMessage(again))

	q.Control("where there is none, it writes one, over and over the same")
	assert.NilError(q, os.Remove(filepath.Join(q.Dir, "spec", "config.json")))
	q.Must("runc", "spec", "--bundle", "spec")
	twice := bundle.Read(q, filepath.Join(q.Dir, "spec"))
	assert.Check(q, cmp.DeepEqual(twice, s))

	q.Answer("An example to begin with, the library's own: nothing of it holds unless config.json says it.")
}

// Path, args, namespaces and mounts; each can be read before anything runs, and found again once it runs.
//
// Of the path in args[0] and the PATH in env follows which file is executed; of root.path, which directory is its /; of
// namespaces and mounts, what it sees. config.json has more fields, but these decide what runs and where.
//
// Hint: /proc/PID/{exe,cmdline,root,ns,mountinfo} against config.json.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_exe.5.html
func TestBundle_WhichFieldsDecideWhatWillRun(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which fields decide what will run?")

	q.Step("before anything runs: what config.json says")
	b := bundle.Busybox(q, "sleep", "300")
	read := bundle.Read(q, b.Dir)
	q.Fact("ociVersion", read.Version)
	q.Fact("root.path", read.Root.Path)
	q.Fact("process.args", read.Process.Args)
	q.Fact("process.env", read.Process.Env)
	q.Fact("linux.namespaces[].type", bundle.NamespaceTypes(read))
	var destinations []string
	for _, m := range read.Mounts {
		destinations = append(destinations, m.Destination)
	}
	q.Fact("mounts[].destination", destinations)

	q.Step("once it runs: what the kernel shows")
	c := runc.New(q, b)
	p := c.CreateAndStart()
	assert.Check(q, cmp.DeepEqual(p.Args, read.Process.Args), "process.args is /proc/PID/cmdline")
	assert.Check(q, cmp.Equal(p.Exe, "/bin/busybox"), "args[0], looked for in the PATH of process.env")
	assert.Check(q, cmp.Equal(proc.ExeDigest(q, p.PID), q.UnderTest("busybox").Digest), "the program in the rootfs")
	root, err := os.Stat(filepath.Join("/proc", fmt.Sprint(p.PID), "root"))
	assert.NilError(q, err)
	named, err := os.Stat(filepath.Join(b.Dir, read.Root.Path))
	assert.NilError(q, err)
	assert.Check(q, os.SameFile(root, named), "root.path is /proc/PID/root")
	assert.Check(q, cmp.Len(p.OwnNamespaces(proc.Self(q).Identity), len(bundle.NamespaceTypes(read))), "linux.namespaces are those of its own")
	points := map[string]bool{}
	for _, m := range check.MountPoints(p) {
		points[m] = true
	}
	for _, d := range destinations {
		assert.Check(q, points[d], "nothing is mounted at %s: %q", d, p.Mounts)
	}
	q.Fact("cmdline", p.Args)
	q.Fact("exe", p.Exe)
	q.Fact("its own namespaces", p.OwnNamespaces(proc.Self(q).Identity))

	q.Control("another PATH, and the same word means another program")
	assert.NilError(q, os.Mkdir(b.Rootfs("opt"), 0o755))
	assert.NilError(q, os.Link(b.Rootfs("bin", "busybox"), b.Rootfs("opt", "sleep")))
	q.LogCommand("mkdir bundle/rootfs/opt && ln bundle/rootfs/bin/busybox bundle/rootfs/opt/sleep")
	other := runc.Variant(q, b, "path", func(s *specs.Spec) { s.Process.Env = []string{"PATH=/opt:/bin"} })
	o := other.CreateAndStart()
	assert.Check(q, cmp.Equal(o.Exe, "/opt/sleep"))
	assert.Check(q, cmp.DeepEqual(o.Args, p.Args), "the words are the same")
	q.Fact("exe, with PATH=/opt:/bin", o.Exe)

	q.Control("other namespaces and other mounts, and it sees others")
	fewer := runc.Variant(q, b, "fewer", bundle.WithoutNamespace("uts"), func(s *specs.Spec) {
		s.Hostname = ""
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
	})
	f := fewer.CreateAndStart()
	assert.Check(q, cmp.Equal(f.NS["uts"], proc.Self(q).NS["uts"]))
	assert.Check(q, !slices.Contains(check.MountPoints(f), "/dev/shm"), "/dev/shm is mounted though no field says so")
	assert.Check(q, slices.Contains(check.MountPoints(p), "/dev/shm"))
	q.Fact("without the entry", "the host's uts namespace, and no /dev/shm")

	q.Step("ociVersion is looked at too: of a version that there will never be, and of one that is none")
	for _, version := range []string{"99.0.0", "lately"} {
		v := runc.Variant(q, b, "version-"+version, func(s *specs.Spec) { s.Version = version })
		r := v.Try("create")
		q.Fact("ociVersion "+version, map[bool]string{true: "created", false: "refused"}[r.Code == 0])
		if r.Code == 0 {
			v.Must("delete", "--force")
		}
	}

	q.Answer("path, args and env decide which file, namespaces and mounts decide what it sees; read now, found again in /proc.")
}
