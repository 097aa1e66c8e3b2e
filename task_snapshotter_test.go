//go:build linux && vmlab

package cdblab

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Another snapshotter changes how the root filesystem is put together, and what it costs on disk. The program sees the same files.
//
// overlayfs has a directory for each layer and lays the kernel's overlay over them; a new container costs two empty
// directories. native has no help from the kernel: it copies the whole tree for each layer and again for each container,
// and binds the copy. erofs makes an image file of each layer and mounts it, with a loop device where the kernel cannot
// mount a file (before 6.12), below an overlay.
//
// The daemon's service for pulls (containerd 2) unpacks only for the snapshotters that its configuration names. By default these are
// overlayfs and, since containerd 2.3 and where mkfs.erofs has --tar, erofs. With `--local`, ctr unpacks by itself, for any snapshotter.
//
// Hint: /proc/self/mountinfo, `du`, and `ls -i` of the same file in two containers.
// Spec: https://github.com/containerd/containerd/blob/main/docs/snapshotters/README.md
// Kernel: https://docs.kernel.org/filesystems/erofs.html
func TestTask_WhatDoesAnotherSnapshotterChange(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does another snapshotter change?")
	defer q.Recover()
	if _, ours := q.Image(); !ours {
		q.Skipf("this measures an image whose size the lab knows, its own: unset CDB_IMAGE")
	}
	d := ctrd.Start(q)
	hosts := image.Serve(q).HostsDir(q)
	plugins := d.Ctr("plugins", "ls").Stdout
	var seenWithFirst map[string]string // what the program sees with the first snapshotter

	for _, s := range []struct {
		name    string
		mounted func(*lab.Q, *ctrd.Daemon, string) rootFS
		copies  bool // each container has all of the bytes
	}{
		{"overlayfs", overlayRoot, false},
		{"native", nativeRoot, true},
		{"erofs", erofsRoot, false},
	} {
		q.Run(s.name, func(q *lab.Q) {
			d := d.InSubtest(q)
			q.Step("%s: unpack the image, and start two containers of it", s.name)
			requireSnapshotter(q, plugins, s.name)
			local := pullAndUnpack(q, d, hosts, s.name)
			committed := strings.Count(d.Ctr("snapshots", "--snapshotter", s.name, "ls").Stdout, "Committed")
			assert.Check(q, cmp.Equal(committed, 2), "committed snapshots, of an image of two layers")
			q.Fact(s.name+": layers that are unpacked", committed)
			q.Fact(s.name+": unpacked by ctr itself, with --local", local)
			ids := []string{q.ID(ctrd.ContainerID + "-" + s.name), q.ID(ctrd.ContainerID + "-" + s.name + "-2")}
			for _, id := range ids {
				d.CreateContainerWith([]string{"--snapshotter", s.name}, image.Layered, id, "sleep", "3600")
				d.StartTask(id)
				proc.WaitFor(q, proc.Runs(d.TaskPID(id), "sleep"))
			}

			q.Step("%s: look at what the kernel has mounted, and where the bytes are", s.name)
			first, second := s.mounted(q, d, ids[0]), s.mounted(q, d, ids[1])
			assert.Check(q, first.writable != second.writable, "both containers write to %s", first.writable)
			assert.Check(q, strings.HasPrefix(first.writable, d.SnapshotterDir(s.name)+"/"), first.writable)
			assert.Check(q, cmp.DeepEqual(first.shared, second.shared))
			q.Fact(s.name+": mounted", first.description)
			q.Fact(s.name+": shared by both", len(first.shared))
			program := file.Size(q, q.UnderTest("busybox").Path)
			q.LogCommand("du -s %s", first.writable)
			used := file.DiskUsage(q, first.writable)
			if s.copies {
				assert.Check(q, used >= program, "%s has %d bytes: the program alone has %d", first.writable, used, program)
				assert.Check(q, cmp.Len(first.shared, 0))
			} else {
				assert.Check(q, used < program/4, "%s has %d bytes, of a program of %d", first.writable, used, program)
				assert.Check(q, cmp.Len(first.shared, 2))
			}
			q.Fact(s.name+": a container has a copy of the program", used >= program)

			q.Step("%s: look from inside: nothing of that is seen", s.name)
			p := proc.Snapshot(q, d.TaskPID(ids[0]))
			before, rest, _ := strings.Cut(d.ExecShell(ids[0],
				describeTree+"; echo then; echo mine > /root/mine; rm /bin/vi; cat /root/mine; "+describeTree), "then\n")
			seen := map[string]string{
				"args": strings.Join(p.Args, " "), "env": strings.Join(p.Env, " "), "exe": p.Exe,
				"cwd": proc.Cwd(q, p.PID), "tree": before,
			}
			assert.Check(q, cmp.Equal(len(strings.Fields(seen["tree"])), 2), "%q", seen["tree"])
			if seenWithFirst == nil {
				seenWithFirst = seen
				q.Fact(s.name+": digests of the tree", lab.VolatileNames("digest", strings.Join(strings.Fields(seen["tree"]), " ")))
			} else {
				assert.Check(q, cmp.DeepEqual(seen, seenWithFirst))
				different := slices.DeleteFunc(slices.Sorted(maps.Keys(seen)), func(key string) bool { return seen[key] == seenWithFirst[key] })
				q.Fact(s.name+": what the program sees differently", different)
			}

			q.Control("%s: write in one container: the other has the tree as it was", s.name)
			written, after, _ := strings.Cut(rest, "\n")
			assert.Check(q, cmp.Equal(written, "mine"))
			assert.Check(q, after != seen["tree"], "the digests of the tree are the same after a write")
			assert.Check(q, cmp.Equal(file.Read(q, filepath.Join(first.writable, "root/mine")), "mine"))
			inOther := file.Exists(filepath.Join(second.writable, "root/mine"))
			assert.Check(q, !inOther, "the write is in %s, too", second.writable)
			assert.Check(q, cmp.Equal(d.ExecShell(ids[1], describeTree), seen["tree"]))
			q.Fact(s.name+": the file that it writes, in its own directory", file.Read(q, filepath.Join(first.writable, "root/mine")))
			q.Fact(s.name+": the file that it writes is in the other's directory", inOther)

			q.TearDown(s.name+": delete the tasks: nothing is mounted any more", func() {
				for _, id := range ids {
					d.KillAndDeleteTask(id)
					d.Ctr("containers", "delete", id)
				}
				recordMountsLeft(q, d, s.name)
				d.CollectGarbage() // which removes the directories of snapshots that were deleted
				assert.Check(q, !file.Exists(first.writable), "%s stays after its container", first.writable)
			})
		})
	}

	q.Answer("Another snapshotter changes the mounts and the bytes on disk: overlayfs lays an overlay over directories, native copies the " +
		"tree for each container, and erofs lays an overlay over image files. What the program sees does not change.")
}

