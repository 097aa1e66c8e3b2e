//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// A task's files come from the image's layers, each unpacked into a directory of its own; the container sees them one over the other, and
// below a directory that takes what it writes.
//
// Every step from the image's name to the mount goes by a digest or a path. The tag names an index. The index names a
// manifest, and the manifest names the config and the layers, each by the digest of its bytes. The digest of a layer's uncompressed bytes
// is its DiffID; the DiffIDs from the bottom up give the chain ID, and that is the name of the snapshot. The snapshots' directories are
// the lower directories of an overlay. A file that is changed is first copied up; one that is deleted becomes a whiteout, a character
// device 0:0, which hides the one below. That is so as well where the daemon unpacks several layers at the same time
// (max_concurrent_unpacks), each without the layers below it.
//
// Hint: sha256sum below io.containerd.content.v1.content, and the overlay's options in /proc/self/mountinfo.
// Spec: https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid
// Kernel: https://docs.kernel.org/filesystems/overlayfs.html
func TestTask_WhereDoTheFilesComeFrom(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where do the files come from?")
	defer q.Recover()
	d := ctrd.Shared(q)
	if _, ours := q.Image(); !ours {
		q.Skipf("this is about an image of two layers whose files the lab knows, its own: unset CDB_IMAGE")
	}
	ref, id := image.Layered, q.ID(ctrd.ContainerID)
	hosts := image.Serve(q).HostsDir(q)
	d.Ctr("images", "pull", "--hosts-dir", hosts, ref)

	q.Step("follow the image's name to its layers: each step goes by the digest of the bytes on disk")
	target := digest.Digest(check.TableCell(q, d.Ctr("images", "ls").Stdout, ref, 2))
	var index v1.Index
	d.DecodeBlob(target, &index)
	assert.Assert(q, cmp.Len(index.Manifests, 1))
	var manifest v1.Manifest
	d.DecodeBlob(index.Manifests[0].Digest, &manifest)
	var config v1.Image
	d.DecodeBlob(manifest.Config.Digest, &config)
	assert.Assert(q, cmp.Len(manifest.Layers, 2))
	q.Fact("index", lab.VolatileNames("digest", target))
	q.Fact("manifest", lab.VolatileNames("digest", index.Manifests[0].Digest))
	q.Fact("config", lab.VolatileNames("digest", manifest.Config.Digest))

	q.Step("uncompress the layers: the digest of a layer's uncompressed bytes is its DiffID, and the config lists it")
	layers, diffIDs := uncompressLayers(q, d, manifest.Layers)
	assert.DeepEqual(q, config.RootFS.DiffIDs, diffIDs)

	q.Step("compute the chain IDs from the DiffIDs: they are the names of committed snapshots")
	// The first chain ID is the first DiffID. Each further one is the digest of "PREVIOUS-CHAIN-ID DIFF-ID".
	chainIDs := []digest.Digest{diffIDs[0], digest.FromString(diffIDs[0].String() + " " + diffIDs[1].String())}
	assert.Equal(q, identity.ChainID(diffIDs), chainIDs[1])
	snapshots := d.Ctr("snapshots", "ls").Stdout
	assert.Check(q, cmp.DeepEqual(check.TableRow(q, snapshots, chainIDs[0].String()), []string{chainIDs[0].String(), "Committed"}))
	assert.Check(q, cmp.DeepEqual(check.TableRow(q, snapshots, chainIDs[1].String()),
		[]string{chainIDs[1].String(), chainIDs[0].String(), "Committed"}))
	q.Fact("chain IDs", lab.VolatileNames("digest", chainIDs...))

	q.Step("create a container: its snapshot has a directory of its own, over the second layer's, over the first's")
	d.CreateContainer(ref, id, "sleep", "3600")
	prepared := d.SnapshotOverlay(id)
	assert.Assert(q, cmp.Len(prepared.Lower, 2))
	// A snapshot over the first layer alone shows which directory is the first layer's.
	overFirst := q.ID("cdb-over-the-first")
	d.Ctr("snapshots", "prepare", overFirst, chainIDs[0].String())
	first := d.SnapshotOverlay(overFirst)
	d.Ctr("snapshots", "rm", overFirst)
	assert.Check(q, cmp.DeepEqual(first.Lower, prepared.Lower[1:]), "the lowest directory is the first layer's")
	recordLayerDirs(q, d, prepared.Lower, layers)
	assert.Check(q, cmp.Equal(layers[1][image.Deleted], image.TreeWhiteout))

	q.Step("start a task: the kernel's mount has just these directories, in this order")
	d.StartTask(id)
	proc.WaitFor(q, proc.Runs(d.TaskPID(id), "sleep"))
	mounted := d.RootOverlay(id)
	assert.Check(q, cmp.DeepEqual(mounted, prepared))
	q.Fact("lowerdir", lab.VolatileNames("directory", mounted.Lower...))
	q.Fact("upperdir", lab.VolatileNames("directory", mounted.Upper))
	q.Fact("workdir", lab.VolatileNames("directory", mounted.Work))

	q.Step("read files in the container: a program gets the bytes of the uppermost layer that has the file")
	seen := d.ExecShell(id,
		"sha256sum /bin/busybox /"+image.Added+" /"+image.Replaced+"; test -e /"+image.Deleted+" || echo no "+image.Deleted)
	recordLayersRead(q, seen, layers)

	q.Step("write, change and delete files in the container: the upper directory has it all, and the layers have not changed")
	before := image.DirTree(q, mounted.Upper)
	d.ExecShell(id, "echo new > /root/new; echo changed > /"+image.Added+"; rm /bin/vi")
	written := image.DirTree(q, mounted.Upper).Without(before)
	assert.Check(q, cmp.DeepEqual(written, image.Tree{
		"root": image.TreeDirectory, "root/new": digest.FromString("new\n").String(),
		"etc": image.TreeDirectory, image.Added: digest.FromString("changed\n").String(),
		"bin": image.TreeDirectory, "bin/vi": image.TreeWhiteout,
	}))
	unchanged := countUnchangedLayers(q, mounted.Lower, layers)
	q.Fact("upper directory: files in it", slices.Sorted(maps.Keys(written)))
	q.Fact("upper directory: bin/vi", written["bin/vi"])
	q.Fact("lower directories that are as they were", unchanged)

	q.Control("start a second container of the image: it has the same lower directories, and another upper one, without the writes")
	second := q.ID(ctrd.ContainerID + "-2")
	d.CreateContainer(ref, second, "sleep", "3600")
	d.StartTask(second)
	other := d.RootOverlay(second)
	assert.Check(q, cmp.DeepEqual(other.Lower, mounted.Lower))
	assert.Check(q, other.Upper != mounted.Upper, "both containers write to %s", other.Upper)
	assert.Check(q, cmp.Equal(strings.TrimSpace(d.ExecShell(second, "cat /"+image.Added+"; test -e /bin/vi && echo vi; ls /root")),
		"from the second layer\nvi"))
	q.Fact("the second one's lowerdir", lab.VolatileNames("directory", other.Lower...))
	q.Fact("the second one's upperdir", lab.VolatileNames("directory", other.Upper))

	q.Run("at-once", func(q *lab.Q) { unpackAtOnce(q, hosts, layers) })

	q.Answer("A container's files come from the directories of the image's layers. All containers of the image share these directories, and " +
		"none changes them. What a container writes is in a directory of its own.")
}

