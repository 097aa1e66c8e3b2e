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
	"gotest.tools/v3/poll"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// A pull leaves a file for each blob that it fetched, a directory for each layer that it unpacked, and records and labels that protect
// them from the garbage collector.
//
// The pull asks for the tag once, with a HEAD request, and receives a digest. From then on it asks for everything by digest, and does
// not ask for what is on the disk already. Labels lead from the index to the manifest, from the manifest to the config and the layers,
// and from the config to the uppermost snapshot. So the image's record, which is a name for the index, protects all of them. A download
// in progress is an ingest. It is gone when the download is complete, and so is the lease that protected everything before there was a
// record.
//
// Hint: `ctr content ls`, `ctr snapshots info`, and the registry's log.
// Spec: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull,
// https://github.com/containerd/containerd/blob/main/docs/content-flow.md#labels
func TestTask_WhatDoesAPullLeaveBehind(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a pull leave behind?")
	defer q.Recover()
	if _, ours := q.Image(); !ours {
		q.Skipf("only the lab's own registry records its requests: unset CDB_IMAGE")
	}
	d := ctrd.Start(q)
	registry := image.Serve(q)
	p := &layeredPulls{registry: registry, hosts: registry.HostsDir(q), proxy: d.StartProxy()}
	dirs := d.SnapshotsDir()

	q.Step("pull an image of two layers: the registry is asked for the tag once, and for all else by its digest")
	asked := p.pull(d)
	head := "HEAD " + busyboxRepository + "manifests/layered"
	byTransfer := slices.Contains(p.proxy.TakeCalls(), "Transfer/Transfer")
	q.Fact("pulled by containerd's transfer service", byTransfer)
	fetched := recordAsked(q, asked, head)

	q.Step("look at the content store: each answer is a file, whose name is its digest, and no other file and no ingest is there")
	contentOf := map[digest.Digest]string{}
	for _, blob := range fetched {
		contentOf[blob] = string(d.ReadBlob(blob))
	}
	blobs := ctrd.BlobFiles(fetched)
	assert.Check(q, cmp.DeepEqual(file.Names(q, d.BlobDir()), blobs))
	ingests := file.Names(q, d.IngestDir())
	assert.Check(q, cmp.Len(ingests, 0), "ingests after the pull")
	assert.Check(q, cmp.DeepEqual(strings.Fields(d.Ctr("content", "ls", "-q").Stdout), ctrd.BlobDigests(blobs)))
	q.Fact("blobs", len(fetched))
	q.Fact("ingests", ingests)

	q.Step("read the labels: they lead from blob to blob, and from the config to the snapshots")
	img := parseLayered(q, fetched, contentOf)
	recordBlobLabels(q, d, img)

	q.Step("look at the snapshots: each layer has a committed one, and each snapshot has a directory")
	recordSnapshotLabels(q, d, img.chainIDs, byTransfer)
	listed := d.Ctr("snapshots", "ls").Stdout
	assert.Check(q, cmp.Equal(strings.Count(listed, "Committed"), 2), listed)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2))
	q.Fact("snapshots: directories", len(file.Names(q, dirs)))

	q.Step("look at image and leases: the image is a name for what the tag was, and no lease is needed any more")
	assert.Check(q, cmp.Equal(check.TableCell(q, d.Ctr("images", "ls").Stdout, image.Layered, 2), img.index.String()))
	assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr("leases", "ls", "-q").Stdout), ""))
	d.CollectGarbage()
	collected := file.Names(q, d.BlobDir())
	assert.Check(q, cmp.DeepEqual(collected, blobs), "blobs after a garbage collection")
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "directories of snapshots after a garbage collection")
	q.Fact("after a garbage collection: blobs, and directories of snapshots", []int{len(collected), len(file.Names(q, dirs))})

	q.Step("pull again: the registry is asked what the tag is now, and for nothing else")
	before := file.StatDir(q, d.BlobDir())
	asked = p.pull(d)
	assert.Check(q, cmp.DeepEqual(asked, []string{head}))
	assert.Check(q, cmp.DeepEqual(file.StatDir(q, d.BlobDir()), before), "the blobs' inodes and times")
	q.Fact("asked by a second pull", asked)

	q.Step("pull in another containerd namespace: nothing is fetched, because namespaces share their blobs, but the layers are unpacked again")
	other := d.InNamespace("cdb-lab-other")
	assert.Check(q, cmp.Equal(strings.TrimSpace(other.Ctr("content", "ls", "-q").Stdout), ""),
		"content of another namespace, before its pull")
	asked = p.pull(other)
	assert.Check(q, cmp.DeepEqual(asked, []string{head}))
	assert.Check(q, cmp.DeepEqual(file.StatDir(q, d.BlobDir()), before), "the blobs' inodes and times")
	assert.Check(q, cmp.DeepEqual(strings.Fields(other.Ctr("content", "ls", "-q").Stdout), ctrd.BlobDigests(blobs)))
	assert.Check(q, cmp.Len(file.Names(q, dirs), 4))
	q.Fact("asked by a pull in another namespace", asked)
	q.Fact("directories of snapshots in both", len(file.Names(q, dirs)))
	other.Ctr("images", "rm", "--sync", image.Layered)

	q.Control("take one blob out of the content store: the next pull fetches this blob again")
	removeBlob(q, d, img.config)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 0), "snapshots, which the label of the config held")
	asked = p.pull(d)
	assert.Check(q, cmp.DeepEqual(asked, []string{head, "GET " + busyboxRepository + "blobs/" + img.config.String()}))
	assert.Check(q, cmp.DeepEqual(file.Names(q, d.BlobDir()), blobs))
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "unpacked again")
	q.Fact("asked after the config was removed", withoutDigests(asked))

	q.Control("take a layer out: the transfer service finds its snapshot and does not fetch it; ctr by itself fetches it again")
	layer := img.layers[1]
	removeBlob(q, d, layer)
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2), "its snapshot stays")
	asked = p.pull(d)
	again := []string{head}
	// The transfer service unpacks as it fetches, and fetches no layer whose snapshot is there. ctr's own pull fetches first.
	if !byTransfer {
		again = append(again, "GET "+busyboxRepository+"blobs/"+layer.String())
	}
	assert.Check(q, cmp.DeepEqual(asked, again), "requests after a layer was removed")
	assert.Check(q, cmp.Equal(file.Exists(d.BlobPath(layer)), !byTransfer), "the layer's blob exists")
	q.Fact("asked after a layer was removed", withoutDigests(asked))

	q.Answer("A pull leaves blobs, which are named by their digest, snapshots, which are named by their chain ID, a name for the " +
		"image, and labels that hold them together. What is there is not fetched again.")
}

