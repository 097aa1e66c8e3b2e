//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"al.essio.dev/pkg/shellescape"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The container sees the mounts of config.json, in their order, in the directory that root.path names.
//
// runc mounts each on its destination in the rootfs, one after the other, so a later mount hides an earlier one below it. Then it
// makes the rootfs the root, and unmounts the old root. It binds the rootfs with everything that the host has mounted below it,
// and so the container sees these mounts, too. In /dev, runc makes the devices and links that each program expects.
//
// Hint: /proc/PID/mountinfo is the mount table of the process's mount namespace, not the host's.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime-linux.md#runtimeLinuxDevSymbolicLinks
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html, https://man7.org/linux/man-pages/man2/pivot_root.2.html
func TestBundle_WhichMountsDoesTheContainerSee(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which mounts does the container see?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	q.WriteLine(b.Rootfs("mark"), "the bundle's rootfs")
	shelf := q.Mkdir("shelf")
	q.WriteLine(filepath.Join(shelf, "mark"), "the shelf")
	outer := specs.Mount{Destination: "/cdb", Type: "tmpfs", Source: "cdb-source",
		Options: []string{"nosuid", "noexec", "size=64k"}}
	inner := specs.Mount{Destination: "/cdb/in", Type: "none", Source: shelf, Options: []string{"rbind"}}
	relative := specs.Mount{Destination: "/cdb/relative", Type: "bind", Source: "../shelf", Options: []string{"bind"}} // to the bundle

	q.Step("each mount of config.json is one of the container's, in this order")
	c, sh, p := runc.StartWithShell(q, b, "mounts", withMounts(outer, inner, relative))
	mounts := check.Mounts(q, p)
	configured := destinations(c.Bundle.Spec.Mounts)
	found := mountPointsAmong(mounts, configured)
	assert.Check(q, cmp.DeepEqual(found, configured), "the destinations, in the order of /proc/PID/mountinfo")
	q.Covers("mounts[].destination")
	q.Fact("mounts[].destination", found)
	assertTmpfsAsConfigured(q, check.TopMount(q, mounts, "/cdb"), outer)
	assertBindMountsOfShelf(q, sh, mounts, inner, relative)

	q.Step("each mount has the type, the flags and the mode that config.json gives it, and no other flag")
	assertMountsAsConfigured(q, p, mounts, c.Bundle.Spec.Mounts)

	q.Step("the container has the default file systems of the specification")
	assertDefaultFileSystems(q, mounts)

	q.Step("in /dev, runc makes the links to the program's descriptors")
	assert.Check(q, cmp.DeepEqual(devLinks(p), linksOfSpecification), "links in a /dev that is a tmpfs")
	q.Fact("links in /dev", devLinks(p))
	inBoundDev := startWithBoundDev(q, b)
	q.Fact("links in a /dev that is a bind mount of a directory of the host", devLinks(inBoundDev))
	q.Clause("Dev symbolic links: While creating the container (step 2 in the lifecycle), runtimes MUST create the following symlinks "+
		"if the source file exists after processing mounts:", lab.DeviatesUnless(slices.Equal(devLinks(inBoundDev), linksOfSpecification),
		"runc makes no links in a /dev that is a bind mount"))

	q.Step("in /dev, runc makes the devices that the specification demands of every container")
	assertDefaultDevices(q, p)

	q.Step("root.path is what they are mounted in")
	isRoot := file.Same(fmt.Sprintf("/proc/%d/root/", p.PID), b.Rootfs())
	assert.Check(q, isRoot, "the container's / is not the directory that root.path names")
	assert.Check(q, cmp.Equal(mounts[0].Mountpoint, "/"), "the first mount")
	assert.Check(q, cmp.Equal(sh.Run("cat /mark").Out, "the bundle's rootfs"))
	q.Covers("root.path")
	q.Fact("root.path is the container's /", isRoot)

	q.Step("nothing else is mounted: pivot_root has left no mount of the host")
	assert.Check(q, cmp.Len(check.MountsOutside(mounts, configured), 0), "mounts that config.json does not ask for")
	assert.Check(q, !check.SeesHostMounts(p), "a mount that the lab has made on the host is visible: %q", p.Mounts)
	assert.Check(q, sh.Run("ls -d "+q.Dir).Code != 0, "the question's directory on the host is visible")
	q.Fact("mounts that config.json does not name", check.MountsOutside(mounts, configured))

	q.Control("in the reverse order, the outer mount hides the inner one, which is still in the table")
	changeRootfsOnHost(q, b) // for the next control
	_, sh, p = runc.StartWithShell(q, b, "reversed", withMounts(inner, outer))
	mounts = check.Mounts(q, p)
	assert.Check(q, strings.HasSuffix(check.TopMount(q, mounts, "/cdb/in").Root, "/shelf"), "the mount at /cdb/in is not that of the shelf")
	hidden := sh.Run("cat /cdb/in/mark")
	assert.Check(q, cmp.Contains(hidden.Out, "No such file"), "the mount that a later one hides can still be read")
	q.Fact("the inner mount", hidden.Out)

	q.Control("what is mounted below the rootfs on the host is seen, and no field of config.json names it")
	assert.Check(q, cmp.DeepEqual(check.MountsOutside(mounts, configured), []string{"/cdb-below"}), "mounts that config.json does not ask for")
	assert.Check(q, cmp.Equal(sh.Run("cat /cdb-below/mark").Out, "the host's mount"))
	assert.Check(q, cmp.Equal(sh.Run("cat /mark").Out, "read again"), "a rootfs is no copy: what is written later is read")
	q.Fact("mounts that config.json does not name, with one below the rootfs", check.MountsOutside(mounts, configured))

	q.Control("another root.path, another root")
	other := writeOtherRootfs(q)
	p = runc.Variant(q, b, "elsewhere", inOther, bundle.Args("sleep", "3601")).StartAfter("exec 7< bundle/config.json")
	mark := file.Read(q, fmt.Sprintf("/proc/%d/root/mark", p.PID))
	assert.Check(q, cmp.Equal(mark, "another rootfs"))
	q.Fact("root.path ../other", mark)

	q.Step("an open file of the host would be another way to its directories: the program gets none that runc's caller has open")
	descriptors := openDescriptors(q, p.PID)
	assert.Check(q, cmp.DeepEqual(descriptors, []int{0, 1, 2}), "open descriptors of the program, where runc's caller has 7, too")
	q.Fact("open descriptors of the program", descriptors)
	q.Clause("File descriptors: By default, only the stdin, stdout and stderr file descriptors are kept open for the application "+
		"by the runtime.", lab.Met)

	// Subtests, because releases have had one of these bugs without the other: testdata/released-bugs.toml.
	q.Run("tmpcopyup", func(q *lab.Q) {
		q.Step("tmpcopyup copies what the mount hides, with modes and links, whatever the umask of the caller of runc is")
		want, got := copyUp(q, b, other, "umask 077")
		assert.Check(q, cmp.DeepEqual(got, want), "the files in the tmpfs, and those of the rootfs that it hides")
		q.Fact("tmpcopyup, with a caller that has the umask 077", got)
	})
	q.Run("links-to-the-host", func(q *lab.Q) {
		q.Step("directories of the rootfs may be links to directories of the host: runc follows them inside of the rootfs alone")
		assertLinksStayInRootfs(q, b)
	})

	q.Answer("The container sees the mounts of config.json, in their order, in the directory that root.path names. Of the mounts that the " +
		"host has at create, and that config.json does not name, it sees only those below the rootfs and those below the source of an rbind. " +
		"A mount that the host makes later can also arrive: see the question about later mounts.")
}

// withMounts adds mounts to config.json.
func withMounts(mounts ...specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, mounts...) }
}

// destinations returns where config.json mounts each of the mounts.
func destinations(mounts []specs.Mount) (paths []string) {
	for _, m := range mounts {
		paths = append(paths, m.Destination)
	}
	return paths
}

// mountPointsAmong returns those of the paths that are mount points, in the order of the mount table.
func mountPointsAmong(mounts []*mountinfo.Info, paths []string) (found []string) {
	for _, m := range mounts {
		if slices.Contains(paths, m.Mountpoint) {
			found = append(found, m.Mountpoint)
		}
	}
	return found
}

// assertTmpfsAsConfigured asserts that the kernel shows the type, the source and the options that config.json gives the tmpfs at /cdb.
func assertTmpfsAsConfigured(q *lab.Q, tmpfs *mountinfo.Info, configured specs.Mount) {
	q.Helper()
	for _, row := range []struct {
		covers    lab.Fields
		got, want string
	}{
		{lab.Fields{"mounts[].type"}, tmpfs.FSType, configured.Type},
		{lab.Fields{"mounts[].source"}, tmpfs.Source, configured.Source},
		{lab.Fields{"mounts[].options"}, strings.Join(check.MountOptions(tmpfs, configured.Options), " "),
			strings.Join(configured.Options, " ")},
	} {
		assert.Check(q, cmp.Equal(row.got, row.want), row.covers[0])
		q.Covers(row.covers...)
		q.Fact(row.covers[0]+" of /cdb", row.got)
	}
}

