//go:build linux && vmlab

package cdblab

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"al.essio.dev/pkg/shellescape"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The bundle that containerd generates has the same two parts as one made by hand, a config.json and a rootfs. containerd writes
// config.json, and mounts the rootfs.
//
// process.env, args and cwd come from the image's config, unless the client gives others. The rootfs is a mount point, and what is
// mounted is a snapshot of the image's layers. The runtime's options are in a file of their own beside config.json. The cgroup's path
// has the containerd namespace and the container's id. `ctr containers create --tty` asks for a terminal, and config.json has it;
// the FIFOs for output belong to `ctr tasks start` and to the shim, and config.json does not name them.
//
// Hint: the bundle lies below containerd's state directory, by namespace and id.
// Spec: https://github.com/opencontainers/image-spec/blob/main/conversion.md#verbatim-fields
func TestBundle_HowDoesContainerdsGeneratedBundleRelateToTheHandBuiltOne(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does containerd's generated bundle relate to the hand-built one?")
	defer q.Recover()
	handBuilt := bundle.Busybox(q, "sleep", "3600")
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ContainerID)

	q.Step("containerd generates a bundle when a task is started")
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")
	d.StartTask(id)
	dir := d.Bundle(id)
	generated := bundle.Read(q, dir)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	task := proc.Snapshot(q, pid)
	q.Fact("bundle", dir)
	q.Fact("in it", file.Names(q, dir))

	q.Step("task arguments: what was typed after the id is process.args, and what runs")
	assert.DeepEqual(q, generated.Process.Args, []string{"sleep", "3600"})
	assert.DeepEqual(q, task.Args, generated.Process.Args)
	q.Covers("process.args")
	assert.Check(q, !generated.Process.Terminal)
	d.CreateContainerWith([]string{"--tty"}, ref, q.ID("cdb-tty"), "sleep", "3600")
	withTTY := d.Spec(q.ID("cdb-tty")).Process.Terminal
	assert.Check(q, withTTY, "process.terminal, with `ctr containers create --tty`")
	q.Fact("process.terminal, without and with --tty", []bool{generated.Process.Terminal, withTTY})
	shim := proc.Snapshot(q, task.Parent)
	fifos := fifosOf(shim, d.FifoDir, id)
	assert.Check(q, cmp.Contains(fifos, "stdout"))
	config := file.Read(q, filepath.Join(dir, "config.json"))
	assert.Check(q, !strings.Contains(config, d.FifoDir), "the FIFOs are in config.json")
	for fd, target := range task.FDs {
		assert.Check(q, !strings.HasPrefix(target, d.FifoDir), "descriptor %d of the program is a FIFO of the client", fd)
	}
	q.Fact("process.args", generated.Process.Args)
	q.Fact("FIFOs, held by the shim alone", slices.Compact(fifos))

	q.Step("image config: its Env is process.env, its Cmd is process.args where nothing was typed")
	if _, labImage := q.Image(); labImage {
		for _, env := range image.Config.Env {
			assert.Check(q, cmp.Contains(generated.Process.Env, env))
			assert.Check(q, cmp.Contains(task.Env, env))
		}
		q.Covers("process.env")
		d.CreateContainer(ref, q.ID("cdb-cmd"))
		assert.DeepEqual(q, d.Spec(q.ID("cdb-cmd")).Process.Args, image.Config.Cmd)
		q.Fact("process.args of the image's Cmd", d.Spec(q.ID("cdb-cmd")).Process.Args)
		assert.Check(q, !slices.Contains(handBuilt.Spec.Process.Env, image.Config.Env[1]),
			"the hand-built bundle has the image's environment")
	}
	q.Fact("process.env", generated.Process.Env)
	assertCwdOfImage(q, d, generated, task)

	q.Step("snapshot mounts: rootfs is a mount point, and no field of config.json says of what")
	mounted := check.MountAt(q, filepath.Join(dir, "rootfs"))
	assert.Equal(q, generated.Root.Path, "rootfs")
	assert.Check(q, mounted != nil, "nothing is mounted at %s/rootfs", dir)
	if mounted != nil {
		q.Fact("rootfs", mounted.FSType)
		assert.Check(q, cmp.Contains(mounted.VFSOptions, d.Root), "the snapshot is not below containerd's root")
		assert.Check(q, !strings.Contains(config, d.Root), "config.json names a directory below containerd's root, where snapshots are")
	}
	q.Control("the hand-built rootfs is a plain directory")
	assert.Check(q, check.MountAt(q, handBuilt.Rootfs()) == nil, "something is mounted at %s", handBuilt.Rootfs())

	q.Step("runtime options: beside config.json, for the shim")
	options := file.Read(q, filepath.Join(dir, "options.json"))
	if d.CanSetRuncRoot() {
		assert.Check(q, cmp.Contains(options, d.RuncRoot))
	}
	assert.Check(q, !strings.Contains(config, d.RuncRoot), "config.json contains the runtime's root")
	assert.Assert(q, file.Exists(filepath.Join(d.RuncRoot, d.Namespace, id, "state.json")), "the runtime was not given that root")
	q.Fact("runtime's --root", d.RuncRoot)

	q.Step("namespaces: the same types, and all the program's own, except the cgroup namespace")
	onlyHandBuilt := assertSameNamespaces(q, handBuilt.Spec, generated)
	self := proc.Self(q)
	for _, ns := range []string{"ipc", "mnt", "net", "pid", "uts"} {
		assert.Check(q, cmp.Contains(task.OwnNamespaces(self.Identity), ns))
	}
	assert.Check(q, cmp.Equal(task.NS["cgroup"], self.NS["cgroup"]), "the task's cgroup namespace is the host's")
	q.Fact("linux.namespaces", bundle.NamespaceTypes(generated))
	q.Fact("only in the hand-built one", onlyHandBuilt)

	q.Step("cgroups: the path is /<containerd namespace>/<container id>")
	assert.Equal(q, generated.Linux.CgroupsPath, "/"+d.Namespace+"/"+id)
	check.OnlyProcessInCgroup(q, task.Identity, generated.Linux.CgroupsPath)
	q.Covers("linux.cgroupsPath")
	q.Fact("linux.cgroupsPath", generated.Linux.CgroupsPath)

	q.Step("field by field: - the hand-built one, + the generated one")
	recordDifference(q, d, id, handBuilt.Spec, generated)

	q.Answer("containerd's bundle has the same parts as a bundle built by hand. containerd writes config.json from the image's config and " +
		"from the client's arguments, and it mounts a snapshot of the image at rootfs.")
}