// uncompressLayers returns the files of each layer, and the digest of its uncompressed bytes.
func uncompressLayers(q *lab.Q, d *ctrd.Daemon, compressed []v1.Descriptor) (layers []image.Tree, diffIDs []digest.Digest) {
	for i, l := range compressed {
		uncompressed := image.Uncompress(q, d.ReadBlob(l.Digest))
		diffID := digest.FromBytes(uncompressed)
		layers = append(layers, image.LayerTree(q, uncompressed))
		diffIDs = append(diffIDs, diffID)
		q.Fact(fmt.Sprintf("layer %d: digest of the compressed bytes", i+1), lab.VolatileNames("digest", l.Digest))
		q.Fact(fmt.Sprintf("layer %d: DiffID", i+1), lab.VolatileNames("digest", diffID))
	}
	return layers, diffIDs
}

// recordLayerDirs asserts that the lower directories, the uppermost first, are the snapshotter's and have the files of the layers.
func recordLayerDirs(q *lab.Q, d *ctrd.Daemon, dirs []string, layers []image.Tree) {
	for i, dir := range dirs {
		n := len(layers) - 1 - i
		assert.Check(q, cmp.Equal(filepath.Dir(filepath.Dir(filepath.Dir(dir))), d.SnapshotterDir("overlayfs")))
		assert.Check(q, cmp.DeepEqual(image.DirTree(q, dir), layers[n]), "%s against layer %d, file by file", dir, n+1)
		q.Fact(fmt.Sprintf("layer %d: directory", n+1), lab.VolatileNames("directory", dir))
		q.Fact(fmt.Sprintf("layer %d: files in it", n+1), len(layers[n]))
	}
}