// assertBindMountsOfShelf asserts that both bind mounts show the directory shelf, by its path or by its path relative to the bundle.
func assertBindMountsOfShelf(q *lab.Q, sh *runc.Shell, mounts []*mountinfo.Info, absolute, relative specs.Mount) {
	q.Helper()
	for _, m := range []specs.Mount{absolute, relative} {
		mark := sh.Run("cat " + m.Destination + "/mark").Out
		assert.Check(q, cmp.Equal(mark, "the shelf"), "the file in the source %s of a bind mount", m.Source)
		q.Fact("mounts[].source of "+m.Destination, mark)
	}
	// The kernel ignores the type of a bind mount, which is usually written "none" or "bind": the mount has the type of its source.
	fsType := func(m specs.Mount) string { return check.TopMount(q, mounts, m.Destination).FSType }
	assert.Check(q, cmp.Equal(fsType(absolute), fsType(relative)), "file system types of two bind mounts of one directory, to which "+
		"config.json gives the types %q and %q", absolute.Type, relative.Type)
}

// assertMountsAsConfigured asserts that each mount has the type and the flags that config.json gives it.
func assertMountsAsConfigured(q *lab.Q, p proc.Process, mounts []*mountinfo.Info, configured []specs.Mount) {
	q.Helper()
	for _, m := range configured {
		if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			continue // it keeps the type and the flags of its source
		}
		for _, mounted := range check.MountedFor(q, mounts, m) {
			check.IsAsConfigured(q, p, mounted, m)
			q.Fact("mount at "+mounted.Mountpoint+": type and flags", mounted.FSType+" "+strings.Join(check.FlagsOf(mounted), " "))
		}
	}
}

// assertDefaultFileSystems asserts that the container has the file systems of
// https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-filesystems.
func assertDefaultFileSystems(q *lab.Q, mounts []*mountinfo.Info) {
	q.Helper()
	for path, want := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs"} {
		assert.Check(q, cmp.Equal(check.TopMount(q, mounts, path).FSType, want), "file system at %s", path)
	}
}

// linksOfSpecification are the links that the specification demands in /dev, as devLinks returns them.
var linksOfSpecification = []string{"/dev/fd → /proc/self/fd", "/dev/stdin → /proc/self/fd/0", "/dev/stdout → /proc/self/fd/1",
	"/dev/stderr → /proc/self/fd/2"}

// devLinks returns the links in the container's /dev to the program's descriptors.
func devLinks(p proc.Process) (links []string) {
	for _, link := range []string{"/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"} {
		if target, err := os.Readlink(fmt.Sprintf("/proc/%d/root%s", p.PID, link)); err == nil {
			links = append(links, link+" → "+target)
		}
	}
	return links
}

// assertDefaultDevices asserts that the container has the devices of
// https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices, without a line of config.json.
// The one that it leaves out, /dev/console, is for a container with a terminal.
func assertDefaultDevices(q *lab.Q, p proc.Process) {
	q.Helper()
	for _, device := range []struct {
		path         string
		major, minor int64 // https://www.kernel.org/doc/Documentation/admin-guide/devices.txt
	}{{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}} {
		got := check.DeviceInRoot(q, p.PID, device.path)
		// The specification says nothing about modes and owners. All users need these devices, and no user may change them.
		assert.Check(q, cmp.Equal(got, check.Device('c', device.major, device.minor, 0o666, 0, 0)), "type, numbers, mode and owner of %s",
			device.path)
		q.Fact(device.path+": type, numbers, mode and owner", got)
	}
	inRoot := func(path string) string { return fmt.Sprintf("/proc/%d/root%s", p.PID, path) }
	assert.Check(q, file.Same(inRoot("/dev/ptmx"), inRoot("/dev/pts/ptmx")), "/dev/ptmx is not /dev/pts/ptmx of the container")
	assert.Check(q, cmp.Equal(check.DeviceInRoot(q, p.PID, "/dev/ptmx"), check.Device('c', 5, 2, 0o666, 0, 0)), "/dev/ptmx")
	q.Fact("/dev/ptmx is /dev/pts/ptmx of the container", file.Same(inRoot("/dev/ptmx"), inRoot("/dev/pts/ptmx")))
}

// startWithBoundDev starts a container whose /dev is a bind mount of a directory of the host.
func startWithBoundDev(q *lab.Q, b *bundle.Bundle) proc.Process {
	q.Helper()
	hostsDev := q.MountTmpfs(q.Mkdir("dev"))
	assert.NilError(q, unix.Mknod(filepath.Join(hostsDev, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))) // to mask paths
	q.LogCommand("mknod -m 666 dev/null c 1 3")
	return runc.Variant(q, b, "bound-dev", atDev(hostsDev)).CreateAndStart()
}

// changeRootfsOnHost writes another text into the file mark of the rootfs, and mounts a tmpfs below the rootfs.
func changeRootfsOnHost(q *lab.Q, b *bundle.Bundle) {
	q.Helper()
	q.WriteLine(b.Rootfs("mark"), "read again")
	q.MountTmpfs(b.Rootfs("cdb-below"))
	q.WriteLine(b.Rootfs("cdb-below", "mark"), "the host's mount")
}

// inOther sets root.path to the directory of [writeOtherRootfs], relative to the bundle.
func inOther(s *specs.Spec) { s.Root.Path = "../other" }

// writeOtherRootfs writes a copy of the rootfs with another mark, and returns its directory.
func writeOtherRootfs(q *lab.Q) string {
	q.Helper()
	other := q.Mkdir("other")
	assert.NilError(q, q.RootFS().WriteDir(other))
	q.LogCommand("cp -a bundle/rootfs/. other")
	q.WriteLine(filepath.Join(other, "mark"), "another rootfs")
	return other
}

// openDescriptors returns the numbers of the process's open descriptors.
func openDescriptors(q *lab.Q, pid proc.PID) (numbers []int) {
	q.Helper()
	for _, d := range proc.Descriptors(q, pid) {
		numbers = append(numbers, d.FD)
	}
	return numbers
}