// containerd's transfer service unpacks a layer as soon as this layer is fetched, while the next one is on its way. `ctr images pull
// --local` fetches all layers first, and then unpacks them.
//
// Since containerd 2.0, ctr asks the transfer service by default. With --local, and by default in older releases, ctr makes a call of
// its own for each blob and each snapshot. A client may do as the transfer service does: Pull of the Go client, with WithPullUnpack,
// unpacks while it fetches. By default, one layer is unpacked after the other, the lowest first, because each snapshot has the one
// below it as its parent. Since containerd 2.2, the setting max_concurrent_unpacks allows more at once.
//
// The registry of this question holds the second layer back, until the question releases it.
//
// Hint: `ctr snapshots ls` and `ctr content active` during a pull of a large image.
// Spec: https://github.com/containerd/containerd/blob/main/docs/transfer.md#transfer-operations,
// https://github.com/opencontainers/image-spec/blob/main/layer.md#applying-changesets
func TestTask_WhenIsALayerUnpacked(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "When is a layer of an image unpacked?")
	defer q.Recover()
	if _, ours := q.Image(); !ours {
		q.Skipf("only the lab's own registry can hold a layer back: unset CDB_IMAGE")
	}
	d := ctrd.Start(q)
	registry := image.Serve(q)
	p := &heldPulls{verifiedPulls{q, d, registry}, registry.HostsDir(q), d.StartProxy(), nil}
	d.Ctr("--address", p.proxy.Address, "images", "pull", "--hosts-dir", p.hosts, image.Layered)
	byTransfer := slices.Contains(p.proxy.TakeCalls(), "Transfer/Transfer")
	q.Fact("pulled by containerd's transfer service", byTransfer)
	p.layers = d.LayerDigests(image.Layered)
	assert.Assert(q, cmp.Len(p.layers, 2))
	p.forget()

	if byTransfer {
		q.Step("pull by the transfer service: the first layer is unpacked while the registry holds the second back")
		pulling, release := p.begin()
		proc.WaitFor(q, d.HasCommittedSnapshots(1))
		assert.Check(q, !file.Exists(d.BlobPath(p.layers[1])), "the second layer is in the content store, although the registry holds it back")
		assert.Check(q, !pulling.Ended(), "ctr has ended, although the registry holds the second layer back: %s", pulling.Stderr())
		q.Fact("transfer service, second layer held back: committed snapshots", d.CommittedSnapshots())
		release()
		assert.Assert(q, cmp.Equal(pulling.ExitCode(), 0), "%s", pulling.Stderr())
		assert.Check(q, slices.Contains(p.proxy.TakeCalls(), "Transfer/Transfer"), "ctr has not called the transfer service")
		p.forget()
	}

	q.Control("pull by ctr itself: nothing is unpacked while the registry holds the second layer back")
	pulling, release := p.begin(map[bool][]string{true: {"--local"}}[byTransfer]...)
	proc.WaitFor(q, file.DirHas(d.BlobDir(), p.layers[0].Encoded()))
	d.Ctr("content", "ls") // a moment, in which the layer would be unpacked
	assert.Check(q, cmp.Equal(d.CountContents()["snapshots"], 0), "snapshots while the registry holds the second layer back")
	q.Fact("ctr itself, second layer held back: snapshots", d.CountContents()["snapshots"])
	release()
	assert.Assert(q, cmp.Equal(pulling.ExitCode(), 0), "%s", pulling.Stderr())
	assert.Check(q, cmp.Equal(d.CommittedSnapshots(), 2), "committed snapshots after the pull")
	assert.Check(q, !slices.Contains(p.proxy.TakeCalls(), "Transfer/Transfer"), "ctr has called the transfer service")

	q.Answer("containerd's transfer service unpacks a layer as soon as it is fetched, while the next one is on its way. ctr by itself, as " +
		"with --local, fetches all layers before it unpacks the first.")
}

