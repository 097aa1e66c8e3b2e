//go:build linux && vmlab

package cdblab

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// From the image's layers, each unpacked into a directory of its own; the container sees them one over the other, and
// below a directory that takes what it writes.
//
// Every step from the image's name to the mount goes by a digest or a path. The tag names an index, that a manifest, that
// the config and the layers, each by the digest of its bytes. The digest of a layer's uncompressed bytes is its DiffID; the
// DiffIDs from the bottom up give the chain ID, and that is the name of the snapshot. The snapshots' directories are the
// lower directories of an overlay. A file that is changed is first copied up; one that is deleted becomes a whiteout, a
// character device 0:0, which hides the one below.
//
// Hint: sha256sum below io.containerd.content.v1.content, and the overlay's options in /proc/self/mountinfo.
// Spec: https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid
// Kernel: https://docs.kernel.org/filesystems/overlayfs.html
func TestTask_WhereDoTheFilesComeFrom(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where do the files come from?")
	d := ctrd.Shared(q)
	ref, id := pullLayered(q, d), q.ID(ctrd.ContainerID)

	q.Step("the image's name leads to its layers, each by the digest of its bytes on disk")
	target := digest.Digest(check.TableRow(q, d.Ctr("images", "ls").Stdout, ref)[2])
	var index v1.Index
	unmarshal(q, blob(q, d, target), &index)
	assert.Assert(q, cmp.Len(index.Manifests, 1))
	var manifest v1.Manifest
	unmarshal(q, blob(q, d, index.Manifests[0].Digest), &manifest)
	var config v1.Image
	unmarshal(q, blob(q, d, manifest.Config.Digest), &config)
	assert.Assert(q, cmp.Len(manifest.Layers, 2))
	q.Fact("index", named{"digest", target.String()})
	q.Fact("manifest", named{"digest", index.Manifests[0].Digest.String()})
	q.Fact("config", named{"digest", manifest.Config.Digest.String()})

	q.Step("a layer's DiffID is the digest of what it is uncompressed, and the config lists it")
	var layers []map[string]string
	var diffs []digest.Digest
	for _, l := range manifest.Layers {
		unpacked := gunzip(q, blob(q, d, l.Digest))
		layers = append(layers, entriesOf(q, unpacked))
		diffs = append(diffs, digest.FromBytes(unpacked))
		q.Fact("layer, compressed", named{"digest", l.Digest.String()})
		q.Fact("its DiffID", named{"digest", diffs[len(diffs)-1].String()})
	}
	assert.DeepEqual(q, config.RootFS.DiffIDs, diffs)

	q.Step("the DiffIDs give the chain IDs, and those are the names of committed snapshots")
	// The first chain ID is the first DiffID; each further one is the digest of "the one below, a space, the DiffID".
	chains := []digest.Digest{diffs[0], digest.FromString(diffs[0].String() + " " + diffs[1].String())}
	assert.Equal(q, identity.ChainID(diffs), chains[1])
	snapshots := d.Ctr("snapshots", "ls").Stdout
	assert.Check(q, cmp.DeepEqual(check.TableRow(q, snapshots, chains[0].String()), []string{chains[0].String(), "Committed"}))
	assert.Check(q, cmp.DeepEqual(check.TableRow(q, snapshots, chains[1].String()), []string{chains[1].String(), chains[0].String(), "Committed"}))
	q.Fact("chain IDs", []named{{"digest", chains[0].String()}, {"digest", chains[1].String()}})

	q.Step("a snapshot is a directory: the container's own over the second layer's over the first's")
	d.CreateContainer(ref, id, "sleep", "300")
	own := overlayOf(q, strings.Fields(d.Ctr("snapshots", "mounts", "/mnt", id).Stdout))
	assert.Assert(q, cmp.Len(own.lower, 2))
	// Which directory is the first layer's shows a snapshot over that one alone.
	over := q.ID("cdb-over-the-first")
	d.Ctr("snapshots", "prepare", over, chains[0].String())
	first := overlayOf(q, strings.Fields(d.Ctr("snapshots", "mounts", "/mnt", over).Stdout))
	d.Ctr("snapshots", "rm", over)
	assert.Check(q, cmp.DeepEqual(first.lower, own.lower[1:]), "the lowest directory is the first layer's")
	for i, dir := range own.lower {
		n := len(layers) - 1 - i
		assert.Check(q, cmp.Equal(filepath.Dir(filepath.Dir(filepath.Dir(dir))), snapshotterDir(d, "overlayfs")))
		assert.Check(q, cmp.DeepEqual(treeOf(q, dir), layers[n]), "%s against layer %d, file by file", dir, n+1)
		q.Fact(fmt.Sprintf("layer %d: directory", n+1), named{"directory", dir})
		q.Fact(fmt.Sprintf("layer %d: files in it", n+1), len(layers[n]))
	}
	assert.Check(q, cmp.Equal(layers[1][image.Deleted], whiteout))

	q.Step("the kernel's mount has just these directories, in this order")
	d.StartTask(id)
	proc.WaitFor(q, proc.Runs(d.TaskPID(id), "sleep"))
	mounted := rootOverlay(q, d, id)
	assert.Check(q, cmp.DeepEqual(mounted.lower, own.lower))
	assert.Check(q, cmp.Equal(mounted.upper, own.upper))
	assert.Check(q, cmp.Equal(mounted.work, own.work))
	q.Fact("lowerdir", []named{{"directory", mounted.lower[0]}, {"directory", mounted.lower[1]}})
	q.Fact("upperdir", named{"directory", mounted.upper})
	q.Fact("workdir", named{"directory", mounted.work})

	q.Step("what the program reads are the layers' bytes, the uppermost that has the file")
	seen := typedIn(q, d, id, "sha256sum /bin/busybox /"+image.Added+" /"+image.Replaced+"; test -e /"+image.Deleted+" || echo no "+image.Deleted)
	assert.Check(q, cmp.DeepEqual(strings.Fields(seen), []string{
		hexOf(layers[0]["bin/busybox"]), "/bin/busybox", hexOf(layers[1][image.Added]), "/" + image.Added,
		hexOf(layers[1][image.Replaced]), "/" + image.Replaced, "no", image.Deleted,
	}))
	assert.Check(q, layers[0][image.Replaced] != layers[1][image.Replaced])
	q.Fact("bin/busybox is of layer", 1)
	q.Fact(image.Added+" and "+image.Replaced+" are of layer", 2)
	q.Fact(image.Deleted+", of layer 1", "hidden by layer 2")

	q.Step("a write, a change and a deletion: in the upper directory, and nowhere else")
	before := treeOf(q, mounted.upper)
	typedIn(q, d, id, "echo new > /root/new; echo changed > /"+image.Added+"; rm /bin/vi")
	after := treeOf(q, mounted.upper)
	assert.Check(q, cmp.DeepEqual(without(after, before), map[string]string{
		"root": directory, "root/new": digest.FromString("new\n").String(),
		"etc": directory, image.Added: digest.FromString("changed\n").String(),
		"bin": directory, "bin/vi": whiteout,
	}))
	for i, dir := range mounted.lower {
		assert.Check(q, cmp.DeepEqual(treeOf(q, dir), layers[len(layers)-1-i]), "%s was written to", dir)
	}
	q.Fact("in the upper directory", without(after, before)["bin/vi"]+" bin/vi, "+image.Added+", root/new")
	q.Fact("lower directories", "as they were")

	q.Control("a second container of the image: the same lower directories, another upper one, and nothing of that in it")
	second := q.ID(ctrd.ContainerID + "-2")
	d.CreateContainer(ref, second, "sleep", "300")
	d.StartTask(second)
	other := rootOverlay(q, d, second)
	assert.Check(q, cmp.DeepEqual(other.lower, mounted.lower))
	assert.Check(q, other.upper != mounted.upper, "both containers write to %s", other.upper)
	assert.Check(q, cmp.Equal(strings.TrimSpace(typedIn(q, d, second, "cat /"+image.Added+"; test -e /bin/vi && echo vi; ls /root")),
		"from the second layer\nvi"))
	q.Fact("the second one's lowerdir", []named{{"directory", other.lower[0]}, {"directory", other.lower[1]}})
	q.Fact("the second one's upperdir", named{"directory", other.upper})

	q.Answer("From the layers' directories, which all containers of the image share and none changes; what it writes is in its own.")
}