// assertCwdOfImage asserts that process.cwd is the WorkingDir of the image's config, unless the client gives another one. An image
// without it gives /, as the bundle generated does, which has the process task.
func assertCwdOfImage(q *lab.Q, d *ctrd.Daemon, generated *specs.Spec, task proc.Process) {
	q.Helper()
	if _, labImage := q.Image(); !labImage {
		return
	}
	q.Step("image config: its WorkingDir is process.cwd, unless the client gives another directory")
	d.PullImageAgain(image.InEtc)
	id := q.ID("cdb-cwd")
	d.CreateContainer(image.InEtc, id, "sleep", "3600")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	for _, row := range []struct {
		what string
		spec *specs.Spec
		pid  proc.PID
		want string
	}{{"with WorkingDir " + image.EtcDir, d.Spec(id), pid, image.EtcDir}, {"without WorkingDir", generated, task.PID, "/"}} {
		cwd := proc.Cwd(q, row.pid)
		assert.Check(q, cmp.Equal(row.spec.Process.Cwd, row.want), "process.cwd of an image %s", row.what)
		assert.Check(q, cmp.Equal(cwd, row.want), "working directory of the program of an image %s", row.what)
		q.Fact("working directory of the program of an image "+row.what, cwd)
	}
	q.Covers("process.cwd")
	d.CreateContainerWith([]string{"--cwd", "/tmp"}, image.InEtc, q.ID("cdb-cwd-of-client"), "sleep", "3600")
	ofClient := d.Spec(q.ID("cdb-cwd-of-client")).Process.Cwd
	assert.Check(q, cmp.Equal(ofClient, "/tmp"), "process.cwd, with `ctr containers create --cwd /tmp`")
	q.Fact("process.cwd with --cwd", ofClient)
	d.KillAndDeleteTask(id)
}

// assertSameNamespaces asserts that both bundles ask for the same types of namespaces, except for the cgroup namespace. It returns the
// types that only the hand-built bundle has.
func assertSameNamespaces(q *lab.Q, handBuilt, generated *specs.Spec) (only []string) {
	q.Helper()
	// runc spec asks for a cgroup namespace where the host has cgroup v2 alone; ctr never does.
	only = slices.DeleteFunc(bundle.NamespaceTypes(handBuilt), func(ns string) bool {
		return slices.Contains(bundle.NamespaceTypes(generated), ns)
	})
	if cgroup.Version(q) == "v2" {
		assert.Check(q, cmp.DeepEqual(only, []string{"cgroup"}), "only the hand-built bundle has these namespaces")
	} else {
		assert.Check(q, cmp.Len(only, 0), "only the hand-built bundle has these namespaces")
	}
	return only
}