// heldPulls pull the image of two layers from a registry that holds the second layer back.
type heldPulls struct {
	verifiedPulls
	hosts  string
	proxy  *ctrd.Proxy // it shows whether the daemon's transfer service pulls, or ctr itself
	layers []digest.Digest
}

// begin begins a pull, and waits until the registry was asked for the second layer. It sends the layer after release.
func (p *heldPulls) begin(flags ...string) (pulling *lab.Background, release func()) {
	q, d := p.q, p.d
	q.Helper()
	blob := "blobs/" + p.layers[1].String()
	release = p.registry.Hold(blob)
	asked := len(p.registry.Requests())
	argv := append([]string{"ctr", "--address", p.proxy.Address, "-n", d.Namespace, "images", "pull", "--hosts-dir", p.hosts}, flags...)
	pulling = q.StartBackground(append(argv, image.Layered)...)
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		requests := p.registry.Requests()[asked:]
		switch {
		case slices.Contains(requests, "GET "+busyboxRepository+blob):
			return poll.Success()
		case pulling.Ended():
			return poll.Error(fmt.Errorf("ctr has ended: %s", pulling.Stderr()))
		}
		return poll.Continue("the registry was not asked for the second layer: %q", requests)
	})
	return pulling, release
}

// busyboxRepository is the path of the image's repository in the registry.
const busyboxRepository = "/v2/library/busybox/"

// layeredPulls pulls the image of two layers, again and again.
type layeredPulls struct {
	registry *image.Registry
	hosts    string
	proxy    *ctrd.Proxy // it shows whether the daemon's transfer service pulls, or ctr itself
	known    int         // requests of earlier pulls
}

// pull pulls the image and returns what the registry was asked for.
func (p *layeredPulls) pull(d *ctrd.Daemon) []string {
	d.Ctr("--address", p.proxy.Address, "images", "pull", "--hosts-dir", p.hosts, image.Layered)
	all := p.registry.Requests()
	requests := all[p.known:]
	p.known = len(all)
	return requests
}

