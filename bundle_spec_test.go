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

// `runc spec` writes an example that is compiled into runc: the library's specconv.Example, and with --rootless what specconv.ToRootless
// makes of it.
//
// It is a configuration to begin with, and not a default: runc takes nothing from it that config.json does not say. It asks for a shell
// with a terminal over a read-only rootfs, in namespaces of its own, with three capabilities. With --rootless it adds a user namespace,
// whose root is the user that calls runc. runc spec never overwrites a config.json. If config.json has no process.capabilities, the
// program has none with runc 1.2 and earlier. Since runc 1.3 it has all capabilities of the caller of runc.
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
		q.Step("%s", strings.Join(append([]string{"runc spec"}, row.flags...), " "))
		dir := q.Mkdir(row.dir)
		q.Must(slices.Concat([]string{"runc", "spec", "--bundle", row.dir}, row.flags)...)
		assert.Check(q, cmp.DeepEqual(file.Names(q, dir), []string{"config.json"}), "files that runc spec writes")
		written, config := file.Read(q, filepath.Join(dir, "config.json")), bundle.Read(q, dir)
		want, err := bundle.Marshal(row.want)
		assert.NilError(q, err)
		if config.Version == row.want.Version { // the same version of the specification, so the same fields in the same order
			assert.Check(q, cmp.Equal(written, string(want)), "config.json, and the example of the library in JSON")
		}
		difference, err := bundle.Difference(row.want, config)
		assert.NilError(q, err)
		unexpected := slices.DeleteFunc(slices.Clone(difference), func(line string) bool {
			// runc 1.1 has three ambient capabilities as well.
			return strings.Contains(line, "ociVersion") || strings.Contains(line, "process.capabilities.ambient")
		})
		assert.Check(q, cmp.Len(unexpected, 0), "differences between config.json and the example of the library, beside the version")
		q.Fact(row.dir+"/config.json: differences from the library's example", difference)
	}

	q.Step("it names the version of the specification that runc follows, and asks for a shell with a terminal")
	example := bundle.Read(q, filepath.Join(q.Dir, "spec"))
	assert.Check(q, cmp.Regexp(`^1\.[0-9]+\.[0-9]+`, example.Version))
	assert.Check(q, cmp.DeepEqual(example.Process.Args, []string{"sh"}))
	assert.Check(q, example.Process.Terminal && example.Root.Readonly && example.Process.NoNewPrivileges)
	q.Fact("ociVersion", example.Version)
	q.Fact("capabilities", example.Process.Capabilities.Bounding)

	q.Step("an ordinary user calls runc spec --rootless: the root of the user namespace is this user")
	const user, group = 1000, 1001
	rootlessConfig := bundle.Read(q, runc.SpecAs(q, user, group, "rootless-user", "--rootless"))
	assert.Check(q, cmp.DeepEqual(rootlessConfig.Linux.UIDMappings, []specs.LinuxIDMapping{{ContainerID: 0, HostID: user, Size: 1}}))
	assert.Check(q, cmp.DeepEqual(rootlessConfig.Linux.GIDMappings, []specs.LinuxIDMapping{{ContainerID: 0, HostID: group, Size: 1}}))
	q.Fact("rootless: user and group on the host of the container's root", []uint32{
		rootlessConfig.Linux.UIDMappings[0].HostID, rootlessConfig.Linux.GIDMappings[0].HostID})
	namespaces, rootlessNamespaces := bundle.NamespaceTypes(example), bundle.NamespaceTypes(rootlessConfig)
	assert.Check(q, !slices.Contains(namespaces, "user"), "namespaces without --rootless: %v", namespaces)
	assert.Check(q, slices.Contains(rootlessNamespaces, "user"), "namespaces with --rootless: %v", rootlessNamespaces)
	q.Fact("namespaces", namespaces)
	q.Fact("namespaces, rootless", rootlessNamespaces)

	q.Step("a container of the rootless configuration runs in a user namespace, and in the host's network namespace")
	b := bundle.Busybox(q, "sleep", "3600")
	ofRoot := bundle.Read(q, filepath.Join(q.Dir, "rootless")) // the caller was root
	rootlessContainer := runc.Variant(q, b, "rootless-run", func(s *specs.Spec) {
		cgroupsPath := s.Linux.CgroupsPath
		s.Linux, s.Mounts = ofRoot.Linux, ofRoot.Mounts
		s.Linux.CgroupsPath = cgroupsPath
	})
	p := rootlessContainer.CreateAndStart()
	own := p.OwnNamespaces(proc.Self(q).Identity)
	assert.Check(q, slices.Contains(own, "user") && !slices.Contains(own, "net"), "the container's own namespaces: %v", own)
	idMap := strings.Join(strings.Fields(proc.File(q, p.PID, "uid_map")), " ")
	assert.Check(q, cmp.Equal(idMap, fmt.Sprintf("0 %d 1", os.Geteuid())), "uid_map of the container's process")
	q.Fact("namespaces of its own", own)
	q.Fact("uid_map", idMap)
	assertNoDefaults(q, b, example, rootlessContainer, p)

	q.Step("runc spec refuses to overwrite a config.json")
	assert.NilError(q, os.WriteFile(filepath.Join(q.Dir, "spec", "config.json"), []byte("mine"), 0o644))
	q.LogCommand("echo mine > spec/config.json")
	again := q.Exec("runc", "spec", "--bundle", "spec")
	assert.Check(q, again.Code != 0, "runc spec overwrites an existing config.json:\n%s", again)
	assert.Check(q, cmp.Equal(file.Read(q, filepath.Join(q.Dir, "spec", "config.json")), "mine"))
	q.Fact("runc spec over an existing config.json: error", runc.LastLogMessage(again))

	q.Control("without a config.json, runc spec writes one, and each time the same")
	assert.NilError(q, os.Remove(filepath.Join(q.Dir, "spec", "config.json")))
	q.Must("runc", "spec", "--bundle", "spec")
	assert.Check(q, cmp.DeepEqual(bundle.Read(q, filepath.Join(q.Dir, "spec")), example))

	q.Answer("`runc spec` writes an example to begin with, which is compiled into runc. It is no default: runc does not take from it what " +
		"another config.json leaves out.")
}

