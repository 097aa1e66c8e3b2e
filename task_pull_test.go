//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
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
	"cdblab/helpers/file"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
)

// A file for each thing that it fetched, a directory for each layer that it unpacked, and records that hold on to them.
//
// The pull asks for the tag once, with a HEAD, and is told a digest; from there on everything is asked for by digest, and
// what is on the disk already is not asked for. Labels tie it all together: index to manifest, manifest to config and
// layers, config to the uppermost snapshot. The image's record, which is a name for the index, so keeps the rest from the
// garbage collector. A download in progress is an ingest, and is gone when it is done, as is the lease that held it all
// before there was a record.
//
// Hint: `ctr content ls`, `ctr snapshots info`, and the registry's log.
// Spec: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull
func TestTask_WhatDoesAPullLeaveBehind(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a pull leave behind?")
	if _, ours := q.Image(); !ours {
		q.Skipf("only the lab's own registry tells what was asked of it: unset CDB_IMAGE")
	}
	d := ctrd.Start(q)
	registry := image.Serve(q)
	hosts := registry.HostsDir(q)
	heard := 0
	pull := func(d *ctrd.Daemon) []string {
		d.Ctr("images", "pull", "--hosts-dir", hosts, image.Layered)
		all := registry.Requests()
		defer func() { heard = len(all) }()
		return all[heard:]
	}

	q.Step("the tag is asked for once, and all else by its digest")
	asked := pull(d)
	const repository = "/v2/library/busybox/"
	assert.Assert(q, cmp.Len(asked, 6), "%q", asked)
	assert.Check(q, cmp.Equal(asked[0], "HEAD "+repository+"manifests/layered"))
	var fetched []digest.Digest // index and manifest in order, then config and layers as they come
	for i, kind := range []string{"manifests/", "manifests/", "blobs/", "blobs/", "blobs/"} {
		assert.Check(q, strings.HasPrefix(asked[i+1], "GET "+repository+kind+"sha256:"), "request %d is %s", i+2, asked[i+1])
		fetched = append(fetched, digest.Digest(path.Base(asked[i+1])))
	}
	head, ofTag := "HEAD "+repository+"manifests/layered", fetched[0]
	q.Fact("asked", []string{head, "then 2 manifests and 3 blobs by digest"})

	q.Step("each answer is a file, whose name is its digest, and there is no other; no ingest is left")
	contentOf := map[digest.Digest][]byte{}
	for _, name := range fetched {
		contentOf[name] = blob(q, d, name)
	}
	assert.Check(q, cmp.DeepEqual(file.Names(q, blobs(d)), encoded(fetched)))
	assert.Check(q, cmp.Len(file.Names(q, filepath.Join(d.Root, "io.containerd.content.v1.content/ingest")), 0))
	assert.Check(q, cmp.DeepEqual(strings.Fields(d.Ctr("content", "ls", "-q").Stdout), named256(encoded(fetched))))
	q.Fact("blobs", len(fetched))
	q.Fact("ingests", "none")

	q.Step("labels lead from blob to blob, and from the config to the snapshots")
	var manifest v1.Manifest
	unmarshal(q, contentOf[fetched[1]], &manifest)
	var config v1.Image
	unmarshal(q, contentOf[manifest.Config.Digest], &config)
	chains := identity.ChainIDs(slices.Clone(config.RootFS.DiffIDs))
	want := map[digest.Digest]map[string]string{
		ofTag:      {"gc.ref.content.m.0": fetched[1].String()},
		fetched[1]: {"gc.ref.content.config": manifest.Config.Digest.String()},
		manifest.Config.Digest: {
			"gc.ref.snapshot.overlayfs": chains[1].String(),
		},
	}
	assert.Assert(q, cmp.Len(manifest.Layers, 2))
	for i, l := range manifest.Layers {
		want[fetched[1]]["gc.ref.content.l."+fmt.Sprint(i)] = l.Digest.String()
		want[l.Digest] = map[string]string{"uncompressed": config.RootFS.DiffIDs[i].String()}
	}
	for name, labels := range want {
		labels["distribution.source.docker.io"] = "library/busybox"
		assert.Check(q, cmp.DeepEqual(blobLabels(q, d, name), labels), "labels of %s", name)
	}
	q.Fact("labels of the index", slices.Sorted(maps.Keys(want[ofTag])))
	q.Fact("labels of the manifest", slices.Sorted(maps.Keys(want[fetched[1]])))
	q.Fact("labels of the config", slices.Sorted(maps.Keys(want[manifest.Config.Digest])))
	q.Fact("labels of a layer", slices.Sorted(maps.Keys(want[manifest.Layers[0].Digest])))

	q.Step("a committed snapshot for each layer, and a directory for each snapshot")
	dirs := filepath.Join(snapshotterDir(d, "overlayfs"), "snapshots")
	for _, chain := range chains {
		info, err := d.Client().SnapshotService("overlayfs").Stat(context.Background(), chain.String())
		assert.NilError(q, err)
		// An older client's unpacking leaves no labels.
		if ref, ok := info.Labels["containerd.io/snapshot.ref"]; ok || q.Pinned() {
			assert.Check(q, cmp.Equal(ref, chain.String()))
		}
		q.Fact("labels of a snapshot", slices.Sorted(maps.Keys(info.Labels)))
	}
	listed := d.Ctr("snapshots", "ls").Stdout
	assert.Check(q, cmp.Equal(strings.Count(listed, "Committed"), 2), listed)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2))
	q.Fact("snapshots", 2)

	q.Step("the image is a name for what the tag was, and no lease is needed any more")
	assert.Check(q, cmp.Equal(check.TableRow(q, d.Ctr("images", "ls").Stdout, image.Layered)[2], ofTag.String()))
	assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr("leases", "ls", "-q").Stdout), ""))
	d.CollectGarbage()
	assert.Check(q, cmp.DeepEqual(file.Names(q, blobs(d)), encoded(fetched)), "after a garbage collection")
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "after a garbage collection")
	q.Fact("after a garbage collection", "all of it")

	q.Step("a second pull asks what the tag is now, and for nothing else")
	before := stats(q, blobs(d))
	asked = pull(d)
	assert.Check(q, cmp.DeepEqual(asked, []string{head}))
	assert.Check(q, cmp.DeepEqual(stats(q, blobs(d)), before), "the blobs' inodes and times")
	q.Fact("asked by a second pull", asked)

	q.Step("a pull in another containerd namespace fetches nothing either: blobs are one set, unpacked snapshots are not")
	other := d.InNamespace("cdb-lab-other")
	assert.Check(q, cmp.Equal(strings.TrimSpace(other.Ctr("content", "ls", "-q").Stdout), ""), "content of another namespace, before its pull")
	asked = pull(other)
	assert.Check(q, cmp.DeepEqual(asked, []string{head}))
	assert.Check(q, cmp.DeepEqual(stats(q, blobs(d)), before), "the blobs' inodes and times")
	assert.Check(q, cmp.DeepEqual(strings.Fields(other.Ctr("content", "ls", "-q").Stdout), named256(encoded(fetched))))
	assert.Check(q, cmp.Len(file.Names(q, dirs), 4))
	q.Fact("asked by a pull in another namespace", asked)
	q.Fact("directories of snapshots in both", len(file.Names(q, dirs)))
	other.Ctr("images", "rm", "--sync", image.Layered)

	q.Control("one blob is taken out of the content store: the pull fetches that one again")
	forget(q, d, manifest.Config.Digest)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 0), "the config's label was what held the snapshots")
	asked = pull(d)
	assert.Check(q, cmp.DeepEqual(asked, []string{head, "GET " + repository + "blobs/" + manifest.Config.Digest.String()}))
	assert.Check(q, cmp.DeepEqual(file.Names(q, blobs(d)), encoded(fetched)))
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "unpacked again")
	q.Fact("asked after the config was removed", []string{head, "GET the config"})

	q.Control("a layer is taken out: its snapshot, which stays, may be enough")
	layer := manifest.Layers[1].Digest
	forget(q, d, layer)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "its snapshot stays")
	asked = pull(d)
	again := slices.Contains(asked, "GET "+repository+"blobs/"+layer.String())
	if again {
		assert.Check(q, cmp.DeepEqual(asked, []string{head, "GET " + repository + "blobs/" + layer.String()}))
		q.Fact("asked after a layer was removed", []string{head, "GET the layer"})
	} else {
		assert.Check(q, cmp.DeepEqual(asked, []string{head}))
		q.Fact("asked after a layer was removed", asked)
	}
	_, err := os.Stat(filepath.Join(blobs(d), layer.Encoded()))
	assert.Check(q, cmp.Equal(err == nil, again), "the layer's blob: %v", err)
	if q.Pinned() {
		assert.Check(q, !again, "containerd's transfer service fetched a layer whose snapshot is there")
	}

	q.Answer("Blobs by digest, snapshots by chain ID, a name, and labels that hold them together. What is there is not fetched again.")
}

