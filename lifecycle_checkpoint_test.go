//go:build linux && vmlab

package cdblab

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// With CRIU, the processes of a container are written to files and end. After restore they go on with what they had in memory.
//
// runc starts CRIU, which freezes the cgroup and reads everything that the kernel knows of the processes. Later CRIU makes processes
// of the same shape, with the same pids inside of their pid namespace. The restored process is another process, with another pid
// outside and another start time, but the program does not notice. The files of the rootfs are not in the images, so they have to be
// there again. CRIU can put open files that were deleted into the images, and TCP connections with --tcp-established.
//
// Hint: what does only the memory of the old process know?
// Spec: https://github.com/opencontainers/runc/blob/main/docs/checkpoint-restore.md (the specification has no such operation)
// Kernel: https://man7.org/linux/man-pages/man2/clone.2.html, set_tid of clone3; https://criu.org/Checkpoint/Restore
func TestLifecycle_CanItBeFrozenToDiskAndThawed(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Can it be frozen to disk and thawed?")
	defer q.Recover()
	runc.SkipUnlessCRIU(q)
	b := bundle.Busybox(q, "sleep", "3600")
	const nonce = "only memory knows"
	assert.NilError(q, os.WriteFile(b.Rootfs("nonce"), []byte(nonce), 0o644))
	// The program reads /nonce once. It writes what it has in memory to /said when it receives USR1.
	assert.NilError(q, os.WriteFile(b.Rootfs("empty"), nil, 0o644))
	c := runc.Variant(q, b, "frozen", runc.SupportedByCRIU(q), bundle.Args("sh", "-c",
		`exec < /empty > /out 2>&1; read -r known < /nonce; trap 'echo "known: $known" > /said' USR1; `+
			`echo ready > /told; while :; do sleep 0.05; done`))
	imagesDir, workDir := q.Mkdir("images"), q.Mkdir("work")

	q.Step("a program reads a file, and the file is removed: its content is only in the program's memory")
	p := c.CreateAndStart()
	proc.WaitFor(q, file.HasContent(b.Rootfs("told"), "ready"))
	file.Remove(q, b.Rootfs("nonce"))
	q.LogCommand("rm bundle/rootfs/nonce")

	q.Step("checkpoint the container: its process ends, and its state is in files")
	checkpoint := c.Try("checkpoint", "--image-path", imagesDir, "--work-path", workDir)
	if checkpoint.Code != 0 {
		q.Skipf("this CRIU cannot do it with this kernel: %s; try another kernel: make lab KERNEL=6.1",
			runc.CRIUError(filepath.Join(workDir, "dump.log"), runc.LastLogMessage(checkpoint)))
	}
	proc.WaitFor(q, proc.Dead(p.Identity))
	kinds := runc.KindsOfCRIU(file.Names(q, imagesDir))
	assert.Check(q, cmp.Len(kinds, 4), "kinds of images; the files are %q", file.Names(q, imagesDir))
	assert.Check(q, !file.Exists(c.StateDir()), "the state directory still exists after checkpoint")
	q.Fact("after checkpoint: the process is alive", proc.Alive(p.PID))
	q.Fact("kinds of images", kinds)

	q.Step("restore the container: another process is there, and the program goes on")
	mountsOfHost := check.MountPoints(proc.Self(q))
	restore := c.Try("restore", "--detach", "--image-path", imagesDir, "--work-path", workDir, "--bundle", c.Bundle.Name)
	restoreError := runc.CRIUError(filepath.Join(workDir, "restore.log"), "")
	assert.Assert(q, restore.Code == 0, "restore fails: %s\n%s", restoreError, restore)
	restored := c.Process()
	assert.Check(q, !restored.Same(p.Identity))
	assert.Check(q, restored.Start > p.Start)
	assert.Check(q, cmp.Equal(proc.InnerPID(q, restored.PID), 1))
	assert.Check(q, cmp.DeepEqual(restored.Args, p.Args))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	q.Fact("pids outside, before and after", []proc.PID{p.PID, restored.PID})
	mountsAfter := check.MountPoints(proc.Self(q))
	for _, point := range mountsOfHost {
		// Mounts of the lab come and go, because other questions are asked at the same time.
		ofLab := strings.HasPrefix(point, filepath.Dir(filepath.Dir(q.Dir)))
		assert.Check(q, ofLab || slices.Contains(mountsAfter, point), "restore has unmounted %s of the host", point)
	}
	c.Kill("USR1")
	proc.WaitFor(q, file.HasContent(b.Rootfs("said"), "known: "+nonce))
	q.Fact("the restored program writes what it has in memory", file.Read(q, b.Rootfs("said")))
	c.KillAndDelete(restored)

	q.Control("a container that is started anew, and not restored, has nothing of it in memory")
	file.Remove(q, b.Rootfs("told"))
	file.Remove(q, b.Rootfs("said"))
	anew := runc.Variant(q, c.Bundle, "anew")
	anewProcess := anew.CreateAndStart()
	proc.WaitFor(q, file.HasContent(b.Rootfs("told"), "ready"))
	anew.Kill("USR1")
	proc.WaitFor(q, file.HasContent(b.Rootfs("said"), "known:"))
	q.Fact("the program that was started anew writes", strconv.Quote(file.Read(q, b.Rootfs("said"))))
	anew.KillAndDelete(anewProcess)

	q.Answer("Yes, with CRIU and a kernel that supports it, runc can write a container to disk and go on with it later. Restore makes " +
		"another process, which goes on with the memory of the old one.")
}