// assertNoDefaults runs a container whose config.json lacks fields that the example has, and asserts that the program does not have
// their values. The container with has the example's values, and the process p.
func assertNoDefaults(q *lab.Q, b *bundle.Bundle, example *specs.Spec, with *runc.Container, p proc.Process) {
	q.Helper()
	q.Control("config.json has no capabilities, limits, masked paths, hostname and noNewPrivileges: the program does not have the example's")
	without := runc.Variant(q, b, "without", func(s *specs.Spec) {
		s.Process.Capabilities, s.Process.Rlimits, s.Process.NoNewPrivileges = nil, nil, false
		s.Linux.MaskedPaths, s.Hostname = nil, ""
	})
	lacking := without.StartAfter("ulimit -n 1000") // the example has 1024
	masked := func(p proc.Process) string {
		points := check.MountPoints(p)
		return fmt.Sprint(slices.ContainsFunc(example.Linux.MaskedPaths, func(path string) bool { return slices.Contains(points, path) }))
	}
	openFiles := func(p proc.Process) string { return fmt.Sprint(proc.Limit(q, p.PID, "Max open files")) }
	const none, ofCaller = "none", "those of the caller of runc"
	capabilities := func(p proc.Process) string {
		switch caps := proc.Bits(q, p.PID, "CapEff"); caps {
		case 0:
			return none
		case proc.Bits(q, proc.PID(os.Getpid()), "CapEff"):
			return ofCaller
		default:
			return caps.String()
		}
	}
	for _, row := range []struct {
		what string
		read func(proc.Process) string
		want []string // one of these
	}{
		{"CapEff", capabilities, []string{none, ofCaller}}, // runc 1.2.9 takes all capabilities away, and runc 1.3.0 leaves them
		{"limit of open files", openFiles, []string{"[1000 1000]"}},
		{"a path of the example's maskedPaths is a mount point", masked, []string{"false"}},
		{"NoNewPrivs", func(p proc.Process) string { return proc.Status(q, p.PID, "NoNewPrivs") }, []string{"0"}},
	} {
		got, ofExample := row.read(lacking), row.read(p)
		assert.Check(q, cmp.Contains(row.want, got), "%s of a program whose config.json lacks the field", row.what)
		assert.Check(q, !slices.Contains(row.want, ofExample), "%s of a program whose config.json has the example's value is also %s", row.what,
			ofExample)
		q.Fact("without the field: "+row.what, got)
		q.Fact("with the example's value: "+row.what, ofExample)
	}
	hostname := func(c *runc.Container) string { return strings.TrimSpace(c.Exec("hostname").Stdout) }
	own := file.Read(q, "/proc/sys/kernel/hostname")
	assert.Check(q, cmp.Equal(hostname(without), own), "hostname of a container whose config.json lacks it, and the host's")
	assert.Check(q, cmp.Equal(hostname(with), example.Hostname), "hostname of a container whose config.json has the example's")
	q.Fact("without the field: hostname is the host's", hostname(without) == own)
	q.Fact("with the example's value: hostname", hostname(with))
}

