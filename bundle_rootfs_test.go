//go:build linux && vmlab

package cdblab

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/rootfs"
	"cdblab/helpers/runc"
)

// The rootfs may be any directory that has the files: unpacked by hand, or the layers of an image laid upon each other.
//
// The lab's rootfs has one static program and links to it, and the image has the same files as its one layer: containerd unpacks
// the same files as the hand-built bundle has. The program is static, because execve(2) of a dynamic program looks for the program's
// interpreter inside the container. If the interpreter is missing, execve reports that the program does not exist, although it does.
//
// Hint: which file does execve look for besides the program? Compare modes, links and digests, not only names.
// Spec: https://github.com/opencontainers/image-spec/blob/main/layer.md#applying-changesets
// Kernel: https://man7.org/linux/man-pages/man2/execve.2.html, ENOENT
func TestBundle_WhereDoesTheRootfsComeFrom(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does the rootfs come from?")
	defer q.Recover()
	if _, ours := q.Image(); !ours {
		q.Skip("CDB_IMAGE names another image, whose files are not the hand-built ones: unset it")
	}
	b := bundle.Busybox(q, "sleep", "3600")

	q.Step("by hand: a static program, and links to it")
	program := b.Rootfs("bin", "busybox")
	assert.Check(q, rootfs.CheckStatic(program), "the rootfs's one program needs an interpreter")
	byHand := file.Tree(q, b.Rootfs())
	assert.Check(q, cmp.Contains(byHand["bin/busybox"], q.UnderTest("busybox").Digest))
	q.Fact("bin/busybox", byHand["bin/busybox"])
	q.Fact("rootfs by hand: files", len(byHand))

	q.Step("of an image: pulled, unpacked into a snapshot, mounted")
	d := ctrd.Shared(q)
	ref := d.PullImage()
	id := q.ID("cdb-files")
	d.CreateContainer(ref, id, "sleep", "3600")
	mountPoint := q.Mkdir("image")
	d.InSubtest(q).MountSnapshot(id, mountPoint)
	ofImage := file.Tree(q, mountPoint)
	q.Fact("rootfs of the image: files", len(ofImage))

	q.Step("compare both file by file: they have the same names, modes, links and digests")
	assert.Check(q, cmp.DeepEqual(ofImage, byHand))
	mounted := check.MountAt(q, mountPoint)
	assert.Assert(q, mounted != nil, "nothing is mounted at %s", mountPoint)
	assert.Check(q, check.MountAt(q, b.Rootfs()) == nil,
		"something is mounted at the rootfs of the hand-built bundle: %s", b.Rootfs())
	q.Fact("mounted as", mounted.FSType)

	q.Control("one file is changed, and the table shows it")
	assert.NilError(q, os.WriteFile(filepath.Join(mountPoint, "etc", "group"), []byte("root:x:0:\n"), 0o644))
	changed := file.Tree(q, mountPoint)
	assert.Check(q, changed["etc/group"] != byHand["etc/group"], "the table does not show that etc/group was changed")

	q.Control("a dynamic program in the same rootfs: the file exists, and execve reports that there is no such file")
	dynamic, found := rootfs.FindDynamic()
	if !found {
		q.Skip("this machine has no dynamic program among strace, sh, cat and the test itself; to ask this, install strace: make deps")
	}
	data, err := os.ReadFile(dynamic)
	assert.NilError(q, err)
	assert.NilError(q, os.WriteFile(b.Rootfs("bin", "dynamic"), data, 0o755))
	q.LogCommand("cp %s bundle/rootfs/bin/dynamic", dynamic)
	r := runc.Variant(q, b, "dynamic", bundle.Args("/bin/dynamic")).Try("run")
	assert.Check(q, r.Code != 0, "a dynamic program runs without its interpreter:\n%s", r)
	runc.AssertMessage(q, r.Stderr, "no such file or directory")
	assert.Check(q, file.Exists(b.Rootfs("bin", "dynamic")))
	q.Fact("execve of the dynamic program: error", runc.StableMessage(r.Stderr))
	static := runc.Variant(q, b, "static")
	running := static.CreateAndStart()
	assert.Check(q, cmp.Equal(running.Exe, "/bin/busybox"), "the static program in the same rootfs, which runs: executed file")
	q.Fact("static program: executed file", running.Exe)
	static.KillAndDelete(running)

	q.Answer("The rootfs is a directory, and it does not matter which program has filled it. The unpacked layer of the " +
		"image has, file by file, what was put into the directory by hand.")
}