// copyUp starts a container with a tmpfs, whose option is tmpcopyup, on a directory of the rootfs other. The caller of runc runs the
// command callerChanges first. copyUp returns the files of the directory, and those of the tmpfs.
func copyUp(q *lab.Q, b *bundle.Bundle, other, callerChanges string) (want, got map[string]string) {
	q.Helper()
	copied := filepath.Join(other, "copied")
	q.Must("sh", "-c", "cd other && mkdir -p copied/open/deep && echo told > copied/open/deep/file && ln -s deep copied/open/link && "+
		"chmod 1777 copied/open/deep && chmod 604 copied/open/deep/file && chmod 755 copied copied/open")
	want = file.Tree(q, copied)
	p := runc.Variant(q, b, "copying", inOther, withMounts(
		specs.Mount{Destination: "/copied", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
	)).StartAfter(callerChanges)
	return want, file.Tree(q, fmt.Sprintf("/proc/%d/root/copied", p.PID))
}

// assertLinksStayInRootfs makes links in the rootfs other that point to a directory of the host. It asserts that create does not
// change this directory.
func assertLinksStayInRootfs(q *lab.Q, b *bundle.Bundle) {
	q.Helper()
	outside := q.Mkdir("outside")
	q.WriteLine(filepath.Join(outside, "ptmx"), "the host's")
	q.Must("sh", "-c", "cd other && rm -r dev && ln -s "+outside+" dev && ln -s "+outside+" data")
	untouched := file.Tree(q, outside)
	inside := q.MountTmpfs(filepath.Join(q.Dir, "other", outside)) // with device files, which a mount of the lab's directory may forbid
	lying := runc.Variant(q, b, "lying", func(s *specs.Spec) {
		s.Root.Path = "../other"
		s.Root.Readonly = false
		// The rest of /dev is the links and devices that runc makes there itself.
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data/new", Type: "tmpfs", Source: "tmpfs"})
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/data/null", Type: "c", Major: 1, Minor: 3})
		s.Process.Cwd = "/data/cwd"
	})
	// Another runtime may refuse this rootfs. What must not be is a change of the host's directory.
	create := lying.Try("create")
	assert.Check(q, create.Code == 0 || !runc.IsRunc(q), "create refuses a rootfs with links, so it shows nothing:\n%s", create)
	if create.Code == 0 {
		lying.Must("delete", "--force")
		made := slices.Sorted(maps.Keys(file.Tree(q, inside)))
		for _, name := range []string{"cwd", "new", "null", "ptmx"} {
			assert.Check(q, slices.Contains(made, name), "the runtime has not made %s below the rootfs, where the links lead: %q", name, made)
		}
		q.Fact("below the rootfs, where the links lead: made by create", made)
	}
	assert.Check(q, cmp.DeepEqual(file.Tree(q, outside), untouched),
		"a directory of the host, to which links in the rootfs point, has changed")
	q.Fact("the host's directory, to which /dev and /data of the rootfs point", file.Tree(q, outside))
}

// The container may write to each mount for which config.json does not forbid it. A bind mount whose options set no flag has the flags
// of its source, so a read-only source forbids it, too.
//
// An option such as ro is a flag of one mount. So one directory can be bound twice, and be writable at one of the places. An
// option with an r before it, such as rro, reaches the mounts below as well. root.readonly is the flag ro of /, and reaches no
// other mount. runc binds each of readonlyPaths onto itself, read-only. It covers each of maskedPaths: a file by /dev/null, and a
// directory by an empty read-only file system.
//
// Hint: try to write. The errors EROFS, EACCES, ELOOP and ENOSPC have different causes.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options
// Kernel: https://man7.org/linux/man-pages/man2/mount.2.html, https://man7.org/linux/man-pages/man2/mount_setattr.2.html
func TestBundle_WhichMountsMayTheContainerWriteTo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which mounts may the container write to?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	q.Step("on the host: a mount with what an option can forbid, and another mount below it; and paths of the rootfs to be hidden")
	shelf := q.MountTmpfs(q.Mkdir("shelf"))
	fillMount(q, shelf)
	fillMount(q, q.MountTmpfs(filepath.Join(shelf, "below")))
	makePathsToHide(q, b)
	bind := func(destination string, options ...string) specs.Mount {
		return specs.Mount{Destination: destination, Type: "none", Source: shelf, Options: append(options, "rbind")}
	}
	small := specs.Mount{Destination: "/small", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k", "mode=700"}}
	_, open, inOpen := runc.StartWithShell(q, b, "open", func(s *specs.Spec) {
		s.Root.Readonly = false
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		s.Process.NoNewPrivileges = false // with it, no program is set-uid anywhere
		s.Mounts = append(s.Mounts, bind("/at/none"))
		for _, row := range optionActs {
			s.Mounts = append(s.Mounts, bind("/at/"+row.option, row.option), bind("/at/r"+row.option, "r"+row.option))
		}
		s.Mounts = append(s.Mounts, small)
	})

	q.Step("mounts[].options: what each forbids in its mount, and what each forbids in the mount below")
	// runc before 1.1.0 and other runtimes may ignore options that they do not know. `runc features` lists those that they know.
	known := runc.Features(q).MountOptions
	mounts := check.Mounts(q, inOpen)
	for _, row := range optionActs {
		for _, option := range []string{row.option, "r" + row.option} {
			if known != nil && !slices.Contains(known, option) {
				q.Fact("mounts[].options, "+option, "`runc features` does not list it")
				continue
			}
			assertOptionForbids(q, open, mounts, row, option)
		}
	}
	assertSizeAndMode(q, b, open, small)
	assertFlagsOfSource(q, b, shelf)

	q.Step("root.readonly, linux.readonlyPaths and linux.maskedPaths, each in a container without the others")
	_, root, _ := runc.StartWithShell(q, b, "root", func(s *specs.Spec) {
		s.Root.Readonly = true
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	})
	_, closed, inClosed := runc.StartWithShell(q, b, "closed", func(s *specs.Spec) {
		s.Root.Readonly = false
		s.Linux.ReadonlyPaths = []string{"/kept", "/not/there"}
		s.Linux.MaskedPaths = []string{"/secret", "/secrets", "/not/there"}
	})
	fields := fieldActs(root, closed)
	for _, row := range fields {
		field := row.covers[0]
		r := row.sh.Run(row.act)
		assert.Check(q, r.Code != 0, "with %s, this succeeds: %s", field, row.act)
		assert.Check(q, cmp.Contains(r.Out, row.wantError), "with %s: %s", field, row.act)
		q.Covers(row.covers...)
		q.Fact(field+": "+row.act, r.Failure())
	}

	q.Control("the same acts without the option, and without the field: they succeed")
	succeed := 0
	for _, row := range optionActs {
		for _, mount := range []string{"none", "none/below"} {
			r := open.Run(inMount(mount, row.act))
			if assert.Check(q, cmp.Equal(r.Code, 0), "without %s, this fails at /at/%s: %s: %s", row.option, mount, row.act, r.Out) {
				succeed++
			}
		}
	}
	for _, row := range fields {
		r := open.Run(row.act)
		if assert.Check(q, cmp.Equal(r.Code, 0), "without %s, this fails: %s: %s", row.covers[0], row.act, r.Out) {
			succeed++
		}
	}
	q.Fact("commands that succeed without the option or the field", succeed)

	q.Step("what a field does not reach")
	for _, row := range actsBeyondFields(root, closed) {
		r := row.sh.Run(row.act)
		assert.Check(q, cmp.Equal(r.Code, 0), "%s: %s: %s", row.what, row.act, r.Out)
		q.Fact(row.what+": exit code of "+row.act, r.Code)
	}
	mounts = check.Mounts(q, inClosed)
	assert.Check(q, cmp.Equal(check.TopMount(q, mounts, "/secrets").FSType, "tmpfs"), "what covers a masked directory")
	assert.Check(q, cmp.Contains(strings.Split(check.TopMount(q, mounts, "/kept").Options, ","), "ro"),
		"flags of a read-only path")
	assert.Check(q, cmp.Equal(closed.Run("echo forged > /secret").Code, 0), "exit code of a write to a masked file, which is /dev/null")
	assert.Check(q, cmp.Equal(file.Read(q, b.Rootfs("secret")), "told"),
		"the masked file on the host after a write in the container")
	q.Fact("on the host, the masked file", file.Read(q, b.Rootfs("secret")))

	q.Answer("The container may write to a mount unless one of these forbids it: an option of the mount, root.readonly, " +
		"linux.readonlyPaths, linux.maskedPaths or, for a bind mount whose options set no flag, the flags of its source.")
}

// fillMount makes files in the mount on which the acts of optionActs can be done.
func fillMount(q *lab.Q, dir string) {
	q.Helper()
	program, err := os.ReadFile(q.UnderTest("busybox").Path)
	assert.NilError(q, err)
	q.WriteLine(filepath.Join(dir, "file"), "here")
	q.WriteLine(filepath.Join(dir, "script"), "#!/bin/sh")
	assert.NilError(q, os.Chmod(filepath.Join(dir, "script"), 0o755))
	assert.NilError(q, os.Symlink("file", filepath.Join(dir, "link")))
	assert.NilError(q, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	suid := filepath.Join(dir, "busybox") // busybox wants its name
	assert.NilError(q, os.WriteFile(suid, program, 0o755))
	assert.NilError(q, os.Chown(suid, 1000, 1000))
	assert.NilError(q, os.Chmod(suid, os.ModeSetuid|0o755))
	q.LogCommand("cd %s; chmod 755 script; ln -s file link; mknod -m 666 null c 1 3; cp %s busybox; chown 1000:1000 busybox; "+
		"chmod 4755 busybox; cd %s", dir, shellescape.Quote(q.UnderTest("busybox").Path), q.Dir)
}

// makePathsToHide makes what linux.readonlyPaths and linux.maskedPaths name: directories with a file, and a file.
func makePathsToHide(q *lab.Q, b *bundle.Bundle) {
	q.Helper()
	for _, dir := range []string{"kept", "secrets"} {
		assert.NilError(q, os.Mkdir(b.Rootfs(dir), 0o755))
		q.LogCommand("mkdir bundle/rootfs/%s", dir)
		q.WriteLine(b.Rootfs(dir, "file"), "told")
	}
	q.WriteLine(b.Rootfs("secret"), "told")
}

// optionAct is an act that an option of a mount forbids.
type optionAct struct {
	option    string // with an r before it, it is an option that reaches the mounts below, too
	act       string // a command in the mount, which succeeds without the option
	wantError string // what the command writes with the option
}

var optionActs = []optionAct{
	{"ro", "touch file", "Read-only file system"},
	{"nodev", "echo > null", "Permission denied"},
	{"noexec", "./script", "Permission denied"},
	{"nosuid", "[ $(./busybox id -u) = 1000 ]", ""}, // it runs, and keeps its user
	{"nosymfollow", "cat link", "Too many levels of symbolic links"},
}

// inMount returns the command that does the act in the mount below /at.
func inMount(mount, act string) string { return "cd /at/" + mount + " && (" + act + ")" }

// assertOptionForbids does the act in the mount at /at that has the option, and in the mount below it, by the container's shell open.
// The option is that of the act, or this one with an r before it.
func assertOptionForbids(q *lab.Q, open *runc.Shell, mounts []*mountinfo.Info, row optionAct, option string) {
	q.Helper()
	flagsAt := func(mount string) []string { return check.FlagsOf(check.TopMount(q, mounts, "/at/"+mount)) }
	r, below := open.Run(inMount(option, row.act)), open.Run(inMount(option+"/below", row.act))
	assert.Check(q, r.Code != 0, "with %s, this succeeds: %s", option, row.act)
	assert.Check(q, cmp.Contains(r.Out, row.wantError), "with %s: %s", option, row.act)
	want := check.MountFlags(append(flagsAt("none"), row.option)...)
	assert.Check(q, cmp.DeepEqual(flagsAt(option), want), "flags of the mount with the option %s", option)
	if option != row.option { // it reaches the mounts below, too
		assert.Check(q, below.Code != 0, "with %s, this succeeds in the mount below: %s", option, row.act)
		assert.Check(q, cmp.Contains(below.Out, row.wantError), "with %s, in the mount below: %s", option, row.act)
	} else {
		assert.Check(q, cmp.Equal(below.Code, 0), "%s is a flag of one mount, and yet in the mount below this fails: %s: %s", option,
			row.act, below.Out)
		want = flagsAt("none/below")
	}
	assert.Check(q, cmp.DeepEqual(flagsAt(option+"/below"), want), "flags of the mount below the mount with the option %s", option)
	q.Covers("mounts[].options")
	q.Fact("mounts[].options, "+option+": "+row.act, r.Failure())
	q.Fact("mounts[].options, "+option+": flags of the mount below", flagsAt(option+"/below"))
}

// assertSizeAndMode asserts what the options of the tmpfs small do: its size in the container of the shell open, and its mode in a further
// container.
func assertSizeAndMode(q *lab.Q, b *bundle.Bundle, open *runc.Shell, small specs.Mount) {
	q.Helper()
	full := open.Run("dd if=/dev/zero of=/small/file bs=1k count=100 2>&1 | grep -o 'No space left on device'")
	assert.Check(q, cmp.Equal(full.Code, 0), "100 KB in a tmpfs of size=64k: dd does not fail with ENOSPC")
	assert.Check(q, cmp.Equal(open.Run("stat -c %a /small").Out, "700"), "the directory's mode, by mode=700")
	q.Fact("size=64k, error of writing 100 KB", full.Out)
	// The first container has made the directory in the rootfs that they share. runc 1.1.7 took the directory's mode then.
	mountPoint := file.Tree(q, b.Rootfs())["small"]
	assert.Check(q, mountPoint != "drwx------", "the mount point has the mode 700, and has to have another one than the tmpfs")
	again := runc.Variant(q, b, "again", func(s *specs.Spec) { s.Mounts = append(s.Mounts, small) }).CreateAndStart()
	mode := fmt.Sprintf("%o", check.StatInRoot(q, again.PID, "/small").Mode&0o7777)
	assert.Check(q, cmp.Equal(mode, "700"), "with mode=700, the mode of a tmpfs whose mount point is there already (stat: %s)",
		mountPoint)
	q.Fact("mode=700, where the mount point has another mode", mode)
}

// assertFlagsOfSource asserts that a bind mount whose options set no flag is read-only if its source is, and not otherwise.
func assertFlagsOfSource(q *lab.Q, b *bundle.Bundle, writable string) {
	q.Helper()
	q.Step("a bind mount whose options set no flag has the flags of its source: with a read-only source it is read-only")
	readOnly := q.MountTmpfs(q.Mkdir("read-only"))
	assert.NilError(q, unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	q.LogCommand("mount -o remount,bind,ro read-only")
	_, sh, p := runc.StartWithShell(q, b, "of-source", withMounts(bindMount("/of-read-only", readOnly), bindMount("/of-writable", writable)))
	mounts := check.Mounts(q, p)
	for _, row := range []struct {
		at       string
		readOnly bool
	}{{"/of-read-only", true}, {"/of-writable", false}} {
		flags := check.FlagsOf(check.TopMount(q, mounts, row.at))
		if runc.IsRunc(q) { // the specification says nothing about it: with crun 1.8, the mount has no flag of its source
			assert.Check(q, cmp.Equal(slices.Contains(flags, "ro"), row.readOnly), "the mount at %s has the flag ro: %v", row.at, flags)
			r := sh.Run("touch " + row.at + "/new")
			assert.Check(q, cmp.Equal(r.Code != 0, row.readOnly), "a write to the mount at %s fails: %s", row.at, r.Out)
			assert.Check(q, cmp.Equal(strings.Contains(r.Out, "Read-only file system"), row.readOnly), "error of a write to the mount at %s: %s",
				row.at, r.Out)
		}
		q.Fact("bind mount without an option for a flag at "+row.at+": flags", flags)
	}
}

// fieldAct is an act that a field of config.json forbids.
type fieldAct struct {
	covers    lab.Fields
	sh        *runc.Shell // of the container that has the field
	act       string
	wantError string
}

// fieldActs returns the acts. root is the shell of the container with root.readonly, and closed that of the container with the paths.
func fieldActs(root, closed *runc.Shell) []fieldAct {
	return []fieldAct{
		{lab.Fields{"root.readonly"}, root, "touch /new", "Read-only file system"},
		{lab.Fields{"linux.readonlyPaths"}, closed, "touch /kept/file", "Read-only file system"},
		{lab.Fields{"linux.maskedPaths"}, closed, "grep told /secret", ""},
		{lab.Fields{"linux.maskedPaths"}, closed, "cat /secrets/file", "No such file"},
		{lab.Fields{"linux.maskedPaths"}, closed, "touch /secrets", "Read-only file system"},
	}
}

// actBeyondField is an act that succeeds although a field of config.json forbids a similar one.
type actBeyondField struct {
	what string
	sh   *runc.Shell // of the container that has the field
	act  string
}

// actsBeyondFields returns the acts. root and closed are those of [fieldActs].
func actsBeyondFields(root, closed *runc.Shell) []actBeyondField {
	return []actBeyondField{
		{"a read-only root reaches no mount", root, "touch /dev/shm/file"},
		{"a read-only path can be read", closed, "grep told /kept/file"},
		{"the rest of the root is writable", closed, "touch /new"},
		{"a path that is not there is no error", closed, "[ ! -e /not ]"},
		{"a masked file is /dev/null", closed, "[ $(stat -c %t:%T /secret) = 1:3 ]"},
	}
}

// runc covers a masked file with the container's /dev/null, by a bind mount. If /dev/null leads to another file than the null
// device, or is missing, then runc refuses to create the container. Earlier releases bound what was there (CVE-2025-31133).
//
// Usually runc makes /dev/null itself, in a tmpfs. If a volume is mounted at /dev, the volume has this file, and an earlier program may
// have put it there. In an attack, a program in another container exchanges the file at the right moment. mount(2) follows a link, and the
// source of the bind mount is then the file that the link points to. If the link leads to one masked file, this file is mounted at the
// path of each masked file, and onto itself: it stays readable. A link to a file such as /proc/sys/kernel/core_pattern is worse, because
// the program may write to it. Without /dev/null, runc 1.1 covered nothing, and failed only at a later step, which needs the device, too.
// Since 1.2.8, 1.3.3 and 1.4.0-rc.3, runc opens /dev/null once, and looks at its device number.
//
// Hint: which device is a masked file, by stat? In /proc/PID/mountinfo, the fourth column names the file that is mounted at it.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#masked-paths,
// https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2
// Kernel: https://man7.org/linux/man-pages/man2/mount.2.html, https://man7.org/linux/man-pages/man7/path_resolution.7.html
func TestBundle_WhatCoversAMaskedFile(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What covers a masked file?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "how runc masks files")
	b := bundle.Busybox(q, "sleep", "3600")
	q.WriteLine(b.Rootfs("masked"), "a file of the rootfs")

	q.Step("mask /masked and /proc/timer_list in a container whose /dev runc makes: both files are the container's /dev/null, and empty")
	_, sh, p := runc.StartWithShell(q, b, "own-dev", maskFiles)
	assertCoveredByNull(q, "/dev of runc", sh, p)

	q.Step("a volume of the host at /dev, whose file null is a link to a masked file, another file, or is missing: create fails")
	for _, row := range falseNulls {
		volume := volumeAtDev(q, row.name, row.command)
		r := runc.Variant(q, b, row.name, maskFiles, atDev(volume)).MustRefuseWithoutLeftovers("mask path")
		q.Fact("/dev/null is "+row.name+": error of create", runc.StableMessage(r.Stderr))
	}

	q.Control("a volume at /dev with the device, or with a link to the device: create succeeds, and both files are covered")
	for _, row := range []struct{ name, command string }{
		{"device", "mknod -m 666 null c 1 3"},
		{"link-to-device", "mknod -m 666 other c 1 3; ln -s other null"},
	} {
		_, sh, p = runc.StartWithShell(q, b, row.name, maskFiles, atDev(volumeAtDev(q, row.name, row.command)))
		assertCoveredByNull(q, "/dev with the "+row.name, sh, p)
	}

	q.Control("without maskedPaths, both files can be read")
	_, sh, _ = runc.StartWithShell(q, b, "unmasked", func(s *specs.Spec) { s.Linux.MaskedPaths = nil })
	for _, path := range maskedFiles {
		r := sh.Run("head -n 1 " + path)
		assert.Check(q, r.Code == 0 && r.Out != "", "a file that is not masked, %s: %q", path, r.Out)
		q.Fact("without maskedPaths: first line of "+path, r.Out)
	}

	q.Run("runc-1.1.11", func(q *lab.Q) {
		q.Control("runc 1.1.11 creates the containers with a link and with another file, and the program reads what that leads to")
		q.Use(q.Earlier("runc", "1.1.11"))
		ofHost, _, _ := strings.Cut(file.Read(q, timerList), "\n")
		for _, row := range []struct{ name, command, fsType, reads string }{
			{falseNulls[0].name, falseNulls[0].command, "proc", ofHost},
			{falseNulls[1].name, falseNulls[1].command, "tmpfs", ofVolume},
		} {
			c, sh, p := runc.StartWithShell(q, b, "old-"+row.name, maskFiles, atDev(volumeAtDev(q, "old-"+row.name, row.command)))
			for _, path := range maskedFiles {
				fsType := check.TopMount(q, check.Mounts(q, p), path).FSType
				assert.Check(q, cmp.Equal(fsType, row.fsType), "runc 1.1.11, %s: file system of the file that is mounted at %s", row.name, path)
				reads := sh.Run("head -n 1 " + path).Out
				assert.Check(q, cmp.Equal(reads, row.reads), "runc 1.1.11, %s: first line of %s", row.name, path)
				q.Fact("runc 1.1.11, "+row.name+": first line of "+path, reads)
			}
			c.KillAndDelete(p)
		}
	})

	q.Answer("The container's /dev/null covers a masked file. If it is not the null device, or is missing, runc refuses to create the " +
		"container. runc 1.1.11 mounted the target of a link, or the other file: with a link to a masked file, a program could read " +
		"this file.")
}

// The masked files: one of the rootfs, and one of procfs that shows the host's timers to root.
const masked, timerList = "/masked", "/proc/timer_list"

var maskedFiles = []string{masked, timerList}

// maskFiles masks them, in this order, and nothing else.
func maskFiles(s *specs.Spec) { s.Linux.MaskedPaths = maskedFiles }

// ofVolume is the text of a file in the volume.
const ofVolume = "a file of the volume"

// falseNulls are files that are not the null device. The command makes null in the directory that is mounted at /dev.
var falseNulls = []struct{ name, command string }{
	{"link", "ln -s " + timerList + " null"},
	{"another-file", "echo " + ofVolume + " > null"},
	{"missing", "true"},
}

// volumeAtDev makes a directory of the host that is to be mounted at /dev.
func volumeAtDev(q *lab.Q, name, command string) string {
	q.Helper()
	dir := q.MountTmpfs(q.Mkdir("dev-" + name)) // a mount of the lab's directory may forbid device files
	q.Must("sh", "-c", "cd "+filepath.Base(dir)+" && "+command)
	return dir
}

// atDev mounts the directory at /dev, in place of what runc makes there.
func atDev(dir string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
		s.Mounts = append(s.Mounts, bindMount("/dev", dir))
	}
}

// assertCoveredByNull asserts that the masked files are the container's /dev/null, and that a program in it reads nothing there.
func assertCoveredByNull(q *lab.Q, container string, sh *runc.Shell, p proc.Process) {
	q.Helper()
	inRoot := func(path string) string { return fmt.Sprintf("/proc/%d/root%s", p.PID, path) }
	null := check.StatInRoot(q, p.PID, "/dev/null")
	assert.Check(q, cmp.Equal(null.Rdev, unix.Mkdev(1, 3)), "%s: device number of /dev/null", container)
	for _, path := range maskedFiles {
		isNull := file.Same(inRoot(path), inRoot("/dev/null"))
		assert.Check(q, isNull, "%s: %s is not /dev/null of the container", container, path)
		read := sh.Run("cat " + path)
		assert.Check(q, cmp.DeepEqual(read, runc.Reply{}), "%s: what a program reads of %s", container, path)
		q.Fact(container+": "+path+" is /dev/null", isNull)
	}
}

// A mount that is made later on one side reaches the other side if both sides are peers of one shared mount, or if the other side is a
// slave of the first one. By default a container's bind mount of a shared mount is its slave: mounts of the host come in, and the
// container's do not go out.
//
// A bind mount is a copy of a mount, and rbind copies the mounts below as well. A copy of a shared mount is its peer: each receives
// what is mounted in the other one. A slave only receives. A private mount does neither. A mount may also be a slave of the host's and
// shared with copies of its own.
//
// Without linux.rootfsPropagation, runc first turns the shared mounts that it has from the host into slaves. Then it makes those of
// config.json, and applies their own options. The words that the specification has for this field (shared, slave, private, unbindable)
// change the container's / alone. So with "private", the word that sounds safest, bind mounts of shared directories stay peers, and the
// host receives what is mounted in them. runc also knows these words with an r before them, for all mounts.
//
// Hint: mount something, and look on the other side. In /proc/PID/mountinfo, shared:N is the number of the group of peers, and master:N
// the group whose slave the mount is.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#rootfs-mount-propagation
// Kernel: https://docs.kernel.org/filesystems/sharedsubtree.html
func TestBundle_DoesAMountMadeLaterReachTheOtherSide(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does a mount made later reach the other side?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	q.Step("on the host: a shared mount, the shelf, in which others can be made, and one that is made before the container")
	shelf := q.MountTmpfs(q.Mkdir("shelf"))
	assert.NilError(q, unix.Mount("", shelf, "", unix.MS_SHARED, ""))
	q.LogCommand("mount --make-shared shelf")
	q.MountTmpfs(filepath.Join(shelf, "early"))
	q.WriteLine(filepath.Join(shelf, "early", "mark"), "early")

	mayMount := bundle.WithCapability("CAP_SYS_ADMIN")

	q.Step("bind copies one mount, rbind also those below")
	_, sh, _ := runc.StartWithShell(q, b, "copies", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, atOption(shelf, "bind"), atOption(shelf, "rbind"))
	})
	inRbind, inBind := sh.Run("cat /at/rbind/early/mark"), sh.Run("cat /at/bind/early/mark")
	assert.Check(q, cmp.Equal(inRbind.Out, "early"))
	assert.Check(q, cmp.Contains(inBind.Out, "No such file"), "bind has copied the mount below, too")
	q.Fact("rbind", inRbind.Out)
	q.Fact("bind", inBind.Out)

	for _, row := range rootPropagations() {
		q.Run(row.name(), func(q *lab.Q) {
			q.Step("linux.rootfsPropagation %q: on the host and in the container a mount is made later. Which mounts pass it on?", row.propagation)
			assertPropagates(q, b, shelf, row)
		})
	}

	q.Run("private-on-the-host", func(q *lab.Q) {
		q.Control("the mount on the host is private: its copies in the container are no peers, and no mount reaches the other side")
		private := q.MountTmpfs(q.Mkdir("private"))
		assert.NilError(q, unix.Mount("", private, "", unix.MS_PRIVATE, ""))
		q.LogCommand("mount --make-private private")
		c := runc.Variant(q, b, "of-private", mayMount, func(s *specs.Spec) {
			s.Linux.RootfsPropagation = "shared" // the word with which most is passed on
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/at", Type: "none", Source: private, Options: []string{"rbind"}})
		})
		sh := c.UseShell()
		p := c.CreateAndStart()
		q.MountTmpfs(filepath.Join(private, "late"))
		assert.NilError(q, os.Mkdir(filepath.Join(private, "back"), 0o755))
		r := sh.Run("mount -t tmpfs cdb-back /at/back")
		assert.Check(q, cmp.Equal(r.Code, 0), "the container cannot mount anything: %s", r.Out)
		mounts := check.Mounts(q, p)
		arrived := slices.ContainsFunc(mounts, func(m *mountinfo.Info) bool { return m.Mountpoint == "/at/late" })
		cameBack := check.MountAt(q, filepath.Join(private, "back")) != nil
		assert.Check(q, !arrived, "the container receives the late mount of a private mount")
		assert.Check(q, !cameBack, "the host receives the container's mount in a copy of a private mount")
		q.Fact("private on the host: the container receives the late mount", arrived)
		q.Fact("private on the host: the host receives the container's mount", cameBack)
	})

	q.Run("unbindable", func(q *lab.Q) {
		q.Step("an unbindable mount cannot be the source of a bind mount: / by linux.rootfsPropagation, another mount by its option")
		c := runc.Variant(q, b, "unbindable", mayMount, func(s *specs.Spec) {
			s.Linux.RootfsPropagation = "unbindable"
			s.Mounts = append(s.Mounts, atOption(shelf, "bind"), atOption(shelf, "unbindable", "bind"))
		})
		sh := c.UseShell()
		mounts := check.Mounts(q, c.CreateAndStart())
		for _, at := range []string{"/", "/at/unbindable"} {
			kind := check.Propagation(check.TopMount(q, mounts, at))
			assert.Check(q, cmp.Equal(kind, "unbindable"), "propagation of the mount at %s", at)
			r := sh.Run("mount --bind " + at + " /tmp")
			assert.Check(q, r.Code != 0, "the unbindable mount at %s can be bound", at)
			assert.Check(q, cmp.Contains(r.Out, "Invalid argument"), "mount --bind %s /tmp", at)
			q.Fact("unbindable: propagation of "+at, kind)
			q.Fact("unbindable: error of mount --bind "+at, r.Failure())
		}
		q.Control("another mount of the same container can be bound")
		bound := sh.Run("mount --bind /at/bind /tmp && ls /tmp && umount /tmp")
		assert.Check(q, cmp.Equal(bound.Code, 0), "a mount that is not unbindable cannot be bound: %s", bound.Out)
		assert.Check(q, cmp.Contains(strings.Fields(bound.Out), "early"), "the directory below the mount that was bound")
		q.Fact("mount --bind /at/bind: exit code", bound.Code)
	})

	q.Answer("A mount that is made later on one side reaches the other side if both sides are peers of one shared mount, or if the other " +
		"side is a slave of the first one. By default a container's bind mount of a shared mount is its slave, so the host receives nothing " +
		"from the container.")
}