// unpackAtOnce has another daemon unpack both layers at the same time. The second layer is then unpacked without the first one below it,
// and its whiteout must hide the file all the same.
func unpackAtOnce(q *lab.Q, hosts string, layers []image.Tree) {
	const setting = "max_concurrent_unpacks"
	if !ctrd.Knows(q, "containerd", setting) {
		q.Skipf("this containerd has no %s, and unpacks one layer after the other; to ask this with the pinned one, unset CDB_CONTAINERD",
			setting)
	}
	if q.UnderTest("ctr").Precedes("2.0.0") {
		q.Skipf("this ctr unpacks by itself, and not the daemon; to ask this with the pinned one, unset CDB_CTR")
	}
	q.Step("a daemon unpacks both layers at the same time: the directories have the same files, and the deleted file is hidden")
	d := ctrd.StartNamed(q, "at once", ctrd.WithConfig("[plugins.\"io.containerd.transfer.v1.local\"]\n  "+setting+" = 2"),
		ctrd.WithConfig("[debug]\n  level = \"debug\""))
	d.Ctr("images", "pull", "--hosts-dir", hosts, image.Layered)
	// With a snapshotter that cannot give a snapshot another parent, containerd unpacks one layer after the other all the same.
	unpacked := d.WaitForLogLine("image unpacked", "parallel=")
	assert.Check(q, cmp.Equal(unpacked["parallel"], "true"), "containerd logs that it has not unpacked the layers at once: %v", unpacked)
	id := q.ID(ctrd.ContainerID)
	d.CreateContainer(image.Layered, id, "sleep", "3600")
	lower := d.SnapshotOverlay(id).Lower
	assert.Assert(q, cmp.Len(lower, len(layers)))
	for i, dir := range lower {
		n := len(layers) - 1 - i
		assert.Check(q, cmp.DeepEqual(image.DirTree(q, dir), layers[n]), "layer %d, unpacked at the same time as the other, file by file", n+1)
	}
	q.Fact("at once: "+image.Deleted+" in layer 2", image.DirTree(q, lower[0])[image.Deleted])
	d.StartTask(id)
	proc.WaitFor(q, proc.Runs(d.TaskPID(id), "sleep"))
	isThere := d.TryCtr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "look", id, "test", "-e", "/"+image.Deleted).Code == 0
	assert.Check(q, !isThere, "the container sees %s, which layer 2 deletes", image.Deleted)
	q.Fact("at once: the container sees "+image.Deleted, isThere)
}

// recordLayersRead asserts that a program in the container has read the bytes of the uppermost layer that has the file. It takes the
// output of sha256sum there, and a last line that a file is absent.
func recordLayersRead(q *lab.Q, seen string, layers []image.Tree) {
	hexDigest := func(file string, layer image.Tree) string { return strings.TrimPrefix(layer[file], "sha256:") }
	assert.Check(q, cmp.DeepEqual(strings.Fields(seen), []string{
		hexDigest("bin/busybox", layers[0]), "/bin/busybox", hexDigest(image.Added, layers[1]), "/" + image.Added,
		hexDigest(image.Replaced, layers[1]), "/" + image.Replaced, "no", image.Deleted,
	}))
	assert.Check(q, layers[0][image.Replaced] != layers[1][image.Replaced])
	// layerOf returns the number of the layer whose file has the bytes that the program has read, counted from the bottom.
	layerOf := func(name string) int {
		lines := strings.Split(seen, "\n")
		line := slices.IndexFunc(lines, func(l string) bool { return strings.HasSuffix(l, "/"+name) })
		return 1 + slices.IndexFunc(layers, func(l image.Tree) bool {
			return line >= 0 && l[name] != "" && strings.HasPrefix(lines[line], hexDigest(name, l)+" ")
		})
	}
	for _, name := range []string{"bin/busybox", image.Added, image.Replaced} {
		q.Fact(name+": the program reads the bytes of layer", layerOf(name))
	}
	q.Fact(image.Deleted+": in layer 2", layers[1][image.Deleted])
	q.Fact(image.Deleted+": the shell of the container prints", check.LastLine(seen))
}

// countUnchangedLayers asserts that the layers' directories, the uppermost first, have just the files of the layers. It returns how many of
// them do.
func countUnchangedLayers(q *lab.Q, dirs []string, layers []image.Tree) int {
	unchanged := 0
	for i, dir := range dirs {
		now := image.DirTree(q, dir)
		assert.Check(q, cmp.DeepEqual(now, layers[len(layers)-1-i]), "%s was written to", dir)
		if maps.Equal(now, layers[len(layers)-1-i]) {
			unchanged++
		}
	}
	return unchanged
}