// fifosOf returns the names of the FIFOs that the shim holds for a task's input and output, sorted, without the task's id.
func fifosOf(shim proc.Process, dir, id string) []string {
	var fifos []string
	for _, target := range shim.FDs {
		if strings.HasPrefix(target, dir) {
			fifos = append(fifos, strings.TrimPrefix(filepath.Base(target), id+"-"))
		}
	}
	slices.Sort(fifos)
	return fifos
}

// recordDifference records each field in which the two config.json differ. With the lab's image and runc, it compares the whole difference
// with a golden file, after it has removed from both what differs between releases.
func recordDifference(q *lab.Q, d *ctrd.Daemon, id string, handBuilt, generated *specs.Spec) {
	difference := func() string {
		lines, err := bundle.Difference(handBuilt, generated)
		assert.NilError(q, err)
		sameInEachRun := strings.NewReplacer(q.Dir, "$Q", q.Cgroup, "$CGROUP", id, ctrd.ContainerID, d.Namespace, ctrd.Namespace)
		return sameInEachRun.Replace(strings.Join(lines, "\n") + "\n")
	}
	text := difference()
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		sign, rest, _ := strings.Cut(line, " ")
		field, value, _ := strings.Cut(rest, " ")
		q.Fact(sign+" "+field, value)
	}
	if _, labImage := q.Image(); labImage && runc.IsRunc(q) {
		// The releases from runc 1.1.12 and containerd 1.7.29 on differ only in this. Each program writes the version of the
		// specification that it was built with.
		handBuilt.Version = generated.Version
		if q.UnderTest("runc").Precedes("1.2.0") {
			handBuilt.Process.Capabilities.Ambient = nil // later ones have no ambient capabilities
		}
		if q.UnderTest("ctr").Precedes("2.4.0") {
			generated.Linux.MaskedPaths = append(generated.Linux.MaskedPaths, "/proc/interrupts") // later ones mask it
		}
		check.Golden(q, difference(), "bundle-difference-cgroup-"+cgroup.Version(q)+".golden")
	}
}