// atOption returns a bind mount of the shelf with the options, at a place that has the name of the first option.
func atOption(shelf string, options ...string) specs.Mount {
	return specs.Mount{Destination: "/at/" + options[0], Type: "none", Source: shelf, Options: options}
}

// propagationOptions are the mounts of a container with which a row of rootPropagations is asked, each named by its option.
var propagationOptions = []string{"bind", "rbind", "rslave", "rprivate", "rshared"}

// rootPropagation is a value of linux.rootfsPropagation, and what it makes of the container's mounts.
type rootPropagation struct {
	propagation string   // linux.rootfsPropagation
	root        string   // propagation of the container's /; "" where it depends on the mount of the rootfs, but is never shared
	kinds       []string // of the mounts, in the order of propagationOptions
	fromHost    []string // options of the mounts that receive a late mount of the host
	fromInside  []string // options of the mounts below which a mount made in the container reaches the host
}

// name returns the name of the row's container.
func (row rootPropagation) name() string { return strings.TrimSuffix("root-"+row.propagation, "-") }

func rootPropagations() []rootPropagation {
	received, passedOn := []string{"bind", "rbind", "rslave", "rshared"}, []string{"bind", "rbind", "rshared"}
	copies := []string{"peer", "peer", "slave", "private", "peer"} // what the options make of copies of the shelf
	return []rootPropagation{
		{"", "", []string{"slave", "slave", "slave", "private", "slave+shared"}, received, nil},
		// Words of the specification. The fourth, unbindable, has a subtest of its own.
		{"slave", "", copies, received, passedOn},
		{"private", "private", copies, received, passedOn},
		{"shared", "shared", copies, received, passedOn},
		// runc's words for all mounts.
		{"rslave", "", []string{"slave", "slave", "slave", "private", "slave+shared"}, received, nil},
		{"rprivate", "private", []string{"private", "private", "private", "private", "shared"}, nil, nil},
		{"rshared", "shared", []string{"peer", "peer", "slave+shared", "shared", "peer"}, received, passedOn},
	}
}