// recordAsked asserts that a pull has asked for the tag first, and then for five blobs by digest. It returns their digests.
func recordAsked(q *lab.Q, asked []string, head string) []digest.Digest {
	assert.Assert(q, len(asked) > 0, "the registry was asked for nothing")
	assert.Check(q, cmp.Equal(asked[0], head))
	first, fetched := withoutRepeats(q, asked)
	assert.Assert(q, cmp.Len(fetched, 5), "%q", asked)
	for i, kind := range []string{"manifests/", "manifests/", "blobs/", "blobs/", "blobs/"} {
		request := "GET " + busyboxRepository + kind + fetched[i].String()
		assert.Check(q, cmp.Contains(asked, request), "number %d of what was fetched", i+1)
	}
	q.Fact("asked", withoutDigests(first))
	return fetched
}

// withoutRepeats returns the requests of a pull, without those that were made again, and the digests of what was fetched: index and
// manifest in order, then config and layers as they come.
func withoutRepeats(q *lab.Q, asked []string) (first []string, fetched []digest.Digest) {
	first = []string{asked[0]}
	for _, request := range asked[1:] {
		assert.Check(q, strings.Contains(request, "sha256:"), "after the tag, another request than by digest: %s", request)
		// A client asks for a blob once more if its connection was cut, or if it checks by a HEAD that the blob is there.
		if blob := digest.Digest(path.Base(request)); strings.HasPrefix(request, "GET ") && !slices.Contains(fetched, blob) {
			fetched, first = append(fetched, blob), append(first, request)
		}
	}
	return first, fetched
}

// withoutDigests returns requests without their digests, which are those of the image: "GET …manifests/", once for each manifest.
func withoutDigests(requests []string) []string {
	out := []string{}
	for _, request := range requests {
		before, _, _ := strings.Cut(request, "sha256:")
		out = append(out, strings.Replace(before, busyboxRepository, "", 1))
	}
	return out
}

// layeredImage is the image of two layers, by the digests of its blobs.
type layeredImage struct {
	index, manifest, config digest.Digest
	layers                  []digest.Digest
	diffIDs, chainIDs       []digest.Digest // of the layers
}

// parseLayered reads index, manifest and config. The first two of the digests are those of index and manifest.
func parseLayered(q *lab.Q, fetched []digest.Digest, contentOf map[digest.Digest]string) layeredImage {
	var manifest v1.Manifest
	check.DecodeJSON(q, contentOf[fetched[1]], &manifest)
	var config v1.Image
	check.DecodeJSON(q, contentOf[manifest.Config.Digest], &config)
	assert.Assert(q, cmp.Len(config.RootFS.DiffIDs, 2))
	assert.Assert(q, cmp.Len(manifest.Layers, 2))
	return layeredImage{
		index: fetched[0], manifest: fetched[1], config: manifest.Config.Digest,
		layers:   []digest.Digest{manifest.Layers[0].Digest, manifest.Layers[1].Digest},
		diffIDs:  config.RootFS.DiffIDs,
		chainIDs: identity.ChainIDs(slices.Clone(config.RootFS.DiffIDs)),
	}
}

// labels returns the labels that each blob must have, without their prefix containerd.io/.
func (img layeredImage) labels() map[digest.Digest]map[string]string {
	want := map[digest.Digest]map[string]string{
		img.index:    {"gc.ref.content.m.0": img.manifest.String()},
		img.manifest: {"gc.ref.content.config": img.config.String()},
		img.config:   {"gc.ref.snapshot.overlayfs": img.chainIDs[1].String()},
	}
	for i, layer := range img.layers {
		want[img.manifest]["gc.ref.content.l."+fmt.Sprint(i)] = layer.String()
		want[layer] = map[string]string{"uncompressed": img.diffIDs[i].String()}
	}
	for _, labels := range want {
		labels["distribution.source.docker.io"] = "library/busybox"
	}
	return want
}

