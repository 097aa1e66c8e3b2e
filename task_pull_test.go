//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path"
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
	"cdblab/helpers/file"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
)

// A file for each thing that it fetched, a directory for each layer that it unpacked, and records that hold on to them.
//
// The pull asks for the tag once, with a HEAD, and receives a digest; from there on everything is asked for by digest, and
// what is on the disk already is not asked for. Labels tie it all together: index to manifest, manifest to config and
// layers, config to the uppermost snapshot. The image's record, which is a name for the index, so keeps the rest from the
// garbage collector. A download in progress is an ingest, and is gone when it is done, as is the lease that held it all
// before there was a record.
//
// Hint: `ctr content ls`, `ctr snapshots info`, and the registry's log.
// Spec: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull,
// https://github.com/containerd/containerd/blob/main/docs/content-flow.md
func TestTask_WhatDoesAPullLeaveBehind(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a pull leave behind?")
	defer q.Recover()
	if _, ours := q.Image(); !ours {
		q.Skipf("only the lab's own registry records its requests: unset CDB_IMAGE")
	}
	d := ctrd.Start(q)
	registry := image.Serve(q)
	hosts := registry.HostsDir(q)
	known := 0              // requests of earlier pulls
	proxy := d.StartProxy() // it shows whether the daemon's transfer service pulls, or ctr itself
	// pull pulls the image and returns what the registry was asked for.
	pull := func(d *ctrd.Daemon) []string {
		d.Ctr("--address", proxy.Address, "images", "pull", "--hosts-dir", hosts, image.Layered)
		all := registry.Requests()
		requests := all[known:]
		known = len(all)
		return requests
	}
	// encoded returns the names of the blobs' files, sorted.
	encoded := func(blobs []digest.Digest) []string {
		var out []string
		for _, blob := range blobs {
			out = append(out, blob.Encoded())
		}
		slices.Sort(out)
		return out
	}

	q.Step("pull an image of two layers: the registry is asked for the tag once, and for all else by its digest")
	asked := pull(d)
	const repository = "/v2/library/busybox/"
	assert.Assert(q, len(asked) > 0, "the registry was asked for nothing")
	assert.Check(q, cmp.Equal(asked[0], "HEAD "+repository+"manifests/layered"))
	byTransfer := slices.Contains(proxy.TakeCalls(), "Transfer/Transfer")
	q.Fact("pulled by containerd's transfer service", byTransfer)
	first := []string{asked[0]} // requests, without those that were made again
	var fetched []digest.Digest // index and manifest in order, then config and layers as they come
	for _, request := range asked[1:] {
		assert.Check(q, strings.Contains(request, "sha256:"), "after the tag, another request than by digest: %s", request)
		// A client asks for a blob once more if its connection was cut, or if it checks by a HEAD that the blob is there.
		if blob := digest.Digest(path.Base(request)); strings.HasPrefix(request, "GET ") && !slices.Contains(fetched, blob) {
			fetched, first = append(fetched, blob), append(first, request)
		}
	}
	assert.Assert(q, cmp.Len(fetched, 5), "%q", asked)
	for i, kind := range []string{"manifests/", "manifests/", "blobs/", "blobs/", "blobs/"} {
		request := "GET " + repository + kind + fetched[i].String()
		assert.Check(q, cmp.Contains(asked, request), "number %d of what was fetched", i+1)
	}
	head, ofTag := "HEAD "+repository+"manifests/layered", fetched[0]
	// kinds returns requests without their digests, which are those of the image: "GET …manifests/", once for each manifest.
	kinds := func(requests []string) []string {
		out := []string{}
		for _, request := range requests {
			before, _, _ := strings.Cut(request, "sha256:")
			out = append(out, strings.Replace(before, repository, "", 1))
		}
		return out
	}
	q.Fact("asked", kinds(first))

	q.Step("look at the content store: each answer is a file, whose name is its digest, and no other file and no ingest is there")
	contentOf := map[digest.Digest]string{}
	for _, blob := range fetched {
		contentOf[blob] = string(d.ReadBlob(blob))
	}
	assert.Check(q, cmp.DeepEqual(file.Names(q, d.BlobDir()), encoded(fetched)))
	ingests := file.Names(q, d.IngestDir())
	assert.Check(q, cmp.Len(ingests, 0), "ingests after the pull")
	assert.Check(q, cmp.DeepEqual(strings.Fields(d.Ctr("content", "ls", "-q").Stdout), ctrd.BlobDigests(encoded(fetched))))
	q.Fact("blobs", len(fetched))
	q.Fact("ingests", ingests)

	q.Step("read the labels: they lead from blob to blob, and from the config to the snapshots")
	var manifest v1.Manifest
	check.DecodeJSON(q, contentOf[fetched[1]], &manifest)
	var config v1.Image
	check.DecodeJSON(q, contentOf[manifest.Config.Digest], &config)
	assert.Assert(q, cmp.Len(config.RootFS.DiffIDs, 2))
	chainIDs := identity.ChainIDs(slices.Clone(config.RootFS.DiffIDs))
	want := map[digest.Digest]map[string]string{
		ofTag:      {"gc.ref.content.m.0": fetched[1].String()},
		fetched[1]: {"gc.ref.content.config": manifest.Config.Digest.String()},
		manifest.Config.Digest: {
			"gc.ref.snapshot.overlayfs": chainIDs[1].String(),
		},
	}
	assert.Assert(q, cmp.Len(manifest.Layers, 2))
	for i, l := range manifest.Layers {
		want[fetched[1]]["gc.ref.content.l."+fmt.Sprint(i)] = l.Digest.String()
		want[l.Digest] = map[string]string{"uncompressed": config.RootFS.DiffIDs[i].String()}
	}
	for blob, labels := range want {
		labels["distribution.source.docker.io"] = "library/busybox"
		info, err := d.Client().ContentStore().Info(context.Background(), blob)
		assert.NilError(q, err)
		got := map[string]string{}
		for name, value := range info.Labels {
			got[strings.TrimPrefix(name, "containerd.io/")] = value
		}
		assert.Check(q, cmp.DeepEqual(got, labels), "labels of %s", blob)
	}
	q.Fact("labels of the index", slices.Sorted(maps.Keys(want[ofTag])))
	q.Fact("labels of the manifest", slices.Sorted(maps.Keys(want[fetched[1]])))
	q.Fact("labels of the config", slices.Sorted(maps.Keys(want[manifest.Config.Digest])))
	q.Fact("labels of a layer", slices.Sorted(maps.Keys(want[manifest.Layers[0].Digest])))

	q.Step("look at the snapshots: each layer has a committed one, and each snapshot has a directory")
	dirs := d.SnapshotsDir()
	for i, chainID := range chainIDs {
		info, err := d.Client().SnapshotService("overlayfs").Stat(context.Background(), chainID.String())
		assert.NilError(q, err)
		if byTransfer { // a client that unpacks by itself may set no labels
			const label = "containerd.io/snapshot.ref"
			assert.Check(q, cmp.Equal(info.Labels[label], chainID.String()), "the snapshot's label %s", label)
		}
		q.Fact(fmt.Sprintf("snapshot of layer %d: labels", i+1), slices.Sorted(maps.Keys(info.Labels)))
	}
	listed := d.Ctr("snapshots", "ls").Stdout
	assert.Check(q, cmp.Equal(strings.Count(listed, "Committed"), 2), listed)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2))
	q.Fact("snapshots: directories", len(file.Names(q, dirs)))

	q.Step("look at image and leases: the image is a name for what the tag was, and no lease is needed any more")
	assert.Check(q, cmp.Equal(check.TableCell(q, d.Ctr("images", "ls").Stdout, image.Layered, 2), ofTag.String()))
	assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr("leases", "ls", "-q").Stdout), ""))
	d.CollectGarbage()
	collected := file.Names(q, d.BlobDir())
	assert.Check(q, cmp.DeepEqual(collected, encoded(fetched)), "blobs after a garbage collection")
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "directories of snapshots after a garbage collection")
	q.Fact("after a garbage collection: blobs, and directories of snapshots", []int{len(collected), len(file.Names(q, dirs))})

	q.Step("pull again: the registry is asked what the tag is now, and for nothing else")
	before := file.StatDir(q, d.BlobDir())
	asked = pull(d)
	assert.Check(q, cmp.DeepEqual(asked, []string{head}))
	assert.Check(q, cmp.DeepEqual(file.StatDir(q, d.BlobDir()), before), "the blobs' inodes and times")
	q.Fact("asked by a second pull", asked)

	q.Step("pull in another containerd namespace: nothing is fetched, because namespaces share their blobs, but the layers are unpacked again")
	other := d.InNamespace("cdb-lab-other")
	assert.Check(q, cmp.Equal(strings.TrimSpace(other.Ctr("content", "ls", "-q").Stdout), ""),
		"content of another namespace, before its pull")
	asked = pull(other)
	assert.Check(q, cmp.DeepEqual(asked, []string{head}))
	assert.Check(q, cmp.DeepEqual(file.StatDir(q, d.BlobDir()), before), "the blobs' inodes and times")
	assert.Check(q, cmp.DeepEqual(strings.Fields(other.Ctr("content", "ls", "-q").Stdout), ctrd.BlobDigests(encoded(fetched))))
	assert.Check(q, cmp.Len(file.Names(q, dirs), 4))
	q.Fact("asked by a pull in another namespace", asked)
	q.Fact("directories of snapshots in both", len(file.Names(q, dirs)))
	other.Ctr("images", "rm", "--sync", image.Layered)

	q.Control("take one blob out of the content store: the next pull fetches this blob again")
	// remove takes a blob out of the content store and off the disk.
	remove := func(blob digest.Digest) {
		q.Helper()
		d.Ctr("content", "rm", blob.String())
		d.CollectGarbage()
		assert.Assert(q, !file.Exists(d.BlobPath(blob)), "%s is still there", d.BlobPath(blob))
	}
	remove(manifest.Config.Digest)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 0), "snapshots, which the label of the config held")
	asked = pull(d)
	assert.Check(q, cmp.DeepEqual(asked, []string{head, "GET " + repository + "blobs/" + manifest.Config.Digest.String()}))
	assert.Check(q, cmp.DeepEqual(file.Names(q, d.BlobDir()), encoded(fetched)))
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "unpacked again")
	q.Fact("asked after the config was removed", kinds(asked))

	q.Control("take a layer out: the transfer service finds its snapshot and does not fetch it; ctr by itself fetches it again")
	layer := manifest.Layers[1].Digest
	remove(layer)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "its snapshot stays")
	asked = pull(d)
	again := []string{head}
	// The transfer service unpacks as it fetches, and fetches no layer whose snapshot is there. ctr's own pull fetches first.
	if !byTransfer {
		again = append(again, "GET "+repository+"blobs/"+layer.String())
	}
	assert.Check(q, cmp.DeepEqual(asked, again), "requests after a layer was removed")
	assert.Check(q, cmp.Equal(file.Exists(d.BlobPath(layer)), !byTransfer), "the layer's blob exists")
	q.Fact("asked after a layer was removed", kinds(asked))

	q.Answer("It leaves blobs, which are named by their digest, snapshots, which are named by their chain ID, a name for the " +
		"image, and labels that hold them together. What is there is not fetched again.")
}

