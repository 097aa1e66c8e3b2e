//go:build linux && vmlab

package cdblab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// `ctr tasks checkpoint` has CRIU write the memory and the state of the task's processes into files. With --image-path they are in this
// directory, otherwise in an image that containerd makes. The task runs on; with --exit it ends.
//
// The client pauses the task, has the daemon make the checkpoint, and resumes the task. The daemon asks the shim, and the shim calls
// `runc checkpoint`, with --leave-running if the task is to run on. runc calls CRIU. Without --image-path the daemon packs the files as a
// tar archive into its content store. The client adds the container's image and the changes of its snapshot, so that the new image has all
// that another machine needs. Where CRIU fails, its log is in the task's bundle: criu-dump.log.
//
// CRIU cannot write everything: TestLifecycle_CanItBeFrozenToDiskAndThawed shows the restore, and what config.json of such a container
// lacks.
//
// Hint: `ctr content ls` after a checkpoint; put a script before runc that records its arguments.
// Spec: https://github.com/containerd/containerd/blob/main/docs/features.md#checkpoint-and-restore
// Kernel: https://criu.org/Images, https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup.freeze
func TestTask_WhatDoesACheckpointOfATaskWrite(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a checkpoint of a task write?")
	defer q.Recover()
	runc.SkipUnlessCRIU(q)
	recorder := runc.WriteRecorder(q)
	d := ctrd.Shared(q)
	ref, id := d.PullImage(), q.ID(ctrd.ContainerID)
	imagesDir, workDir := q.Mkdir("images"), q.Mkdir("work")
	supported := runc.SupportedByCRIU(q)
	edit := func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		supported(s)
		return nil
	}
	// Only the shell's memory has this text: in the script it is another one. The program has no file of ctr open.
	const nonce = "only memory 42 knows"
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: recorder.Path, Spec: []oci.SpecOpts{edit}}, ref, id, "sh", "-c",
		`: > /empty; exec < /empty > /out 2>&1; known="only memory $((6*7)) knows"; echo ready > /told; while :; do sleep 0.05; done`)
	d.StartTask(id)
	p := proc.Snapshot(q, d.TaskPID(id))
	proc.WaitFor(q, file.HasContent(fmt.Sprintf("/proc/%d/root/told", p.PID), "ready"))

	q.Step("checkpoint the task with --image-path: the shim calls runc checkpoint, while the client has paused the task")
	before := len(recorder.Calls(q))
	r := d.TryCtr("tasks", "checkpoint", "--image-path", imagesDir, "--work-path", workDir, id)
	if r.Code != 0 {
		q.Skipf("this CRIU cannot do it with this kernel: %s; try another kernel: make lab KERNEL=6.1",
			runc.CRIUError(filepath.Join(workDir, "dump.log"), ctrd.CtrError(r)))
	}
	calls := recorder.Calls(q)[before:]
	assert.Assert(q, cmp.DeepEqual(runc.Commands(calls), []string{"pause", "checkpoint", "resume"}), "commands of the shim")
	assert.Check(q, cmp.Contains(calls[1].Args, "--leave-running"))
	assert.Check(q, cmp.Equal(calls[1].Option("--image-path"), imagesDir))
	q.Fact("calls of runc", runc.Commands(calls))

	q.Step("look into the directory: it has the memory of the program. The program runs on, as the same process")
	kinds := runc.KindsOfCRIU(file.Names(q, imagesDir))
	assert.Check(q, cmp.Len(kinds, 4), "kinds of images; the files are %q", file.Names(q, imagesDir))
	pages := []byte{}
	for _, name := range file.Names(q, imagesDir) {
		if strings.HasPrefix(name, "pages-") {
			data, err := os.ReadFile(filepath.Join(imagesDir, name))
			assert.NilError(q, err)
			pages = append(pages, data...)
		}
	}
	assert.Check(q, bytes.Contains(pages, []byte(nonce)), "the pages do not contain %q, which is in the program's memory", nonce)
	assert.Check(q, p.Alive(), "the task's process has ended")
	assert.Check(q, cmp.Equal(d.TaskStatus(id).Status, containerd.Running))
	group := cgroup.Of(q, "/"+d.Namespace+"/"+id)
	assert.Check(q, !group.Frozen(), "the task's cgroup is frozen")
	q.Fact("--image-path: kinds of images", kinds)
	q.Fact("--image-path: the pages have what only the program's memory has", bytes.Contains(pages, []byte(nonce)))
	q.Fact("--image-path: status of the task", d.TaskStatus(id).Status)
	assert.Check(q, cmp.Len(checkpoints(q, d), 0), "images of checkpoints, with --image-path")
	q.Fact("--image-path: images that containerd has made", len(checkpoints(q, d)))

	q.Step("checkpoint the task without a directory: containerd makes an image, which has the same files as a tar archive")
	d.Ctr("tasks", "checkpoint", id)
	made := checkpoints(q, d)
	assert.Assert(q, cmp.Len(made, 1), "images of checkpoints")
	var index ocispec.Index
	d.DecodeBlob(made[0].Target().Digest, &index)
	mediaTypes, archived := []string{}, []string{}
	for _, m := range index.Manifests {
		mediaTypes = append(mediaTypes, m.MediaType)
		if strings.HasSuffix(m.MediaType, "criu.tar") {
			archived = runc.KindsOfCRIU(namesInTar(q, d.ReadBlob(m.Digest)))
		}
	}
	slices.Sort(mediaTypes)
	assert.Check(q, cmp.DeepEqual(archived, kinds), "kinds of images in the archive; the image has %v", mediaTypes)
	assert.Check(q, p.Alive(), "the task's process has ended")
	q.Fact("without --image-path: kinds of images in the archive", archived)
	q.Fact("without --image-path: parts of the image", mediaTypes)

	q.Control("the same with --exit: runc does not get --leave-running, and the task ends")
	before = len(recorder.Calls(q))
	d.Ctr("tasks", "checkpoint", "--exit", "--image-path", q.Mkdir("exit"), id)
	proc.WaitFor(q, proc.Dead(p.Identity))
	proc.WaitFor(q, d.TaskStopped(id))
	calls = recorder.Calls(q)[before:]
	i := slices.IndexFunc(calls, func(c runc.Call) bool { return c.Command() == "checkpoint" })
	assert.Assert(q, i >= 0, "the shim did not call runc checkpoint: %v", calls)
	assert.Check(q, !slices.Contains(calls[i].Args, "--leave-running"), "arguments of runc: %v", calls[i].Args)
	status := d.TaskStatus(id)
	assert.Check(q, cmp.Equal(status.ExitStatus, uint32(128+9)), "exit status of the task: CRIU kills its processes")
	q.Fact("--exit: the process is alive", p.Alive())
	q.Fact("--exit: status and exit status of the task", []any{status.Status, status.ExitStatus})

	q.Answer("A checkpoint of a task has the memory and the state of its processes, as files of CRIU: in the directory that --image-path " +
		"names, or in an image of containerd. The task is paused meanwhile, and runs on. With --exit it ends.")
}

// checkpoints returns the images that containerd has made of checkpoints.
func checkpoints(q *lab.Q, d *ctrd.Daemon) (found []containerd.Image) {
	q.Helper()
	all, err := d.Client().ListImages(context.Background())
	assert.NilError(q, err)
	for _, i := range all {
		if strings.HasPrefix(i.Name(), "containerd.io/checkpoint/") {
			found = append(found, i)
		}
	}
	return found
}

// namesInTar returns the base names of the files in a tar archive.
func namesInTar(q *lab.Q, archive []byte) (names []string) {
	q.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		assert.NilError(q, err)
		names = append(names, filepath.Base(header.Name))
	}
}
