//go:build linux && vmlab

package cdblab

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
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

// From any directory that holds the files: unpacked by hand, or the layers of an image laid upon each other.
//
// The lab's is one static program and links to it, and the image has the same files as its one layer: unpacked by
// containerd they are, file by file, what the hand-built bundle has. Static, because execve(2) of a dynamic program
// looks for the program's interpreter inside the container: where there is none, the program that is there is "not found".
//
// Hint: which file does execve look for besides the program? Compare modes, links and digests, not only names.
// Spec: https://github.com/opencontainers/image-spec/blob/main/layer.md
// Kernel: https://man7.org/linux/man-pages/man2/execve.2.html, ENOENT
func TestBundle_WhereDoesTheRootfsComeFrom(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does the rootfs come from?")
	if _, ours := q.Image(); !ours {
		q.Skip("CDB_IMAGE names another image, whose files are not the hand-built ones: unset it")
	}
	b := bundle.Busybox(q, "sleep", "300")

	q.Step("by hand: a static program, and links to it")
	program := b.Rootfs("bin", "busybox")
	assert.Check(q, rootfs.CheckStatic(program), "the rootfs's one program needs an interpreter")
	byHand := fileTable(q, b.Rootfs())
	assert.Check(q, cmp.Contains(byHand["bin/busybox"], q.UnderTest("busybox").Digest))
	q.Fact("bin/busybox", byHand["bin/busybox"])
	q.Fact("files", len(byHand))

	q.Step("of an image: pulled, unpacked into a snapshot, mounted")
	d := ctrd.Shared(q)
	ref := d.PullImage()
	id := q.ID("cdb-files")
	d.CreateContainer(ref, id, "sleep", "300")
	at := q.Mkdir("image")
	ctrd.MountSnapshot(q, d, id, at)
	ofImage := fileTable(q, at)
	q.Fact("files", len(ofImage))

	q.Step("file by file they are the same: names, modes, links, digests")
	assert.Check(q, cmp.DeepEqual(ofImage, byHand))
	mounted := check.MountAt(q, at)
	assert.Assert(q, mounted != nil, "nothing is mounted at %s", at)
	assert.Check(q, check.MountAt(q, b.Rootfs()) == nil, "the hand-built one is a plain directory")
	q.Fact("mounted as", mounted.FSType)

	q.Control("one file is changed, and the table shows it")
	assert.NilError(q, os.WriteFile(filepath.Join(at, "etc", "group"), []byte("root:x:0:\n"), 0o644))
	changed := fileTable(q, at)
	assert.Check(q, changed["etc/group"] != byHand["etc/group"], "a changed file is not seen")

	q.Control("a dynamic program in the same rootfs: it is there, and execve says that there is no such file")
	dynamic := aDynamicProgram(q)
	data, err := os.ReadFile(dynamic)
	assert.NilError(q, err)
	assert.NilError(q, os.WriteFile(b.Rootfs("bin", "dynamic"), data, 0o755))
	q.LogCommand("cp %s bundle/rootfs/bin/dynamic", dynamic)
	c := runc.Variant(q, b, "dynamic", bundle.Args("/bin/dynamic"))
	r := c.Try("run")
	assert.Check(q, r.Code != 0, "a dynamic program runs without its interpreter:\n%s", r)
	assert.Check(q, cmp.Contains(r.Stderr, "no such file or directory"))
	assert.Check(q, file.Exists(b.Rootfs("bin", "dynamic")))
	q.Fact("of a file that is there, execve says", "no such file or directory")
	s := runc.Variant(q, b, "static")
	s.KillAndDelete(s.CreateAndStart())
	q.Fact("the static one", "runs")

	q.Answer("From a directory, whoever filled it. The image's layer, unpacked, is file by file what was put there by hand.")
}

// fileTable lists the files below a directory: name → type, mode, and digest or where it leads.
func fileTable(q *lab.Q, dir string) map[string]string {
	q.Helper()
	out := map[string]string{}
	assert.NilError(q, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil || name == "." {
			return err
		}
		out[name] = info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out[name] += fmt.Sprintf(" sha256:%x", sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			out[name] += " → " + to
		}
		return nil
	}))
	return out
}

// aDynamicProgram is a program of this machine that needs an interpreter.
func aDynamicProgram(q *lab.Q) string {
	q.Helper()
	self, _ := os.Executable()
	for _, path := range []string{"/usr/bin/strace", self, "/bin/sh", "/bin/cat"} {
		if err := rootfs.CheckStatic(path); errors.Is(err, rootfs.ErrNotStatic) {
			return path
		}
	}
	q.Skip("this machine has no dynamic program among strace, sh, cat and the test itself")
	return ""
}