// containerd verifies what it pulls: its content store hashes the bytes that it receives, and commits no blob whose size or digest is not
// the requested one. It trusts the registry only in which digest a tag names. A pull by digest does not need even this trust.
//
// The tag names an index. The index names the manifest by digest, and the manifest names config and layers by digest. When containerd
// unpacks a layer, it compares the uncompressed bytes with the diff ID in the image's config.
//
// A failed download stays as an ingest: a partial file outside of blobs/. The garbage collection deletes it. By default this happens soon
// after the failed pull, when containerd deletes the pull's lease, which keeps its files from the garbage collector. This question collects
// garbage only on demand. Until then, the next pull continues the ingest and asks only for the missing bytes. An ingest that is complete
// but wrong has no missing bytes. So the next pull fails as well, and does not ask the registry for this blob.
//
// Hint: `ctr content active`; sha256sum of the files in blobs/sha256; the header Range in the registry's log.
// Spec: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests,
// https://github.com/opencontainers/image-spec/blob/main/config.md#layer-diffid,
// https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-blobs
func TestTask_WhoVerifiesWhatIsPulled(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who verifies what is pulled?")
	defer q.Recover()
	ref, ours := q.Image()
	if !ours {
		q.Skipf("only the lab's own registry can lie: unset CDB_IMAGE")
	}
	d := ctrd.Start(q, ctrd.WithConfig(ctrd.GarbageOnDemand))
	store := d.Client().ContentStore()
	registry := image.Serve(q)
	hosts := registry.HostsDir(q)
	pull := []string{"images", "pull", "--hosts-dir", hosts}
	// state counts what there is: images and snapshots, blobs that are what their name says, and ingests.
	state := func() map[string]int {
		q.Helper()
		for _, name := range file.Names(q, d.BlobDir()) {
			d.ReadBlob(digest.NewDigestFromEncoded(digest.SHA256, name)) // fails unless the bytes have the digest
		}
		n := d.CountContents()
		n["ingests"] = len(file.Names(q, d.IngestDir()))
		delete(n, "containers")
		return n
	}
	nothing := map[string]int{"images": 0, "blobs": 0, "snapshots": 0, "ingests": 0}
	// forget removes all that was pulled, and has the registry send what it has.
	forget := func() {
		q.Helper()
		for name := range strings.FieldsSeq(d.Ctr("images", "ls", "-q").Stdout) {
			d.Ctr("images", "rm", name)
		}
		d.CollectGarbage()
		assert.Check(q, cmp.DeepEqual(state(), nothing), "after the garbage was collected")
		registry.BeHonest()
	}
	target := func(name string) digest.Digest {
		q.Helper()
		img, err := d.Client().GetImage(context.Background(), name)
		assert.NilError(q, err)
		return img.Target().Digest
	}

	q.Step("pull from an honest registry: each file in blobs/sha256 has the digest that is its name")
	d.Ctr(append(pull, ref)...)
	honest := state()
	q.Fact("from an honest registry: counts", honest)
	index := target(ref)
	var listed v1.Index
	var manifest v1.Manifest
	var config v1.Image
	d.DecodeBlob(index, &listed)
	assert.Assert(q, cmp.Len(listed.Manifests, 1))
	ofManifest := listed.Manifests[0].Digest
	d.DecodeBlob(ofManifest, &manifest)
	d.DecodeBlob(manifest.Config.Digest, &config)
	assert.Check(q, cmp.DeepEqual(honest, map[string]int{"images": 1, "blobs": 4, "snapshots": 1, "ingests": 0}))
	layer := manifest.Layers[0]
	kept := map[digest.Digest][]byte{}
	for _, blob := range []digest.Digest{index, ofManifest, manifest.Config.Digest, layer.Digest} {
		kept[blob] = d.ReadBlob(blob)
	}

	q.Step("pull from a registry that lies: each pull fails, and no wrong blob, no image and no snapshot is there after it")
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	for _, lie := range []struct {
		what, kind, mediaType, words string
		blob                         digest.Digest
		change                       func([]byte) []byte
	}{
		{"an index with another byte", "manifests/", v1.MediaTypeImageIndex, "unexpected commit digest", index, flip},
		{"a manifest with another byte", "manifests/", v1.MediaTypeImageManifest, "unexpected commit digest", ofManifest, flip},
		{"a config with another byte", "blobs/", "", "unexpected commit digest", manifest.Config.Digest, flip},
		{"a layer that is a byte too long", "blobs/", "", "failed precondition", layer.Digest, func(b []byte) []byte { return append(b, 0) }},
		{"a layer that is a byte too short", "blobs/", "", "unexpected EOF", layer.Digest, func(b []byte) []byte { return b[:len(b)-1] }},
		{"a layer with another byte", "blobs/", "", "unexpected commit digest", layer.Digest, flip},
	} {
		forget()
		body := lie.change(slices.Clone(kept[lie.blob]))
		registry.Substitute(lie.kind+lie.blob.String(), image.Substitute{Body: body, MediaType: lie.mediaType})
		failed := d.Refused(lie.words, append(pull, ref)...)
		now := state()
		assert.Check(q, cmp.DeepEqual([]int{now["images"], now["snapshots"]}, []int{0, 0}), "images and snapshots after %s", lie.what)
		assert.Check(q, !file.Exists(d.BlobPath(lie.blob)), "a blob %s, after %s", lie.blob, lie.what)
		assert.Check(q, now["ingests"] > 0, "no ingest after %s", lie.what)
		q.Fact(lie.what+": error of the pull", ctrd.ShortCtrError(failed))
	}

	q.Step("pull from the honest registry: it fails without asking for the layer; collect the garbage, and pull again: the pull succeeds")
	registry.BeHonest()
	asked := "GET /v2/library/busybox/blobs/" + layer.Digest.String()
	before := len(registry.Requests())
	poisoned := d.Refused("unexpected commit digest", append(pull, ref)...)
	assert.Check(q, !slices.Contains(registry.Requests()[before:], asked), "the layer was asked for, although its ingest is complete")
	forget()
	d.Ctr(append(pull, ref)...)
	assert.Check(q, cmp.Contains(registry.Requests()[before:], asked))
	assert.Check(q, cmp.DeepEqual(state(), honest), "after the garbage was collected, from the honest registry")
	q.Fact("honest registry, with the wrong ingest: error of the pull", ctrd.ShortCtrError(poisoned))
	q.Fact("honest registry, without the wrong ingest: counts", state())
	forget()

	q.Step("break off the download of a layer: the ingest keeps what was received, and the next pull asks only for the rest")
	ofLayer := "blobs/" + layer.Digest.String()
	registry.Substitute(ofLayer, image.Substitute{Body: kept[layer.Digest], BreakOff: layer.Size / 2})
	broken := d.Refused("unexpected EOF", append(pull, ref)...)
	ingest, err := store.Status(context.Background(), "layer-"+layer.Digest.String())
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(ingest.Offset, layer.Size/2), "bytes of the layer in the ingest")
	registry.Substitute(ofLayer, image.Substitute{Body: kept[layer.Digest]})
	ranges := len(registry.Ranges())
	d.Ctr(append(pull, ref)...)
	rest := registry.Ranges()[ranges:]
	assert.Check(q, cmp.DeepEqual(rest, []string{fmt.Sprintf("bytes=%d-", ingest.Offset)}), "ranges that were asked for")
	assert.Check(q, cmp.DeepEqual(state(), honest), "after the download was continued")
	q.Fact("download broken off: error of the pull", ctrd.ShortCtrError(broken))
	q.Fact("download broken off: bytes of the layer in the ingest", fmt.Sprint(ingest.Offset, " of ", layer.Size))
	q.Fact("download continued: range in the request", rest)
	forget()

	q.Step("let the tag name another image: containerd believes the registry, and only a pull by digest gets the intended image")
	d.Ctr(append(pull, image.Layered)...)
	other := target(image.Layered)
	registry.Substitute("manifests/latest", image.Substitute{Body: d.ReadBlob(other), MediaType: v1.MediaTypeImageIndex, Digest: other})
	d.Ctr(append(pull, ref)...)
	assert.Check(q, cmp.Equal(target(ref), other), "the index that the tag names")
	byDigest := strings.TrimSuffix(ref, ":latest") + "@" + index.String()
	before = len(registry.Requests())
	d.Ctr(append(pull, byDigest)...)
	assert.Check(q, cmp.Equal(target(byDigest), index), "the index of a pull by digest")
	assert.Check(q, !slices.ContainsFunc(registry.Requests()[before:], func(r string) bool { return strings.HasSuffix(r, "/latest") }),
		"a pull by digest asked for a tag: %v", registry.Requests()[before:])
	q.Fact("pull by tag: the intended image", target(ref) == index)
	q.Fact("pull by digest: the intended image", target(byDigest) == index)

	q.Control("the tag names the first image again: the next pull moves the name back")
	registry.BeHonest()
	d.Ctr(append(pull, ref)...)
	assert.Check(q, cmp.Equal(target(ref), index), "the index that the tag names again")
	q.Fact("pull by tag, after the tag was corrected: the intended image", target(ref) == index)
	forget()

	q.Step("pull an image whose config names another diff ID than the layer has: all digests are right, and unpacking fails")
	wrong := digest.FromString("another layer")
	body := bytes.ReplaceAll(kept[manifest.Config.Digest], []byte(config.RootFS.DiffIDs[0]), []byte(wrong))
	was := manifest.Config.Digest
	// Another config has another digest. So the manifest that names it changes, and the index that names the manifest, as well.
	for _, blob := range []struct {
		kind, mediaType string
		within          digest.Digest // of the blob that refers to this one
	}{{"blobs/", "", ofManifest}, {"manifests/", v1.MediaTypeImageManifest, index}, {"manifests/", v1.MediaTypeImageIndex, ""}} {
		now := digest.FromBytes(body)
		s := image.Substitute{Body: body, MediaType: blob.mediaType, Digest: now}
		registry.Substitute(blob.kind+now.String(), s)
		if blob.within == "" {
			registry.Substitute("manifests/latest", s)
			break
		}
		body, was = bytes.ReplaceAll(kept[blob.within], []byte(was), []byte(now)), blob.within
	}
	mismatch := d.Refused("wrong diff id", append(pull, ref)...)
	unpacked := state()
	assert.Check(q, cmp.Equal(unpacked["snapshots"], 0), "snapshots after a wrong diff ID")
	q.Fact("a wrong diff ID: error of the pull", ctrd.ShortCtrError(mismatch))
	q.Fact("a wrong diff ID: snapshots", unpacked["snapshots"])

	q.Answer("containerd verifies what it pulls: its content store commits no blob whose size or digest is not the requested one, and it " +
		"compares a layer's diff ID when it unpacks the layer. It only believes which digest a tag names. A pull by digest does not need that.")
}