// assertPropagates runs a container with the row's value. It makes a mount in the shelf on the host, and one in each mount of the
// container, and asserts where they arrive.
func assertPropagates(q *lab.Q, b *bundle.Bundle, shelf string, row rootPropagation) {
	q.Helper()
	c := runc.Variant(q, b, row.name(), bundle.WithCapability("CAP_SYS_ADMIN"), func(s *specs.Spec) {
		s.Linux.RootfsPropagation = row.propagation
		s.Mounts = append(s.Mounts, atOption(shelf, "bind"), atOption(shelf, "rbind"))
		for _, option := range propagationOptions[2:] {
			s.Mounts = append(s.Mounts, atOption(shelf, option, "rbind"))
		}
	})
	sh := c.UseShell()
	p := c.CreateAndStart()
	subject := fmt.Sprintf("linux.rootfsPropagation %q: ", row.propagation)

	late := "late-" + row.name()
	q.MountTmpfs(filepath.Join(shelf, late))
	// Read the table once, for all mounts of a container: the kernel has propagated the mount before mount(2) returned.
	mounts := check.Mounts(q, p)
	var receivers, kinds, senders []string
	for _, option := range propagationOptions {
		if slices.ContainsFunc(mounts, func(m *mountinfo.Info) bool { return m.Mountpoint == "/at/"+option+"/"+late }) {
			receivers = append(receivers, option)
		}
		kinds = append(kinds, check.PropagationFrom(check.MountAt(q, shelf), check.TopMount(q, mounts, "/at/"+option)))
		q.Fact(subject+"the mount with the option "+option+", to the host's", kinds[len(kinds)-1])
	}
	assert.Check(q, cmp.DeepEqual(kinds, row.kinds), "what the mounts with the options %v are to the host's, with linux.rootfsPropagation %q",
		propagationOptions, row.propagation)
	assert.Check(q, cmp.DeepEqual(receivers, row.fromHost), "mounts that receive the late mount, with linux.rootfsPropagation %q",
		row.propagation)
	q.Covers("linux.rootfsPropagation", "mounts[].options")
	root := check.Propagation(check.TopMount(q, mounts, "/"))
	if row.root != "" {
		assert.Check(q, cmp.Equal(root, row.root), "propagation of the container's /, with linux.rootfsPropagation %q", row.propagation)
	} else {
		assert.Check(q, !strings.Contains(root, "shared"), "with linux.rootfsPropagation %q the container's / is %s: mounts could reach "+
			"the host", row.propagation, root)
	}
	q.Fact(subject+"propagation of /", root)
	q.Fact(subject+"receive the late mount", receivers)

	for _, option := range propagationOptions {
		back := "back-" + row.name() + "-" + option
		assert.NilError(q, os.Mkdir(filepath.Join(shelf, back), 0o755))
		q.LogCommand("mkdir shelf/%s", back)
		r := sh.Run("mount -t tmpfs cdb-back /at/" + option + "/" + back)
		assert.Check(q, cmp.Equal(r.Code, 0), "the container cannot mount anything: %s", r.Out)
		if m := check.MountAt(q, filepath.Join(shelf, back)); m != nil {
			senders = append(senders, option)
			assert.Check(q, cmp.Equal(m.Source, "cdb-back"))
		}
	}
	assert.Check(q, cmp.DeepEqual(senders, row.fromInside),
		"mounts that pass a mount on to the host, with linux.rootfsPropagation %q", row.propagation)
	q.Fact(subject+"pass a mount on to the host", senders)
}

