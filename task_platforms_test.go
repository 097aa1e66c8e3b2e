//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
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

// A pull fetches the layers for one platform, by default that of the machine. ctr also fetches the small parts of the other
// platforms, the manifest and the config, unless --skip-metadata is given. ctr 1.7 does this only with --all-metadata.
//
// A tag names an index. The index lists a manifest for each platform, with its digest. So one reference serves all machines, and
// each machine fetches its own layers. Platforms may have layers in common, which are fetched once: a blob is found by its digest only.
// `ctr images ls` lists each platform of the index, also without its layers.
//
// The platform is what the author of the image has written. containerd compares it with the machine when it chooses a manifest.
// No program compares it with the instructions in the layers: the kernel refuses them at execve, or executes them. Since 2.0, a pull
// of an image that has nothing for the machine succeeds, without a layer. The mistake shows when a container is to be made.
//
// Hint: `ctr content ls`, `ctr images ls`, and the registry's log; pull with --platform linux/s390x.
// Spec: https://github.com/opencontainers/image-spec/blob/main/image-index.md#image-index-property-descriptions
func TestTask_WhatIsPulledOfAnImageForSeveralPlatforms(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What is pulled of an image for several platforms?")
	defer q.Recover()
	if _, ours := q.Image(); !ours {
		q.Skipf("only the lab's own registry has such an image: unset CDB_IMAGE")
	}
	d := ctrd.Start(q)
	registry := image.Serve(q)
	p := &platformPulls{q: q, d: d, registry: registry, hosts: registry.HostsDir(q)}
	files := func() []string { return file.Names(q, d.BlobDir()) }

	q.Step("pull the image for two platforms: of the layers, only that of this machine is fetched")
	tag, fetched := p.pull()
	assert.Check(q, cmp.Equal(tag, "HEAD /v2/library/busybox/manifests/platforms"))
	assert.Check(q, cmp.DeepEqual(files(), fetched), "files in blobs/sha256, and what the registry was asked for")
	ofTag := digest.Digest(check.TableCell(q, d.Ctr("images", "ls").Stdout, image.Platforms, 2))
	var index v1.Index
	d.DecodeBlob(ofTag, &index)
	assert.Assert(q, cmp.Len(index.Manifests, 2))
	var native, foreign v1.Manifest
	d.DecodeBlob(index.Manifests[0].Digest, &native)
	assert.Assert(q, cmp.Equal(len(native.Layers), 1))
	ofNative := []digest.Digest{ofTag, index.Manifests[0].Digest, native.Config.Digest, native.Layers[0].Digest}
	// ctr 1.7 fetches manifests and configs of other platforms only with --all-metadata.
	withMetadata := len(fetched) > len(ofNative)
	listed := check.TableCell(q, d.Ctr("images", "ls").Stdout, image.Platforms, 5)
	assert.Check(q, cmp.Contains(listed, image.Foreign), "platforms that ctr lists, without the layers of all")
	q.Fact("pull: ctr lists the other platform", strings.Contains(listed, image.Foreign))
	q.Fact("pull: blobs", len(fetched))
	q.Fact("pull: the manifest of the other platform is fetched", file.Exists(d.BlobPath(index.Manifests[1].Digest)))

	q.Step("ask for a container of the other platform: it is refused, because a blob is not there")
	run := append([]string{"run", "--rm"}, p.places()...)
	command := []string{q.ID("cdb-platform"), "sh", "-c", "uname -m; cat /etc/layer"}
	ofForeign := slices.Concat(run, []string{"--platform", image.Foreign, image.Platforms}, command)
	refused := d.Refused("not found", ofForeign...)
	q.Fact("ctr run --platform, before the pull for it: error", ctrd.ShortCtrError(refused))

	q.Step("pull for the other platform: only what is not there is fetched, and not the layer that both have")
	before := files()
	p.pullFor(image.Foreign)
	d.DecodeBlob(index.Manifests[1].Digest, &foreign)
	assert.Assert(q, cmp.Equal(len(foreign.Layers), 2))
	assert.Check(q, cmp.Equal(foreign.Layers[0].Digest, native.Layers[0].Digest), "the first layer, which both platforms have")
	second := foreign.Layers[1].Digest
	metadata := []digest.Digest{index.Manifests[1].Digest, foreign.Config.Digest}
	all := slices.Concat(ofNative, metadata, []digest.Digest{second})
	assert.Check(q, cmp.DeepEqual(files(), ctrd.BlobFiles(all)), "files in blobs/sha256")
	if withMetadata {
		assert.Check(q, cmp.DeepEqual(before, ctrd.BlobFiles(slices.Concat(ofNative, metadata))), "files in blobs/sha256 after the first pull")
	} else {
		assert.Check(q, cmp.DeepEqual(before, ctrd.BlobFiles(ofNative)), "files in blobs/sha256 after the first pull")
	}
	q.Fact("pull for the other platform: new blobs", len(files())-len(before))
	listed = check.TableCell(q, d.Ctr("images", "ls").Stdout, image.Platforms, 5)
	assert.Check(q, cmp.Contains(listed, image.Foreign), "platforms that ctr lists")

	q.Step("run both: each has the files of its own layers, and the program runs, because it is one of this machine whatever the index says")
	var uts unix.Utsname
	assert.NilError(q, unix.Uname(&uts))
	machine := unix.ByteSliceToString(uts.Machine[:])
	var config v1.Image
	d.DecodeBlob(foreign.Config.Digest, &config)
	assert.Check(q, cmp.Equal(config.OS+"/"+config.Architecture, image.Foreign), "platform in the config")
	there := p.outputOfRun(command, "--platform", image.Foreign)
	assert.Check(q, cmp.Equal(there.Stdout, machine+"\nfrom the second layer\n"), "output of the program of the image for %s", image.Foreign)
	here := p.outputOfRun(command)
	assert.Check(q, cmp.Equal(here.Stdout, machine+"\n"), "output of the program of the image for this machine")
	assert.Check(q, cmp.Contains(here.Stderr, "No such file"), "the second layer is not of the image for this machine")
	q.Fact("program of the image for "+image.Foreign+": runs on this machine", strings.HasPrefix(there.Stdout, machine))

	q.Control("pull once more, with the other choice of metadata: a flag decides whether manifests and configs of other platforms are fetched")
	d.Ctr("images", "rm", "--sync", image.Platforms)
	assert.Check(q, cmp.Len(files(), 0), "blobs after images rm --sync")
	flag, want := "--skip-metadata", ctrd.BlobFiles(ofNative)
	if !withMetadata {
		flag, want = "--all-metadata", ctrd.BlobFiles(slices.Concat(ofNative, metadata))
	}
	_, fetched = p.pull(flag)
	assert.Check(q, cmp.DeepEqual(files(), want), "files in blobs/sha256")
	assert.Check(q, cmp.DeepEqual(fetched, want), "what the registry was asked for")
	q.Fact("pull "+flag+": blobs", len(fetched))
	d.Ctr("images", "rm", "--sync", image.Platforms)

	q.Step("let the index list only the other platform: the pull fetches no layer, and the mistake shows when a container is made")
	index.Manifests = index.Manifests[1:]
	p.substituteIndex(index)
	unmatched := d.TryCtr("images", "pull", "--hosts-dir", p.hosts, image.Platforms)
	assertNothingUnpacked(q, d, unmatched, foreign.Layers)
	unusable := d.Refused("no match for platform", slices.Concat(run, []string{image.Platforms}, command)...)
	q.Fact("pull of an image for another platform only: exit code", unmatched.Code)
	q.Fact("pull of an image for another platform only: blobs", len(files()))
	q.Fact("ctr run of an image for another platform only: error", ctrd.ShortCtrError(unusable))

	q.Answer("ctr pulls the layers for one platform, by default that of the machine. Since 2.0, it also pulls the manifests and " +
		"configs for all platforms. containerd believes the platform that an image declares: only the kernel sees whether " +
		"its programs fit the processor.")
}