// runc can run containerd's bundle by itself, because a runtime needs the bundle only: the same config.json over the same snapshot
// gives the program the same settings.
//
// Some things are in no bundle: which process is the parent, where the output goes, and what the program inherits from the caller, such
// as an OOM score and limits that config.json does not name. With containerd, the shim is the parent and holds the FIFOs. Without it,
// the program is an orphan: pid 1, or a subreaper, is its parent, and its output goes where that of the process that called runc goes.
//
// Hint: which facts of the process come from config.json, and which from its caller?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/bundle.md
// Kernel: https://man7.org/linux/man-pages/man5/proc.5.html
func TestBundle_CanRuncRunContainerdsBundleByItself(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Can runc run containerd's bundle by itself?")
	defer q.Recover()
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ContainerID)

	q.Step("containerd runs it, through the shim")
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")
	d.StartTask(id)
	generated := file.Read(q, filepath.Join(d.Bundle(id), "config.json"))
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	task := proc.Snapshot(q, pid)
	byContainerd := check.ProcessSettings(q, task)
	q.Fact("as containerd's task", byContainerd)
	whole, mounts := proc.Settings(q, pid), check.MountTable(q, task)
	d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
	proc.WaitFor(q, d.TaskStopped(id))
	d.DeleteTask(id)

	for _, name := range []string{"runc", "crun"} {
		q.Run(name, func(q *lab.Q) {
			q.Step("%s runs it: the same config.json over the same snapshot. Only ociVersion is lowered, if the runtime does not know it", name)
			program := q.UnderTest(name).Path
			if program == "" {
				program = q.LookPathOrSkip(name)
			}
			dir := q.Mkdir(name)
			assert.NilError(q, os.Mkdir(filepath.Join(dir, "rootfs"), 0o755))
			d.InSubtest(q).MountSnapshot(id, filepath.Join(dir, "rootfs"))
			assert.NilError(q, os.WriteFile(filepath.Join(dir, "config.json"), []byte(generated), 0o644))
			q.LogCommand("cp %s/config.json %s", d.Bundle(id), name)
			root := q.Mkdir("root-" + name)
			q.Cleanup(func() {
				if file.Exists(filepath.Join(root, id)) {
					runc.MustDelete(q, program, "--root", root, "delete", "--force", id)
				}
			})
			output := filepath.Join(dir, "output")
			create := func() lab.Result {
				argv := []string{program, "--root", root, "create", "--bundle", name, "--pid-file", filepath.Join(dir, "pid"), id}
				return q.Exec("sh", "-c", "exec "+shellescape.QuoteCommand(argv)+" > "+shellescape.Quote(output))
			}
			created := create()
			if strings.Contains(created.Stderr, "unknown version") {
				older := regexp.MustCompile(`"ociVersion":\s*"[^"]*"`).ReplaceAllString(generated, `"ociVersion":"1.0.2"`)
				assert.NilError(q, os.WriteFile(filepath.Join(dir, "config.json"), []byte(older), 0o644))
				q.Fact(name+" refuses a newer specification; asked again with ociVersion", "1.0.2")
				created = create()
			}
			if created.Code != 0 && name != "runc" && strings.Contains(created.Stderr, "not supported") {
				q.Skipf("%s cannot run here: %s; to ask this: make lab CGROUP=v2", name, strings.TrimSpace(created.Stderr))
			}
			assert.Assert(q, created.Code == 0, "%s", created)
			q.Must(program, "--root", root, "start", id)
			pid := check.Int(q, file.Read(q, filepath.Join(dir, "pid")))
			proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
			alone := proc.Snapshot(q, proc.PID(pid))
			settings := check.ProcessSettings(q, alone)
			assert.Check(q, cmp.DeepEqual(settings, byContainerd))
			q.Fact("as "+name+"'s container", settings)
			if name == "runc" { // another runtime may choose what config.json leaves open
				assertSameAsTask(q, alone, whole, mounts)
			}

			q.Control("what is its caller's, not config.json's: the parent")
			assert.Check(q, cmp.Equal(alone.Parent, proc.OrphanReaper(q)))
			assert.Check(q, alone.Parent != task.Parent, "the shim is its parent here, too")
			q.Fact("parent of "+name+"'s container", alone.Parent)
			q.Control("what is its caller's, not config.json's: the output")
			assert.Check(q, cmp.Equal(alone.FDs[1], output), "stdout of the program, and that of the caller of %s", name)
			assert.Check(q, task.FDs[1] != output, "stdout of containerd's task is this file, too")
			q.Fact("stdout of "+name+"'s container is its caller's", alone.FDs[1] == output)
			q.Must(program, "--root", root, "kill", id, "KILL")
			proc.WaitFor(q, proc.Dead(alone.Identity))
			runc.MustDelete(q, program, "--root", root, "delete", "--force", id)
		})
	}

	q.Control("another config.json over the same snapshot: other facts, and other mounts")
	other := bundle.New(q, "other", bundle.ID, bundle.Args("sleep", "3601"))
	d.MountSnapshot(id, q.Mkdir("snapshot"))
	c := runc.Variant(q, other, "hand-built", func(s *specs.Spec) { s.Root.Path = "../snapshot" }) // relative to the bundle
	p := c.CreateAndStart()
	differ := 0
	for k, v := range check.ProcessSettings(q, p) {
		if v != byContainerd[k] {
			differ++
		}
	}
	assert.Check(q, differ >= 2, "the hand-built container differs in %d settings, and should in 2 or more", differ)
	otherMounts := check.MountTable(q, p)
	assert.Check(q, !slices.Equal(otherMounts, mounts), "the hand-built container has the mounts of containerd's task: %q", mounts)
	q.Fact("settings in which the hand-built container differs", differ)

	q.Answer("Yes, runc can run containerd's bundle by itself: runc needs config.json and the rootfs, and no more. In no bundle are the " +
		"parent of the program, its output, and what it inherits from the caller, such as limits that config.json does not name.")
}

// assertSameAsTask asserts that a container has all settings and mounts that containerd's task of the same bundle had.
func assertSameAsTask(q *lab.Q, alone proc.Process, ofTask map[string]string, mountsOfTask []string) {
	q.Helper()
	settings := proc.Settings(q, alone.PID)
	// containerd gives its shims an OOM score of its own plus one, and config.json names none. So it is the caller's.
	score := settings["oom_score_adj"]
	assert.Check(q, cmp.Equal(score, proc.File(q, proc.Self(q).PID, "oom_score_adj")), "oom_score_adj, and that of runc's caller")
	differ := slices.DeleteFunc(slices.Sorted(maps.Keys(ofTask)), func(key string) bool { return settings[key] == ofTask[key] })
	// A limit that config.json does not name is the caller's as well. On cgroup v2 libcontainer, which another question calls in the lab's
	// own process, raises that of locked memory for its eBPF programs.
	differ = slices.DeleteFunc(differ, func(key string) bool { return key == "oom_score_adj" || key == "Max locked memory" })
	for _, key := range differ {
		q.Errorf("%s is %q as runc's container, and was %q as containerd's task", key, settings[key], ofTask[key])
	}
	q.Fact("settings of /proc/PID in which both differ, besides the OOM score and the locked memory of the caller", differ)
	mounts := check.MountTable(q, alone)
	assert.Check(q, cmp.DeepEqual(mounts, mountsOfTask), "mounts with types, flags and options: as runc's container, and as containerd's task")
	q.Fact("mounts that are the same, with roots, types, flags and options", len(mounts))
}