// recordBlobLabels asserts that each blob of the image has the labels that it must have, and no others.
func recordBlobLabels(q *lab.Q, d *ctrd.Daemon, img layeredImage) {
	want := img.labels()
	for blob, labels := range want {
		info, err := d.Client().ContentStore().Info(context.Background(), blob)
		assert.NilError(q, err)
		got := map[string]string{}
		for name, value := range info.Labels {
			got[strings.TrimPrefix(name, "containerd.io/")] = value
		}
		assert.Check(q, cmp.DeepEqual(got, labels), "labels of %s", blob)
	}
	q.Fact("labels of the index", slices.Sorted(maps.Keys(want[img.index])))
	q.Fact("labels of the manifest", slices.Sorted(maps.Keys(want[img.manifest])))
	q.Fact("labels of the config", slices.Sorted(maps.Keys(want[img.config])))
	q.Fact("labels of a layer", slices.Sorted(maps.Keys(want[img.layers[0]])))
}

// recordSnapshotLabels records the labels of the snapshot of each layer.
func recordSnapshotLabels(q *lab.Q, d *ctrd.Daemon, chainIDs []digest.Digest, byTransfer bool) {
	for i, chainID := range chainIDs {
		info, err := d.Client().SnapshotService("overlayfs").Stat(context.Background(), chainID.String())
		assert.NilError(q, err)
		if byTransfer { // a client that unpacks by itself may set no labels
			const label = "containerd.io/snapshot.ref"
			assert.Check(q, cmp.Equal(info.Labels[label], chainID.String()), "the snapshot's label %s", label)
		}
		q.Fact(fmt.Sprintf("snapshot of layer %d: labels", i+1), slices.Sorted(maps.Keys(info.Labels)))
	}
}

// removeBlob takes a blob out of the content store and off the disk.
func removeBlob(q *lab.Q, d *ctrd.Daemon, blob digest.Digest) {
	q.Helper()
	d.Ctr("content", "rm", blob.String())
	d.CollectGarbage()
	assert.Assert(q, !file.Exists(d.BlobPath(blob)), "%s is still there", d.BlobPath(blob))
}