// recordMountsLeft asserts that nothing of the daemon's is mounted any more.
func recordMountsLeft(q *lab.Q, d *ctrd.Daemon, snapshotter string) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Dir(d.Root)))
	assert.NilError(q, err)
	for _, m := range mounts {
		q.Errorf("%s (%s) is still mounted after the tasks were deleted", m.Mountpoint, m.FSType)
	}
	q.Fact(snapshotter+": mounts left", len(mounts))
}

// describeTree has a shell print a digest over names, kinds, modes, owners and link targets, and one over what is in the
// files. Times are left out: erofs keeps none for each file by default.
const describeTree = `cd /; find bin etc root tmp | sort | xargs stat -c "%n %F %a %u:%g %N" | sha256sum | cut -d" " -f1
find bin etc root -type f | sort | xargs sha256sum | sha256sum | cut -d" " -f1`

// rootFS is a container's root filesystem as the kernel has it mounted.
type rootFS struct {
	description string   // in words
	writable    string   // the directory to which the container writes
	shared      []string // the directories or files that other containers of the image use as well
}

func overlayRoot(q *lab.Q, d *ctrd.Daemon, id string) rootFS {
	q.Helper()
	overlay := d.RootOverlay(id)
	for _, dir := range overlay.Lower {
		assert.Check(q, check.MountAt(q, dir) == nil, "%s is a mount point, no plain directory", dir)
		assert.Check(q, strings.HasPrefix(dir, d.SnapshotterDir("overlayfs")+"/"), dir)
	}
	return rootFS{"an overlay over directories", overlay.Upper, overlay.Lower}
}