// named is a name that another run gives otherwise: of a blob, a directory.
type named struct{ kind, name string }

// Volatile is the word that stands for such a name where two runs are compared.
func (n named) Volatile() string { return n.kind }

func (n named) String() string { return n.name }

// pullLayered pulls the lab's image of two layers.
func pullLayered(q *lab.Q, d *ctrd.Daemon) string {
	q.Helper()
	if _, ours := q.Image(); !ours {
		q.Skipf("this is about an image of two layers whose files the lab knows, its own: unset CDB_IMAGE")
	}
	d.Ctr("images", "pull", "--hosts-dir", image.Serve(q).HostsDir(q), image.Layered)
	return image.Layered
}

// blobs is the directory in which the daemon has its blobs, each a file named by its digest.
func blobs(d *ctrd.Daemon) string {
	return filepath.Join(d.Root, "io.containerd.content.v1.content/blobs/sha256")
}

// snapshotterDir is the directory of a snapshotter of the daemon's.
func snapshotterDir(d *ctrd.Daemon, name string) string {
	return filepath.Join(d.Root, "io.containerd.snapshotter.v1."+name)
}

// blob reads a blob from the disk. Its bytes have to be those that its name is the digest of.
func blob(q *lab.Q, d *ctrd.Daemon, name digest.Digest) []byte {
	q.Helper()
	path := filepath.Join(blobs(d), name.Encoded())
	q.LogCommand("sha256sum %s", path)
	data, err := os.ReadFile(path)
	assert.NilError(q, err)
	assert.Equal(q, digest.FromBytes(data), name, "digest of the bytes in %s", path)
	return data
}