// containerd verifies what it pulls: its content store hashes the bytes that it receives, and commits no blob whose size or digest is
// not the requested one. It trusts the registry only in which digest a tag names. A pull by digest does not need even this trust.
//
// The tag names an index. The index names the manifest by digest, and the manifest names config and layers by digest. When containerd
// unpacks a layer, it compares the uncompressed bytes with the diff ID in the image's config.
//
// A failed download stays as an ingest: a partial file outside of blobs/. The garbage collection deletes it. By default this happens
// soon after the failed pull, when containerd deletes the pull's lease, which keeps its files from the garbage collector. This question
// collects garbage only on demand. Until then, the next pull continues the ingest and asks only for the missing bytes. An ingest that
// is complete but wrong has no missing bytes. So the next pull fails as well, and does not ask the registry for this blob.
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
	registry := image.Serve(q)
	p := &verifiedPulls{q: q, d: d, registry: registry}
	pull := []string{"images", "pull", "--hosts-dir", registry.HostsDir(q)}

	q.Step("pull from an honest registry: each file in blobs/sha256 has the digest that is its name")
	d.Ctr(append(pull, ref)...)
	honest := p.state()
	q.Fact("from an honest registry: counts", honest)
	img := p.readImage(ref)
	assert.Check(q, cmp.DeepEqual(honest, map[string]int{"images": 1, "blobs": 4, "snapshots": 1, "ingests": 0}))
	layer := img.layer

	q.Step("pull from a registry that lies: each pull fails, and no wrong blob, no image and no snapshot is there after it")
	for _, lie := range liesAbout(img) {
		p.forget()
		body := lie.change(slices.Clone(img.content[lie.blob]))
		registry.Substitute(lie.kind+lie.blob.String(), image.Substitute{Body: body, MediaType: lie.mediaType})
		failed := d.Refused(lie.words, append(pull, ref)...)
		now := p.state()
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
	p.forget()
	d.Ctr(append(pull, ref)...)
	assert.Check(q, cmp.Contains(registry.Requests()[before:], asked))
	assert.Check(q, cmp.DeepEqual(p.state(), honest), "after the garbage was collected, from the honest registry")
	q.Fact("honest registry, with the wrong ingest: error of the pull", ctrd.ShortCtrError(poisoned))
	q.Fact("honest registry, without the wrong ingest: counts", p.state())
	p.forget()

	q.Step("break off the download of a layer: the ingest keeps what was received, and the next pull asks only for the rest")
	ofLayer := "blobs/" + layer.Digest.String()
	registry.Substitute(ofLayer, image.Substitute{Body: img.content[layer.Digest], BreakOff: layer.Size / 2})
	broken := d.Refused("unexpected EOF", append(pull, ref)...)
	ingest, err := d.Client().ContentStore().Status(context.Background(), "layer-"+layer.Digest.String())
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(ingest.Offset, layer.Size/2), "bytes of the layer in the ingest")
	registry.Substitute(ofLayer, image.Substitute{Body: img.content[layer.Digest]})
	ranges := len(registry.Ranges())
	d.Ctr(append(pull, ref)...)
	rest := registry.Ranges()[ranges:]
	assert.Check(q, cmp.DeepEqual(rest, []string{fmt.Sprintf("bytes=%d-", ingest.Offset)}), "ranges that were asked for")
	assert.Check(q, cmp.DeepEqual(p.state(), honest), "after the download was continued")
	q.Fact("download broken off: error of the pull", ctrd.ShortCtrError(broken))
	q.Fact("download broken off: bytes of the layer in the ingest", fmt.Sprint(ingest.Offset, " of ", layer.Size))
	q.Fact("download continued: range in the request", rest)
	p.forget()

	q.Step("let the tag name another image: containerd believes the registry, and only a pull by digest gets the intended image")
	d.Ctr(append(pull, image.Layered)...)
	other := p.target(image.Layered)
	registry.Substitute("manifests/latest", image.Substitute{Body: d.ReadBlob(other), MediaType: v1.MediaTypeImageIndex, Digest: other})
	d.Ctr(append(pull, ref)...)
	assert.Check(q, cmp.Equal(p.target(ref), other), "the index that the tag names")
	byDigest := strings.TrimSuffix(ref, ":latest") + "@" + img.index.String()
	before = len(registry.Requests())
	d.Ctr(append(pull, byDigest)...)
	assert.Check(q, cmp.Equal(p.target(byDigest), img.index), "the index of a pull by digest")
	assert.Check(q, !slices.ContainsFunc(registry.Requests()[before:], func(r string) bool { return strings.HasSuffix(r, "/latest") }),
		"a pull by digest asked for a tag: %v", registry.Requests()[before:])
	q.Fact("pull by tag: the intended image", p.target(ref) == img.index)
	q.Fact("pull by digest: the intended image", p.target(byDigest) == img.index)

	q.Control("the tag names the first image again: the next pull moves the name back")
	registry.BeHonest()
	d.Ctr(append(pull, ref)...)
	assert.Check(q, cmp.Equal(p.target(ref), img.index), "the index that the tag names again")
	q.Fact("pull by tag, after the tag was corrected: the intended image", p.target(ref) == img.index)
	p.forget()

	q.Step("pull an image whose config names another diff ID than the layer has: all digests are right, and unpacking fails")
	p.serveWithDiffID(img, digest.FromString("another layer"))
	mismatch := d.Refused("wrong diff id", append(pull, ref)...)
	unpacked := p.state()
	assert.Check(q, cmp.Equal(unpacked["snapshots"], 0), "snapshots after a wrong diff ID")
	q.Fact("a wrong diff ID: error of the pull", ctrd.ShortCtrError(mismatch))
	q.Fact("a wrong diff ID: snapshots", unpacked["snapshots"])

	q.Answer("containerd verifies what it pulls: its content store commits no blob whose size or digest is not the requested one, and it " +
		"compares a layer's diff ID when it unpacks the layer. It only believes which digest a tag names. A pull by digest does not need that.")
}

// verifiedPulls are pulls from a registry that can lie.
type verifiedPulls struct {
	q        *lab.Q
	d        *ctrd.Daemon
	registry *image.Registry
}

// state counts what there is: images and snapshots, blobs that are what their name says, and ingests.
func (p *verifiedPulls) state() map[string]int {
	q, d := p.q, p.d
	q.Helper()
	for _, name := range file.Names(q, d.BlobDir()) {
		d.ReadBlob(digest.NewDigestFromEncoded(digest.SHA256, name)) // fails unless the bytes have the digest
	}
	n := d.CountContents()
	n["ingests"] = len(file.Names(q, d.IngestDir()))
	delete(n, "containers")
	return n
}