// assertNothingUnpacked asserts that a pull of an image for another platform only has fetched no layer and made no snapshot.
func assertNothingUnpacked(q *lab.Q, d *ctrd.Daemon, unmatched lab.Result, layers []v1.Descriptor) {
	// The transfer service, by which ctr pulls since 2.0, reports no error. ctr 1.7 unpacks by itself, and finds nothing to unpack.
	byTransfer := strings.Contains(d.Ctr("images", "pull", "--help").Stdout, "--skip-metadata")
	assert.Check(q, cmp.Equal(unmatched.Code == 0, byTransfer), "the pull succeeds, and ctr pulls by the transfer service:\n%s", unmatched)
	if unmatched.Code != 0 {
		assert.Check(q, cmp.Contains(unmatched.Stderr, "no match for platform"), "the error of the pull")
	}
	for _, layer := range layers {
		assert.Check(q, !file.Exists(d.BlobPath(layer.Digest)), "a layer for another platform was fetched: %s", layer.Digest)
	}
	assert.Check(q, cmp.Equal(d.CountContents()["snapshots"], 0))
}

// platformPulls pulls an image for several platforms, and runs containers of it.
type platformPulls struct {
	q        *lab.Q
	d        *ctrd.Daemon
	registry *image.Registry
	hosts    string
}