func unmarshal(q *lab.Q, data []byte, to any) {
	q.Helper()
	assert.NilError(q, json.Unmarshal(data, to))
}

func gunzip(q *lab.Q, data []byte) []byte {
	q.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	assert.NilError(q, err)
	out, err := io.ReadAll(r)
	assert.NilError(q, err)
	return out
}

// What is no file and no link, where trees are compared.
const (
	directory = "directory"
	whiteout  = "whiteout"
)

// entriesOf is what a layer has, as [treeOf] describes it.
func entriesOf(q *lab.Q, layer []byte) map[string]string {
	q.Helper()
	out := map[string]string{}
	for tr := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		assert.NilError(q, err)
		name := path.Clean(h.Name)
		hidden, isWhiteout := strings.CutPrefix(path.Base(name), ".wh.")
		switch {
		case isWhiteout:
			out[path.Join(path.Dir(name), hidden)] = whiteout
		case h.Typeflag == tar.TypeDir:
			out[name] = directory
		case h.Typeflag == tar.TypeSymlink:
			out[name] = "link to " + h.Linkname
		default:
			sum, err := digest.FromReader(tr)
			assert.NilError(q, err)
			out[name] = sum.String()
		}
	}
}

// treeOf is what a directory has: path → digest of a file, target of a link, directory, whiteout.
func treeOf(q *lab.Q, root string) map[string]string {
	q.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		switch e.Type() {
		case fs.ModeDir:
			out[name] = directory
		case fs.ModeSymlink:
			var to string
			to, err = os.Readlink(path)
			out[name] = "link to " + to
		case 0:
			var data []byte
			data, err = os.ReadFile(path)
			out[name] = digest.FromBytes(data).String()
		default:
			var st unix.Stat_t
			err = unix.Lstat(path, &st)
			out[name] = fmt.Sprintf("%s %d:%d", e.Type(), unix.Major(st.Rdev), unix.Minor(st.Rdev))
			if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
				out[name] = whiteout
			}
		}
		return err
	})
	assert.NilError(q, err)
	return out
}

// without is what the one tree has and the other has not.
func without(tree, other map[string]string) map[string]string {
	out := map[string]string{}
	for name, what := range tree {
		if other[name] != what {
			out[name] = what
		}
	}
	return out
}

// overlay is what an overlay is made of, the uppermost lower directory first.
type overlay struct {
	lower       []string
	upper, work string
}

// overlayOf finds an overlay's directories in a line of options, be it a mount command's or the kernel's.
func overlayOf(q *lab.Q, words []string) overlay {
	q.Helper()
	var o overlay
	for _, option := range strings.Split(strings.Join(words, ","), ",") {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "lowerdir":
			o.lower = strings.Split(value, ":")
		case "upperdir":
			o.upper = value
		case "workdir":
			o.work = value
		}
	}
	if o.lower == nil || o.upper == "" || o.work == "" {
		q.Fatalf("no overlay: %s", strings.Join(words, " "))
	}
	return o
}

// rootOverlay is the overlay that the kernel has mounted as the root filesystem of a task.
func rootOverlay(q *lab.Q, d *ctrd.Daemon, id string) overlay {
	q.Helper()
	at := filepath.Join(d.Bundle(id), "rootfs")
	q.LogCommand("grep %s /proc/self/mountinfo", at)
	m := check.MountAt(q, at)
	if m == nil {
		q.Fatalf("nothing is mounted at %s", at)
	}
	assert.Equal(q, m.FSType, "overlay")
	return overlayOf(q, []string{m.VFSOptions})
}

// typedIn has a shell in a task do what is typed, and returns what it printed.
func typedIn(q *lab.Q, d *ctrd.Daemon, id, script string) string {
	q.Helper()
	return d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "typed", id, "sh", "-c", script).Stdout
}

func hexOf(sum string) string { return strings.TrimPrefix(sum, "sha256:") }