// forget removes all that was pulled, and has the registry send what it has.
func (p *verifiedPulls) forget() {
	q, d := p.q, p.d
	q.Helper()
	for name := range strings.FieldsSeq(d.Ctr("images", "ls", "-q").Stdout) {
		d.Ctr("images", "rm", name)
	}
	d.CollectGarbage()
	nothing := map[string]int{"images": 0, "blobs": 0, "snapshots": 0, "ingests": 0}
	assert.Check(q, cmp.DeepEqual(p.state(), nothing), "after the garbage was collected")
	p.registry.BeHonest()
}

// target returns the digest of the index that an image's name stands for.
func (p *verifiedPulls) target(name string) digest.Digest {
	p.q.Helper()
	img, err := p.d.Client().GetImage(context.Background(), name)
	assert.NilError(p.q, err)
	return img.Target().Digest
}

// honestImage is the image as an honest registry sends it.
type honestImage struct {
	index, manifest, config digest.Digest
	layer                   v1.Descriptor
	diffID                  digest.Digest // of the layer
	content                 map[digest.Digest][]byte
}

// readImage reads an image of one layer from the content store.
func (p *verifiedPulls) readImage(ref string) honestImage {
	q, d := p.q, p.d
	img := honestImage{index: p.target(ref), content: map[digest.Digest][]byte{}}
	var listed v1.Index
	var manifest v1.Manifest
	var config v1.Image
	d.DecodeBlob(img.index, &listed)
	assert.Assert(q, cmp.Len(listed.Manifests, 1))
	img.manifest = listed.Manifests[0].Digest
	d.DecodeBlob(img.manifest, &manifest)
	img.config, img.layer = manifest.Config.Digest, manifest.Layers[0]
	d.DecodeBlob(img.config, &config)
	img.diffID = config.RootFS.DiffIDs[0]
	for _, blob := range []digest.Digest{img.index, img.manifest, img.config, img.layer.Digest} {
		img.content[blob] = d.ReadBlob(blob)
	}
	return img
}

// registryLie is a blob that the registry sends in place of the one that it is asked for.
type registryLie struct {
	what      string
	kind      string        // the word before the digest in the request
	mediaType string        // of an index or a manifest
	words     string        // that the error of the pull must have
	blob      digest.Digest // which the registry is asked for
	change    func([]byte) []byte
}

// liesAbout returns a lie about each blob of the image.
func liesAbout(img honestImage) []registryLie {
	const wrong = "unexpected commit digest"
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	longer := func(b []byte) []byte { return append(b, 0) }
	shorter := func(b []byte) []byte { return b[:len(b)-1] }
	return []registryLie{
		{"an index with another byte", "manifests/", v1.MediaTypeImageIndex, wrong, img.index, flip},
		{"a manifest with another byte", "manifests/", v1.MediaTypeImageManifest, wrong, img.manifest, flip},
		{"a config with another byte", "blobs/", "", wrong, img.config, flip},
		{"a layer that is a byte too long", "blobs/", "", "failed precondition", img.layer.Digest, longer},
		{"a layer that is a byte too short", "blobs/", "", "unexpected EOF", img.layer.Digest, shorter},
		{"a layer with another byte", "blobs/", "", wrong, img.layer.Digest, flip},
	}
}

// serveWithDiffID has the registry send a config that names another diff ID. Another config has another digest. So the manifest that
// names it changes, and the index that names the manifest, as well.
func (p *verifiedPulls) serveWithDiffID(img honestImage, wrong digest.Digest) {
	body, was := bytes.ReplaceAll(img.content[img.config], []byte(img.diffID), []byte(wrong)), img.config
	for _, blob := range []struct {
		kind, mediaType string
		within          digest.Digest // of the blob that refers to this one
	}{{"blobs/", "", img.manifest}, {"manifests/", v1.MediaTypeImageManifest, img.index}, {"manifests/", v1.MediaTypeImageIndex, ""}} {
		now := digest.FromBytes(body)
		s := image.Substitute{Body: body, MediaType: blob.mediaType, Digest: now}
		p.registry.Substitute(blob.kind+now.String(), s)
		if blob.within == "" {
			p.registry.Substitute("manifests/latest", s)
			break
		}
		body, was = bytes.ReplaceAll(img.content[blob.within], []byte(was), []byte(now)), blob.within
	}
}