// The mapping of the mount changes the owners that programs see at this mount. In the file system nothing changes.
//
// A user namespace belongs to a process, and this mapping to a mount. So the same file has one owner at one mount and another owner
// at the next. A file that a program makes at the mount belongs, in the file system, to the id that the mapping translates to the
// program's. An owner that the mapping does not contain is shown as the kernel's overflow id, 65534.
//
// Hint: stat the same file at a mount with the mapping and at a mount without it.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-mounts
// Kernel: https://docs.kernel.org/filesystems/idmappings.html, https://man7.org/linux/man-pages/man2/mount_setattr.2.html
func TestBundle_WhoOwnsTheFilesOfAnIDMappedMount(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who owns the files of an id-mapped mount?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	shelf := q.MountTmpfs(q.Mkdir("shelf"))
	if err := supportsIDMappedMounts(q, shelf); err != nil {
		q.Skipf("a tmpfs of this kernel has no id-mapped mounts: %v; to ask this, boot Linux 6.3 or later: make lab KERNEL=6.12, or "+
			"KERNEL= with the path of one", err)
	}
	// Root has no CAP_DAC_OVERRIDE in the container, and at the mount another user owns the directory.
	assert.NilError(q, os.Chmod(shelf, 0o777))
	q.LogCommand("chmod 777 shelf")
	for _, f := range []struct {
		name     string
		uid, gid int
	}{{"root", 0, 0}, {"user", 1000, 2000}, {"stranger", 5, 5}} {
		q.WriteLine(filepath.Join(shelf, f.name), f.name)
		assert.NilError(q, os.Chown(filepath.Join(shelf, f.name), f.uid, f.gid))
		q.LogCommand("chown %d:%d shelf/%s", f.uid, f.gid, f.name)
	}
	// An owner 0 in the file system is 1000 at the mount, 1000 is 1500, and 1500 is 0. With two ids that change places, the mapping would be
	// its own inverse, and a runtime that exchanges containerID and hostID would pass.
	uids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1000, HostID: 1500, Size: 1},
		{ContainerID: 1500, HostID: 0, Size: 1}}
	gids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 2000, Size: 1}, {ContainerID: 2000, HostID: 2500, Size: 1},
		{ContainerID: 2500, HostID: 0, Size: 1}}

	q.Step("mounts[].uidMappings and gidMappings: the owners at the mount")
	_, sh, p := runc.StartWithShell(q, b, "mapped", func(s *specs.Spec) {
		s.Root.Readonly = false
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/plain", Type: "none", Source: shelf, Options: []string{"bind"}},
			specs.Mount{Destination: "/mapped", Type: "none", Source: shelf, Options: []string{"bind"},
				UIDMappings: uids, GIDMappings: gids})
	})
	options := check.FlagsOf(check.TopMount(q, check.Mounts(q, p), "/mapped"))
	if !runc.KnowsIDMappedMounts(q) {
		q.Skipf("this runtime does not know the fields (runc does since 1.2.0), and ignores them without an error: the mount has %v; "+
			"to ask this with the pinned runc, leave out RUNC= and CDB_RUNC", options)
	}
	assert.Check(q, cmp.Contains(options, "idmapped"), "flags of the mount")
	q.Fact("flags of the mount", options)
	owners := func(place string) []string {
		return strings.Fields(sh.Run("cd " + place + " && stat -c %n=%u:%g root user stranger; cd /").Out)
	}
	mapped := owners("/mapped")
	assert.Assert(q, cmp.Len(mapped, 3), "files at the mount: root, user and stranger")
	for i, row := range []struct {
		covers lab.Fields
		want   string
	}{
		{lab.Fields{"mounts[].uidMappings[].containerID", "mounts[].gidMappings[].containerID"}, "root=1000:2000"},
		{lab.Fields{"mounts[].uidMappings[].hostID", "mounts[].gidMappings[].hostID"}, "user=1500:2500"},
		// The mapping does not know an owner outside of its size. 65534 is the kernel's overflow id.
		{lab.Fields{"mounts[].uidMappings[].size", "mounts[].gidMappings[].size"}, "stranger=65534:65534"},
	} {
		assert.Check(q, cmp.Equal(mapped[i], row.want), "owner at the mount, by %s", row.covers)
		q.Covers(row.covers...)
		q.Fact(strings.Join(row.covers, ", "), mapped[i])
	}

	q.Step("root makes a file at the mount: in the file system the user 1500 owns it, because the mapping translates 1500 to root")
	r := sh.Run("touch /mapped/made")
	assert.Check(q, cmp.Equal(r.Code, 0), "root cannot make a file at the mount: %s", r.Out)
	owner := file.Owner(q, filepath.Join(shelf, "made"))
	assert.Check(q, cmp.Equal(owner, "1500:2500"), "owner on the host of a file that root has made at the mount")
	q.Fact("made by root, on the host", owner)

	q.Control("the same files at the mount without the fields, at the same time")
	assert.Check(q, cmp.DeepEqual(owners("/plain"), []string{"root=0:0", "user=1000:2000", "stranger=5:5"}))
	q.Fact("owners at the mount without the fields", owners("/plain"))
	sh.Run("touch /plain/made-plain")
	assert.Check(q, cmp.Equal(file.Owner(q, filepath.Join(shelf, "made-plain")), "0:0"), "owner on the host")
	assert.Check(q, cmp.Equal(file.Owner(q, filepath.Join(shelf, "root")), "0:0"), "the mapping has changed the file")

	q.Answer("At the mount, files belong to the users to which the mount's mapping translates their owners. In the file system the owners " +
		"stay as they are.")
}