func nativeRoot(q *lab.Q, d *ctrd.Daemon, id string) rootFS {
	q.Helper()
	at := filepath.Join(d.Bundle(id), "rootfs")
	m := check.MountAt(q, at)
	if m == nil {
		q.Fatalf("nothing is mounted at %s", at)
	}
	assert.Check(q, m.FSType != "overlay" && m.FSType != "erofs", "a %s is mounted at %s", m.FSType, at)
	// The line of a bind mount has the directory relative to its filesystem; where that is mounted is another line.
	mountCommand := strings.Fields(d.Ctr("snapshots", "--snapshotter", "native", "mounts", "/mnt", id).Stdout)
	dir := ""
	for _, word := range mountCommand {
		if strings.HasPrefix(word, d.Root) {
			dir = word
		}
	}
	assert.Assert(q, dir != "", "no directory of the snapshotter: %q", mountCommand)
	assert.Check(q, strings.HasSuffix(dir, m.Root), "mounted is %s of its filesystem, and not %s", m.Root, dir)
	assert.Check(q, file.Same(dir+"/bin/busybox", at+"/bin/busybox"), "%s is no bind of %s", at, dir)
	return rootFS{"a bind of a directory", dir, nil}
}

// erofsRoot follows the overlay's lower directories, which are mount points, to the layers' image files.
func erofsRoot(q *lab.Q, d *ctrd.Daemon, id string) rootFS {
	q.Helper()
	overlay := d.RootOverlay(id)
	description, images := "", []string{}
	for _, dir := range overlay.Lower {
		m := check.MountAt(q, dir)
		assert.Assert(q, m != nil, "nothing is mounted at %s", dir)
		assert.Check(q, cmp.Equal(m.FSType, "erofs"), dir)
		description = "an overlay over erofs, of files"
		path := m.Source
		if loop, ok := strings.CutPrefix(path, "/dev/"); ok {
			description = "an overlay over erofs, of loop devices"
			path = file.Read(q, filepath.Join("/sys/block", loop, "loop/backing_file"))
		}
		magic := make([]byte, 4)
		f, err := os.Open(path)
		assert.NilError(q, err)
		_, err = f.ReadAt(magic, 1024)
		f.Close()
		assert.NilError(q, err)
		assert.Check(q, cmp.DeepEqual(magic, []byte{0xe2, 0xe1, 0xf5, 0xe0}), "magic number of erofs in %s", path)
		images = append(images, path)
	}
	return rootFS{description, overlay.Upper, images}
}

// requireSnapshotter skips a subtest whose snapshotter is not there. Only erofs may be missing: overlayfs and native fail the
// subtest. plugins is the output of ctr plugins ls.
func requireSnapshotter(q *lab.Q, plugins, name string) {
	q.Helper()
	for line := range strings.Lines(plugins) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "io.containerd.snapshotter.") || f[1] != name {
			continue
		}
		switch {
		case f[3] != "ok" && name != "erofs":
			q.Fatalf("snapshotter %s is %s", name, f[3])
		case f[3] != "ok":
			q.Skipf("snapshotter erofs is %s: it needs the kernel's erofs; look again after: modprobe erofs", f[3])
		case name == "erofs":
			q.LookPathOrSkip("mkfs.erofs") // containerd runs it for each layer
		}
		return
	}
	if name == "erofs" {
		q.Skipf("this containerd has no snapshotter erofs: unset CDB_CONTAINERD to see it with the pinned one")
	}
	q.Fatalf("no snapshotter %s:\n%s", name, plugins)
}

// pullAndUnpack pulls the image and unpacks it for a snapshotter. It returns whether ctr had to do it by itself, with --local.
func pullAndUnpack(q *lab.Q, d *ctrd.Daemon, hosts, snapshotter string) (local bool) {
	q.Helper()
	argv := []string{"images", "pull", "--hosts-dir", hosts, "--snapshotter", snapshotter}
	r := d.TryCtr(append(argv, image.Layered)...)
	if r.Code == 0 {
		return false
	}
	if !strings.Contains(r.Stderr, "no unpack platforms defined") {
		q.Fatalf("this command had to succeed:\n%s", r)
	}
	argv = append(argv, "--local", image.Layered)
	r = d.TryCtr(argv...)
	if r.Code != 0 && strings.Contains(r.Stderr, "/dev/loop-control") {
		// A kernel before 6.12 cannot mount a file, and loop devices come with a module that may not be loaded yet.
		q.Exec(q.LookPathOrSkip("modprobe"), "loop")
		if !file.Exists("/dev/loop-control") {
			q.Skipf("this kernel mounts erofs from a loop device only, and has none: look again after modprobe loop, or with KERNEL=6.12")
		}
		r = d.TryCtr(argv...)
	}
	if r.Code != 0 {
		q.Fatalf("this command had to succeed:\n%s", r)
	}
	return true
}
