//go:build linux && vmlab

package cdblab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cdblab/helpers/check"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Where CRIU can: its process tree is written to files and ends; restored, it goes on with what it had in memory.
//
// runc hands the work to CRIU, which freezes the cgroup, reads all that the kernel knows of the processes, and makes
// processes of the same shape later, with the same pids inside of their pid namespace. The process is another one, with
// another pid outside and another start time, and the program does not notice. What is not in the files (a file that was
// deleted, a connection, a device) has to be there again.
//
// Hint: what could only the memory of the old process know?
// Spec: https://github.com/opencontainers/runc/blob/main/docs/checkpoint-restore.md (it is none of the specification's operations)
// Kernel: https://man7.org/linux/man-pages/man2/clone.2.html, set_tid of clone3; https://criu.org/Checkpoint/Restore
func TestLifecycle_CanItBeFrozenToDiskAndThawed(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Can it be frozen to disk and thawed?")
	criu := q.LookPathOrSkip("criu")
	if able := q.Exec(criu, "check"); able.Code != 0 {
		q.Skipf("this CRIU cannot work with this kernel: %s; look with another kernel: make lab KERNEL=6.1", check.LastLine(able.Stderr))
	}
	b := bundle.Busybox(q, "sleep", "300")
	const nonce = "only memory knows"
	assert.NilError(q, os.WriteFile(b.Rootfs("nonce"), []byte(nonce), 0o644))
	c := runc.Variant(q, b, "frozen", restorable, bundle.Args("sh", "-c",
		`exec < /dev/null > /out 2>&1; read -r known < /nonce; trap 'echo "$known" > /said' USR1; echo ready > /told; while :; do sleep 0.05; done`))
	images, work := q.Mkdir("images"), q.Mkdir("work")

	q.Step("a program that has read something and then keeps it in memory alone")
	p := c.CreateAndStart()
	proc.WaitFor(q, file.HasContent(b.Rootfs("told"), "ready"))
	file.Remove(q, b.Rootfs("nonce"))
	q.LogCommand("rm bundle/rootfs/nonce")

	q.Step("checkpoint: its process ends, and files have what it was")
	r := c.Try("checkpoint", "--image-path", images, "--work-path", work)
	if r.Code != 0 {
		q.Skipf("this CRIU cannot do it with this kernel: %s; look with another kernel: make lab KERNEL=6.1", why(work, "dump.log", runc.LastLogMessage(r)))
	}
	proc.WaitFor(q, proc.Dead(p.Identity))
	var dumped []string
	for _, f := range file.Names(q, images) {
		for _, kind := range []string{"core-", "mm-", "pages-", "pstree"} {
			if strings.HasPrefix(f, kind) {
				dumped = append(dumped, kind)
			}
		}
	}
	assert.Check(q, len(dumped) >= 4, "the images are %q", file.Names(q, images))
	assert.Check(q, !file.Exists(c.StateDir()), "the container is still known after checkpoint")
	q.Fact("after checkpoint, the process is", "dead")
	q.Fact("kinds of images", slices.Compact(slices.Sorted(slices.Values(dumped))))

	q.Step("restore: another process of the same shape, and the program goes on")
	r = c.Try("restore", "--detach", "--image-path", images, "--work-path", work, "--bundle", c.Bundle.Name)
	assert.Assert(q, r.Code == 0, "restore fails: %s\n%s", why(work, "restore.log", ""), r)
	pid := c.State().Pid
	thawed := proc.Snapshot(q, proc.PID(pid))
	assert.Check(q, !thawed.Same(p.Identity))
	assert.Check(q, thawed.Start > p.Start)
	assert.Check(q, cmp.Equal(proc.InnerPID(q, proc.PID(pid)), 1))
	assert.Check(q, cmp.DeepEqual(thawed.Args, p.Args))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	q.Fact("pids outside, before and after", []proc.PID{p.PID, thawed.PID})
	c.Kill("USR1")
	proc.WaitFor(q, file.HasContent(b.Rootfs("said"), nonce))
	q.Fact("it still knows", nonce)
	c.KillAndDelete(thawed)

	q.Control("started anew instead of restored, it knows nothing")
	file.Remove(q, b.Rootfs("told"))
	file.Remove(q, b.Rootfs("said"))
	anew := runc.Variant(q, c.Bundle, "anew")
	a := anew.CreateAndStart()
	proc.WaitFor(q, file.HasContent(b.Rootfs("told"), "ready"))
	anew.Kill("USR1")
	proc.WaitFor(q, file.HasContent(b.Rootfs("said"), ""))
	q.Fact("started anew, it knows", "nothing")
	anew.KillAndDelete(a)

	q.Answer("Where CRIU and the kernel can: another process, which goes on with the memory of the old one.")
}

// restorable is an edit: nothing that CRIU would have to be told of, such as mounts of tmpfs or a network namespace with
// its interfaces.
func restorable(s *specs.Spec) {
	s.Root.Readonly = false
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "bind", Source: "/dev", Options: []string{"bind"}},
	}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	for _, ns := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.CgroupNamespace} {
		bundle.WithoutNamespace(ns)(s)
	}
}

// why picks CRIU's own error out of its log.
func why(dir, log, otherwise string) string {
	text, _ := file.TryRead(filepath.Join(dir, log))
	for line := range strings.Lines(text) {
		if strings.Contains(line, "Error") {
			return strings.TrimSpace(line)
		}
	}
	return otherwise
}