// supportsIDMappedMounts asks the kernel itself, without the runtime, to make a mount with a mapping from a directory. It
// returns an error if the file system of the directory does not support that.
func supportsIDMappedMounts(q *lab.Q, dir string) error {
	q.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	holder := q.Cmd(ctx, q.UnderTest("busybox").Path, "sleep", "3600") // of the user namespace that has the mapping
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1000, Size: 1}}
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := holder.Start(); err != nil {
		return err
	}
	defer func() { cancel(); _ = holder.Wait() }()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
}

// With the option idmap, the mapping belongs to one mount. With ridmap it belongs to each mount below the source as well.
//
// uidMappings and gidMappings of a mount are its mapping, which is an attribute of the mount, as ro is. runc copies the mount, and
// mount_setattr(2) gives the mapping to the copy. For ridmap, runc adds AT_RECURSIVE, and each mount below gets the mapping, too. Without
// either option, runc does as with idmap. So with rbind and idmap, files of a file system that is mounted below the source keep their
// owners. With ridmap, each file system below has to support id-mapped mounts, or create fails. runc knows both options since 1.2.0.
//
// Hint: which mounts of /proc/PID/mountinfo have the flag idmapped?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options
// Kernel: https://man7.org/linux/man-pages/man2/mount_setattr.2.html
func TestBundle_DoesTheMappingOfAMountReachTheMountsBelow(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does the mapping of a mount reach the mounts below?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	if !runc.KnowsIDMappedMounts(q) {
		q.Skip("this runtime does not know id-mapped mounts (runc does since 1.2.0); to ask this with the pinned runc, leave out RUNC= and " +
			"CDB_RUNC")
	}
	source := sourceOfIDMappedMounts(q, "below", "other")
	bindBelow(q, source, "below", source)
	ids := func(host uint32) []specs.LinuxIDMapping {
		return []specs.LinuxIDMapping{{ContainerID: 0, HostID: host, Size: 1}}
	}
	mapped := func(name string, options ...string) specs.Mount {
		return specs.Mount{Destination: "/" + name, Type: "none", Source: source, Options: append([]string{"rbind"}, options...),
			UIDMappings: ids(1000), GIDMappings: ids(2000)}
	}
	plain := specs.Mount{Destination: "/plain", Type: "none", Source: source, Options: []string{"rbind"}}

	q.Step("bind a mount with another one below it, and map root to 1000:2000: only with ridmap does the mount below have the mapping")
	c := runc.Variant(q, b, "mapped", withMounts(plain, mapped("mapping"), mapped("idmap", "idmap"), mapped("ridmap", "ridmap")))
	p := c.CreateAndStart()
	mounts := check.Mounts(q, p)
	for _, row := range []struct {
		name       string
		top, below string // owners of the directories
	}{
		{"plain", "0:0", "0:0"}, // the control: the same mount without mappings
		{"mapping", "1000:2000", "0:0"},
		{"idmap", "1000:2000", "0:0"},
		{"ridmap", "1000:2000", "1000:2000"},
	} {
		for _, at := range []struct{ path, owner string }{{"/" + row.name, row.top}, {"/" + row.name + "/below", row.below}} {
			flags := check.FlagsOf(check.TopMount(q, mounts, at.path))
			isMapped := slices.Contains(flags, "idmapped")
			assert.Check(q, cmp.Equal(isMapped, at.owner != "0:0"), "the mount at %s has the flag idmapped: %v", at.path, flags)
			st := check.StatInRoot(q, p.PID, at.path)
			owner := fmt.Sprintf("%d:%d", st.Uid, st.Gid)
			assert.Check(q, cmp.Equal(owner, at.owner), "owner of the directory at %s, which is root in the file system", at.path)
			q.Fact(at.path+": idmapped", isMapped)
			q.Fact(at.path+": owner", owner)
		}
	}
	assert.Check(q, cmp.Equal(file.Owner(q, source), "0:0"), "owner of the source on the host")
	c.KillAndDelete(p)

	q.Step("ridmap without uidMappings, in a container without a user namespace: create fails, because runc has no mapping to use")
	without := mapped("ridmap", "ridmap")
	without.UIDMappings, without.GIDMappings = nil, nil
	r := runc.Variant(q, b, "without", withMounts(without)).MustRefuseWithoutLeftovers("id-?map")
	q.Fact("ridmap without a mapping: error of create", runc.StableMessage(r.Stderr))

	q.Run("other-file-system", func(q *lab.Q) {
		q.Step("mount a file system without id-mapped mounts below the source: create with ridmap fails")
		other := q.Mkdir("ramfs")
		assert.NilError(q, unix.Mount("cdb-ramfs", other, "ramfs", 0, ""))
		q.Cleanup(func() { assert.Check(q, unix.Unmount(other, unix.MNT_DETACH)) })
		q.LogCommand("mount -t ramfs cdb-ramfs ramfs")
		if supportsIDMappedMounts(q, other) == nil {
			q.Skip("a ramfs of this kernel has id-mapped mounts; to ask this, boot Debian's kernel: make lab")
		}
		bindBelow(q, source, "other", other)
		r := runc.Variant(q, b, "refused", withMounts(mapped("ridmap", "ridmap"))).MustRefuseWithoutLeftovers("invalid argument")
		q.Fact("ridmap with a ramfs below: error of create", runc.StableMessage(r.Stderr))
		q.Control("the same mounts with idmap: create succeeds, and the ramfs does not have the mapping")
		c := runc.Variant(q, b, "accepted", withMounts(mapped("idmap", "idmap")))
		p := c.CreateAndStart()
		below := check.TopMount(q, check.Mounts(q, p), "/idmap/other")
		assert.Check(q, cmp.Equal(below.FSType, "ramfs"), "file system at /idmap/other")
		assert.Check(q, !slices.Contains(check.FlagsOf(below), "idmapped"), "flags of the ramfs: %v", check.FlagsOf(below))
		q.Fact("idmap with a ramfs below: flags of the mount", check.FlagsOf(below))
		c.KillAndDelete(p)
	})

	q.Answer("With idmap, the mapping reaches one mount, and files of the mounts below keep their owners. With ridmap it reaches the mounts " +
		"below as well, and each of their file systems has to support id-mapped mounts.")
}

// bindBelow binds a directory of the host in the directory name of the source, until the question or subtest ends.
func bindBelow(q *lab.Q, source, name, dir string) {
	q.Helper()
	at := filepath.Join(source, name)
	assert.NilError(q, unix.Mount(dir, at, "", unix.MS_BIND, ""))
	q.Cleanup(func() { assert.Check(q, unix.Unmount(at, unix.MNT_DETACH)) })
	q.LogCommand("mount --bind %s %s", strings.TrimPrefix(dir, q.Dir+"/"), strings.TrimPrefix(at, q.Dir+"/"))
}