// Path, args, env, namespaces and mounts decide what will run. A reader finds each in config.json before anything runs, and in /proc
// afterwards.
//
// args[0] and the PATH in env decide which file is executed; root.path decides which directory is its /; namespaces and mounts decide
// what the program sees. config.json has more fields, but these decide what runs and where.
//
// Hint: /proc/PID/{exe,cmdline,root,ns,mountinfo} against config.json.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-process,
// https://github.com/opencontainers/runtime-spec/blob/main/config.md#root
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_exe.5.html
func TestBundle_WhichFieldsDecideWhatWillRun(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which fields decide what will run?")
	defer q.Recover()

	q.Step("before anything runs, config.json says what will run")
	b := bundle.Busybox(q, "sleep", "3600")
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

	q.Step("the container runs: the kernel shows what config.json says")
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
	// The kernel calls the mount namespace mnt, and the network namespace net.
	types := strings.NewReplacer("mount", "mnt", "network", "net").Replace(strings.Join(bundle.NamespaceTypes(config), " "))
	assert.Check(q, cmp.DeepEqual(own, slices.Sorted(strings.FieldsSeq(types))), "linux.namespaces are the namespaces of its own")
	q.Covers("linux.namespaces[].type")
	mountPoints := check.MountPoints(p)
	for _, destination := range destinations {
		assert.Check(q, slices.Contains(mountPoints, destination), "nothing is mounted at %s: %q", destination, p.Mounts)
	}
	q.Covers("mounts[].destination")
	q.Fact("cmdline", p.Args)
	q.Fact("exe", p.Exe)
	q.Fact("its own namespaces", own)

	q.Control("with another PATH, the same word in args is another program")
	assert.NilError(q, os.Mkdir(b.Rootfs("opt"), 0o755))
	assert.NilError(q, os.Link(b.Rootfs("bin", "busybox"), b.Rootfs("opt", "sleep")))
	q.LogCommand("mkdir bundle/rootfs/opt && ln bundle/rootfs/bin/busybox bundle/rootfs/opt/sleep")
	otherPath := runc.Variant(q, b, "path", func(s *specs.Spec) { s.Process.Env = []string{"PATH=/opt:/bin"} }).CreateAndStart()
	assert.Check(q, cmp.Equal(otherPath.Exe, "/opt/sleep"))
	assert.Check(q, cmp.DeepEqual(otherPath.Args, p.Args), "the arguments are the same")
	q.Covers("process.env")
	q.Fact("exe, with PATH=/opt:/bin", otherPath.Exe)

	q.Control("with other namespaces and other mounts, the program sees those")
	fewer := runc.Variant(q, b, "fewer", bundle.WithoutNamespace("uts"), func(s *specs.Spec) {
		s.Hostname = ""
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
	}).CreateAndStart()
	assert.Check(q, cmp.Equal(fewer.NS["uts"], proc.Self(q).NS["uts"]))
	assert.Check(q, !slices.Contains(check.MountPoints(fewer), "/dev/shm"),
		"/dev/shm is mounted, but config.json has no such mount")
	assert.Check(q, slices.Contains(mountPoints, "/dev/shm"))
	q.Fact("without the uts entry: namespaces in common with the host", fewer.SharedNamespaces(proc.Self(q).Identity))
	q.Fact("without the mount: /dev/shm is mounted", slices.Contains(check.MountPoints(fewer), "/dev/shm"))

	q.Step("ociVersion: create refuses a version that does not exist, or the container is as with any other version")
	for _, version := range []string{"99.0.0", "lately"} {
		c := runc.Variant(q, b, "version-"+version, func(s *specs.Spec) { s.Version = version })
		r := c.Try("create")
		if r.Code != 0 {
			runc.AssertMessage(q, r.Stderr, "version")
			q.Fact("ociVersion "+version, "refused: "+runc.LastLogMessage(r))
			continue
		}
		// The state document has the version that the runtime follows, and not the one of config.json.
		state := c.State()
		assert.Check(q, cmp.Equal(state.Status, specs.StateCreated), "ociVersion %s: status", version)
		assert.Check(q, state.Version != version, "ociVersion %s is also the version of the state document, which follows another one", version)
		q.Fact("ociVersion "+version, "created, and `runc state` says ociVersion "+state.Version)
		c.Must("delete", "--force")
	}

	q.Answer("args, env and root.path decide which file runs. namespaces and mounts decide what the program sees. All of " +
		"it can be read in config.json before, and in /proc afterwards.")
}
