//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/specconv"
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
	defer q.Recover()

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
		config := row.dir + "/config.json"
		q.Step("%s", strings.Join(append([]string{"runc spec"}, row.flags...), " "))
		dir := q.Mkdir(row.dir)
		q.Must(slices.Concat([]string{"runc", "spec", "--bundle", row.dir}, row.flags)...)
		assert.Check(q, cmp.DeepEqual(file.Names(q, dir), []string{"config.json"}), "files that runc spec writes")
		written := file.Read(q, filepath.Join(dir, "config.json"))
		want, err := bundle.Marshal(row.want)
		assert.NilError(q, err)
		if q.UnderTest("runc").Pinned {
			assert.Equal(q, written, string(want))
			q.Fact(config, "the example of the pinned runc's library, byte for byte")
		} else {
			difference, err := bundle.Difference(row.want, bundle.Read(q, dir))
			assert.NilError(q, err)
			q.Fact(config, "the example of the pinned runc's library, except: "+strings.Join(difference, " "))
		}
	}

	q.Step("it says the version of the specification that it follows, and asks for a shell with a terminal")
	example := bundle.Read(q, filepath.Join(q.Dir, "spec"))
	assert.Check(q, cmp.Regexp(`^1\.[0-9]+\.[0-9]+`, example.Version))
	assert.Check(q, cmp.DeepEqual(example.Process.Args, []string{"sh"}))
	assert.Check(q, example.Process.Terminal && example.Root.Readonly && example.Process.NoNewPrivileges)
	q.Fact("ociVersion", example.Version)
	q.Fact("capabilities", example.Process.Capabilities.Bounding)

	q.Step("the rootless one: a user namespace whose root is the caller, and no network namespace of its own")
	rootlessConfig := bundle.Read(q, filepath.Join(q.Dir, "rootless"))
	caller := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Geteuid()), Size: 1}}
	assert.Check(q, cmp.DeepEqual(rootlessConfig.Linux.UIDMappings, caller))
	namespaces, rootlessNamespaces := bundle.NamespaceTypes(example), bundle.NamespaceTypes(rootlessConfig)
	assert.Check(q, !slices.Contains(namespaces, "user"), "namespaces without --rootless: %v", namespaces)
	assert.Check(q, slices.Contains(rootlessNamespaces, "user"), "namespaces with --rootless: %v", rootlessNamespaces)
	q.Fact("namespaces", namespaces)
	q.Fact("namespaces, rootless", rootlessNamespaces)

	q.Step("it refuses to overwrite")
	assert.NilError(q, os.WriteFile(filepath.Join(q.Dir, "spec", "config.json"), []byte("mine"), 0o644))
	q.LogCommand("echo mine > spec/config.json")
	again := q.Exec("runc", "spec", "--bundle", "spec")
	assert.Check(q, again.Code != 0, "runc spec overwrites an existing config.json:\n%s", again)
	assert.Check(q, cmp.Equal(file.Read(q, filepath.Join(q.Dir, "spec", "config.json")), "mine"))
	q.Fact("runc spec over an existing config.json: error", runc.LastLogMessage(again))

	q.Control("where there is none, it writes one, over and over the same")
	assert.NilError(q, os.Remove(filepath.Join(q.Dir, "spec", "config.json")))
	q.Must("runc", "spec", "--bundle", "spec")
	assert.Check(q, cmp.DeepEqual(bundle.Read(q, filepath.Join(q.Dir, "spec")), example))

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
	defer q.Recover()

	q.Step("before anything runs: what config.json says")
	b := bundle.Busybox(q, "sleep", "300")
	config := bundle.Read(q, b.Dir)
	q.Fact("ociVersion", config.Version)
	q.Fact("root.path", config.Root.Path)
	q.Fact("process.args", config.Process.Args)
	q.Fact("process.env", config.Process.Env)
	q.Fact("linux.namespaces[].type", bundle.NamespaceTypes(config))
	var destinations []string
	for _, m := range config.Mounts {
		destinations = append(destinations, m.Destination)
	}
	q.Fact("mounts[].destination", destinations)

	q.Step("once it runs: what the kernel shows")
	c := runc.New(q, b)
	p := c.CreateAndStart()
	assert.Check(q, cmp.DeepEqual(p.Args, config.Process.Args), "process.args is /proc/PID/cmdline")
	assert.Check(q, cmp.Equal(p.Exe, "/bin/busybox"), "args[0], looked for in the PATH of process.env")
	assert.Check(q, cmp.Equal(proc.ExeDigest(q, p.PID), q.UnderTest("busybox").Digest), "the program in the rootfs")
	q.Covers("process.args")
	root := fmt.Sprintf("/proc/%d/root", p.PID)
	assert.Check(q, file.Same(root, filepath.Join(b.Dir, config.Root.Path)), "root.path is /proc/PID/root")
	q.Covers("root.path")
	own := p.OwnNamespaces(proc.Self(q).Identity)
	assert.Check(q, cmp.Len(own, len(bundle.NamespaceTypes(config))), "linux.namespaces are the namespaces of its own")
	q.Covers("linux.namespaces[].type")
	mountPoints := check.MountPoints(p)
	for _, destination := range destinations {
		assert.Check(q, slices.Contains(mountPoints, destination), "nothing is mounted at %s: %q", destination, p.Mounts)
	}
	q.Covers("mounts[].destination")
	q.Fact("cmdline", p.Args)
	q.Fact("exe", p.Exe)
	q.Fact("its own namespaces", own)

	q.Control("another PATH, and the same word means another program")
	assert.NilError(q, os.Mkdir(b.Rootfs("opt"), 0o755))
	assert.NilError(q, os.Link(b.Rootfs("bin", "busybox"), b.Rootfs("opt", "sleep")))
	q.LogCommand("mkdir bundle/rootfs/opt && ln bundle/rootfs/bin/busybox bundle/rootfs/opt/sleep")
	otherPath := runc.Variant(q, b, "path", func(s *specs.Spec) { s.Process.Env = []string{"PATH=/opt:/bin"} }).CreateAndStart()
	assert.Check(q, cmp.Equal(otherPath.Exe, "/opt/sleep"))
	assert.Check(q, cmp.DeepEqual(otherPath.Args, p.Args), "the arguments are the same")
	q.Covers("process.env")
	q.Fact("exe, with PATH=/opt:/bin", otherPath.Exe)

	q.Control("other namespaces and other mounts: the program sees those")
	fewer := runc.Variant(q, b, "fewer", bundle.WithoutNamespace("uts"), func(s *specs.Spec) {
		s.Hostname = ""
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
	}).CreateAndStart()
	assert.Check(q, cmp.Equal(fewer.NS["uts"], proc.Self(q).NS["uts"]))
	assert.Check(q, !slices.Contains(check.MountPoints(fewer), "/dev/shm"),
		"/dev/shm is mounted, but config.json has no such mount")
	assert.Check(q, slices.Contains(mountPoints, "/dev/shm"))
	q.Fact("without the uts entry and the mount", "the host's uts namespace, and no /dev/shm")

	q.Step("ociVersion: does create refuse a version that will never exist, or a word that is not a version?")
	for _, version := range []string{"99.0.0", "lately"} {
		c := runc.Variant(q, b, "version-"+version, func(s *specs.Spec) { s.Version = version })
		r := c.Try("create")
		q.Fact("ociVersion "+version, map[bool]string{true: "created", false: "refused"}[r.Code == 0])
		if r.Code == 0 {
			c.Must("delete", "--force")
		}
	}

	q.Answer("path, args and env decide which file, namespaces and mounts decide what it sees; read now, found again in /proc.")
}