// forget takes a blob out of the content store, and off the disk.
func forget(q *lab.Q, d *ctrd.Daemon, name digest.Digest) {
	q.Helper()
	d.Ctr("content", "rm", name.String())
	d.CollectGarbage()
	path := filepath.Join(blobs(d), name.Encoded())
	assert.Assert(q, !file.Exists(path), "%s is still there", path)
}

// blobLabels are the labels of a blob, without what all their names begin with.
func blobLabels(q *lab.Q, d *ctrd.Daemon, name digest.Digest) map[string]string {
	q.Helper()
	info, err := d.Client().ContentStore().Info(context.Background(), name)
	assert.NilError(q, err)
	out := map[string]string{}
	for k, v := range info.Labels {
		out[strings.TrimPrefix(k, "containerd.io/")] = v
	}
	return out
}

// encoded lists digests as files are named by them, sorted.
func encoded(names []digest.Digest) []string {
	var out []string
	for _, n := range names {
		out = append(out, n.Encoded())
	}
	slices.Sort(out)
	return out
}

// named256 are the digests of files that are named by them.
func named256(files []string) []string {
	var out []string
	for _, f := range files {
		out = append(out, digest.NewDigestFromEncoded(digest.SHA256, f).String())
	}
	return out
}

// stats is what tells whether a directory's files were written again: inode, size and time of each.
func stats(q *lab.Q, dir string) map[string]string {
	q.Helper()
	out := map[string]string{}
	for _, name := range file.Names(q, dir) {
		out[name] = inodeOf(q, filepath.Join(dir, name))
	}
	return out
}

func inodeOf(q *lab.Q, path string) string {
	q.Helper()
	var st unix.Stat_t
	assert.NilError(q, unix.Stat(path, &st))
	return fmt.Sprintf("inode %d, %d bytes, changed %d.%09d", st.Ino, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
}