// runc compares little of a mount with what is there. So a mistake that the kernel refuses fails at create, and many other mistakes
// silently make a wrong mount.
//
// A frequent mistake fails: the type "bind" without the option bind is "no such device". For the kernel, a bind mount is a flag of
// mount(2), which the options bind and rbind set. With the flag, the kernel ignores the type. Without the flag, it looks for a file
// system named bind. A source of a bind mount that does not exist fails with the kernel's "no such file". runc itself refuses, since
// 1.2, a misspelled option of a bind mount; runc 1.1 ignores such an option. These mistakes go unnoticed: a directory as the source of
// a tmpfs (the source is only a label); two flags that contradict each other, such as ro and rw (the last one counts); a destination
// that is a symlink in the rootfs (the mount is at its target, inside of the rootfs); a destination that has files (the mount hides
// them); a destination that does not exist (runc makes it in the rootfs, and it stays after delete).
//
// Hint: compare the mounts of config.json with /proc/PID/mountinfo, field by field.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts,
// https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-mounts
// Kernel: https://man7.org/linux/man-pages/man2/mount.2.html, ENODEV and ENOTDIR
func TestBundle_WhichMistakesInMountsGoUnnoticed(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which mistakes in mounts go unnoticed?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	source := makeSourceAndDestinations(q, b)

	for _, row := range refusedMounts(source) {
		q.Step("%s: mount %s of type %s on %s with the options %q: create fails", row.name, row.wrong.Source, row.wrong.Type,
			row.wrong.Destination, row.wrong.Options)
		r := runc.Variant(q, b, row.name, withMounts(row.wrong)).MustRefuseWithoutLeftovers(row.wantError)
		q.Fact(row.name+": error of create", runc.StableMessage(r.Stderr))
		q.Control("the right form: source %s, destination %s, options %q", row.right.Source, row.right.Destination, row.right.Options)
		c := runc.Variant(q, b, row.name+"-right", withMounts(row.right))
		p := c.CreateAndStart()
		assert.Check(q, file.Same(fmt.Sprintf("/proc/%d/root%s", p.PID, row.right.Destination), row.right.Source),
			"%s, the right form: %s in the container is not %s of the host", row.name, row.right.Destination, row.right.Source)
		q.Fact(row.name+": right form, flags of the mount", check.FlagsOf(check.TopMount(q, check.Mounts(q, p), row.right.Destination)))
		c.KillAndDelete(p)
	}

	q.Step("one container with mistakes that go unnoticed: each mistake makes a mount, but a wrong one")
	c, sh, p := runc.StartWithShell(q, b, "unnoticed", withMounts(
		specs.Mount{Destination: "/tmpfs", Type: "tmpfs", Source: source},
		bindMount("/last", source, "ro", "rw"),
		bindMount("/first", source, "rw", "ro"),
		bindMount("/link", source),
		bindMount("/data", source),
		bindMount("/missing/directory", source),
		bindMount("/missing/file", filepath.Join(source, "from-host")),
	))
	mounts := check.Mounts(q, p)
	tmpfs := check.TopMount(q, mounts, "/tmpfs")
	assert.Check(q, cmp.DeepEqual([]string{tmpfs.FSType, tmpfs.Source}, []string{"tmpfs", source}), "the tmpfs: type and source")
	inTmpfs := sh.Run("ls /tmpfs").Out
	assert.Check(q, cmp.Equal(inTmpfs, ""), "files in a tmpfs whose source is a directory with a file")
	q.Fact("tmpfs with a directory as its source: source in mountinfo", tmpfs.Source)
	q.Fact("tmpfs with a directory as its source: number of files", len(strings.Fields(inTmpfs)))

	last := sh.Run("echo written > /last/from-host").Code
	assert.Check(q, cmp.Equal(last, 0), "write to a mount with the options ro and rw")
	assert.Check(q, cmp.Equal(file.Read(q, filepath.Join(source, "from-host")), "written"), "the file on the host")
	q.Fact("options ro, rw: flags of the mount", check.FlagsOf(check.TopMount(q, mounts, "/last")))
	first := sh.Run("echo again > /first/from-host")
	assert.Check(q, cmp.Contains(first.Out, "Read-only file system"), "write to a mount with the options rw and ro: exit code %d", first.Code)
	q.Fact("options rw, ro: error of a write", first.Failure())

	linkMounts := mountPointsAmong(mounts, []string{"/link", "/target"})
	assert.Check(q, cmp.DeepEqual(linkMounts, []string{"/target"}), "mount points, where /link is a link to /target")
	q.Fact("destination /link, which is a link to /target: mount points", linkMounts)

	for _, dir := range []string{"/target", "/data"} {
		names := strings.Fields(sh.Run("ls " + dir).Out)
		assert.Check(q, cmp.DeepEqual(names, []string{"from-host"}), "files in %s, where the rootfs has the file from-rootfs", dir)
		hidden := file.Read(q, b.Rootfs(dir, "from-rootfs"))
		assert.Check(q, cmp.Equal(hidden, "the rootfs's"), "the file of the rootfs that the mount hides")
		q.Fact(dir+", where the rootfs has from-rootfs: files in the container", names)
	}

	q.Control("a bind mount with the source of the tmpfs has its file")
	inBind := sh.Run("ls /data").Out
	assert.Check(q, cmp.Equal(inBind, "from-host"), "files in the bind mount")
	q.Fact("bind mount of the same directory: files", inBind)

	q.Step("delete the container: runc has made the missing destinations in the rootfs, and leaves them there")
	c.KillAndDelete(p)
	made := file.Tree(q, b.Rootfs("missing"))
	assert.Check(q, cmp.Len(made, 2), "files in the directory missing of the rootfs, after delete")
	assert.Check(q, strings.HasPrefix(made["directory"], "d"), "what runc has made for the missing destination of a directory: %s",
		made["directory"])
	assert.Check(q, strings.HasPrefix(made["file"], "-"), "what runc has made for the missing destination of a file: %s", made["file"])
	assert.Check(q, cmp.Equal(file.Read(q, b.Rootfs("missing", "file")), ""), "content of the destination of the file")
	for _, name := range slices.Sorted(maps.Keys(made)) {
		mode, _, _ := strings.Cut(made[name], " ") // a digest follows
		q.Fact("/missing/"+name+" in the rootfs after delete: type and mode", mode)
	}

	q.Step("misspell an option of a bind mount (Ro): runc refuses it since 1.2, and runc 1.1 mounts without it")
	misspelled := runc.Variant(q, b, "misspelled", withMounts(bindMount("/data", source, "Ro")))
	if r := misspelled.Try("create"); r.Code != 0 {
		runc.AssertMessage(q, r.Stderr, "bind mounts cannot have any filesystem-specific options")
		q.Fact("option Ro: error of create", runc.StableMessage(r.Stderr))
	} else {
		assert.Check(q, !runc.IsRunc(q) || q.UnderTest("runc").Precedes("1.2.0"), "create accepts the option Ro of a bind mount:\n%s", r)
		flags := check.FlagsOf(check.TopMount(q, check.Mounts(q, misspelled.Process()), "/data"))
		assert.Check(q, cmp.Contains(flags, "rw"), "flags of the mount with the option Ro")
		q.Fact("option Ro: flags of the mount", flags)
		misspelled.Delete()
	}

	q.Answer("A mistake goes unnoticed if the kernel can make a mount from it, such as a tmpfs whose source is a directory, or a " +
		"destination that is a symlink. The type \"bind\" without the option bind or rbind fails: the kernel has no file system of this name, " +
		"and reports \"no such device\".")
}

// makeSourceAndDestinations makes the directory source of the host, which has the file from-host, and returns its path. In the rootfs it
// makes the directories /data and /target, each with the file from-rootfs, and /link, which is a link to /target.
func makeSourceAndDestinations(q *lab.Q, b *bundle.Bundle) (source string) {
	q.Helper()
	source = q.MountTmpfs(q.Mkdir("source")) // a bind mount has the flags of its source: those of the lab's directory depend on the machine
	q.WriteLine(filepath.Join(source, "from-host"), "the host's")
	for _, dir := range []string{"data", "target"} {
		assert.NilError(q, os.Mkdir(b.Rootfs(dir), 0o755))
		q.LogCommand("mkdir bundle/rootfs/%s", dir)
		q.WriteLine(b.Rootfs(dir, "from-rootfs"), "the rootfs's")
	}
	assert.NilError(q, os.Symlink("/target", b.Rootfs("link")))
	q.LogCommand("ln -s /target bundle/rootfs/link")
	return source
}

// bindMount returns a mount with the option bind.
func bindMount(destination, source string, options ...string) specs.Mount {
	return specs.Mount{Destination: destination, Type: "none", Source: source, Options: append([]string{"bind"}, options...)}
}

// refusedMount is a mount with a mistake, the mount without it, and the error of create.
type refusedMount struct {
	name         string
	wrong, right specs.Mount
	wantError    string
}

// refusedMounts returns mounts for the directories of [makeSourceAndDestinations].
func refusedMounts(source string) []refusedMount {
	return []refusedMount{
		{"type-bind", specs.Mount{Destination: "/data", Type: "bind", Source: source}, specs.Mount{Destination: "/data", Type: "bind",
			Source: source, Options: []string{"bind"}}, "no such device"},
		{"no-option", specs.Mount{Destination: "/data", Type: "none", Source: source, Options: []string{"ro"}},
			specs.Mount{Destination: "/data", Type: "none", Source: source, Options: []string{"rbind", "ro"}}, "no such device"},
		{"file-on-directory", bindMount("/data", source+"/from-host"), bindMount("/data/from-rootfs", source+"/from-host"), "not a directory"},
		{"directory-on-file", bindMount("/data/from-rootfs", source), bindMount("/data", source), "not a directory"},
		{"missing-source", bindMount("/data", source+"/missing"), bindMount("/data", source), "no such file"}, // docker -v makes it
	}
}