// pull pulls the image, and returns what the registry was asked for: the tag, and each digest once.
func (p *platformPulls) pull(flags ...string) (tag string, blobs []string) {
	p.q.Helper()
	known := len(p.registry.Requests())
	p.d.Ctr(p.pullArgs(flags)...)
	for _, request := range p.registry.Requests()[known:] {
		if _, hash, byDigest := strings.Cut(request, "sha256:"); byDigest {
			blobs = append(blobs, hash)
		} else {
			tag = request
		}
	}
	slices.Sort(blobs)
	return tag, slices.Compact(blobs)
}

// pullArgs returns the arguments of ctr that pull the image.
func (p *platformPulls) pullArgs(flags []string) []string {
	return slices.Concat([]string{"images", "pull", "--hosts-dir", p.hosts}, flags, []string{image.Platforms})
}

// places returns the flags that keep the files of `ctr run` out of /run/containerd.
func (p *platformPulls) places() []string {
	places := []string{"--fifo-dir", p.d.FifoDir}
	if p.d.CanSetRuncRoot() { // otherwise runc's state stays in the default place after the tasks
		places = append(places, "--runc-root", p.d.RuncRoot)
	}
	return places
}

// pullFor pulls the image for a platform that is not the machine's own.
func (p *platformPulls) pullFor(platform string) {
	flags := []string{"--platform", platform}
	if r := p.d.TryCtr(p.pullArgs(flags)...); r.Code != 0 {
		// The transfer service of 2.0 unpacks only for the machine's own platform. With --local, ctr pulls and unpacks by itself.
		assert.Check(p.q, cmp.Contains(r.Stderr, "no unpack platforms defined"), "the error of a pull for another platform")
		p.pull(append(flags, "--local")...)
	}
}

// outputOfRun returns what a program in a container of the image prints. The container's own program sleeps, and the command is an exec:
// ctr run deletes a task whose program has ended, and may lose its words. The command's first word is the container's id.
func (p *platformPulls) outputOfRun(command []string, platform ...string) lab.Result {
	d, id := p.d, command[0]
	p.q.Helper()
	d.Ctr(slices.Concat([]string{"run", "-d"}, p.places(), platform, []string{image.Platforms, id, "sleep", "3600"})...)
	said := d.TryCtr(slices.Concat([]string{"tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "says"}, command)...)
	d.KillAndDeleteTask(id)
	d.Ctr("containers", "delete", id)
	return said
}

// substituteIndex has the registry send another index for the tag.
func (p *platformPulls) substituteIndex(index v1.Index) {
	body, err := json.Marshal(index)
	assert.NilError(p.q, err)
	substitute := image.Substitute{Body: body, MediaType: v1.MediaTypeImageIndex, Digest: digest.FromBytes(body)}
	p.registry.Substitute("manifests/platforms", substitute)
	p.registry.Substitute("manifests/"+substitute.Digest.String(), substitute)
}
