//go:build linux

package ctrd

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/file"
	"cdblab/helpers/proc"
)

// Shims returns the question's shims, as the kernel shows them: processes of the shim's program that were given the
// daemon's address and, where the daemon is shared, a containerd namespace of the question.
func (d *Daemon) Shims() []proc.PID {
	d.q.Helper()
	return proc.Find(d.q, d.isShimOfQuestion)
}

func (d *Daemon) isShimOfQuestion(pid proc.PID, _ string, args []string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && exe == d.shimProgram() && d.isOwnShim(args)
}

// OtherShims returns the processes of the shim's program that are not the question's: those of another daemon on this
// host that runs the same file.
func (d *Daemon) OtherShims() []proc.PID {
	d.q.Helper()
	return proc.Find(d.q, func(pid proc.PID, _ string, args []string) bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err == nil && exe == d.shimProgram() && !d.isOwnShim(args)
	})
}

// isOwnShim reports whether the arguments of a shim are those of a shim of the question.
func (d *Daemon) isOwnShim(args []string) bool {
	address, namespace := false, !d.shared
	for _, a := range args {
		address = address || strings.Contains(a, d.Address)
		namespace = namespace || d.q.Owner.Owns("/"+a)
	}
	return address && namespace
}

func (d *Daemon) shimProgram() string {
	path, err := filepath.EvalSymlinks(d.q.UnderTest("containerd-shim-runc-v2").Path)
	if err != nil {
		d.q.Fatalf("find the shim under test, containerd-shim-runc-v2: %v", err)
	}
	return path
}

// HasShims returns a check that succeeds when the question has n shims.
func (d *Daemon) HasShims(n int) poll.Check {
	return func(poll.LogT) poll.Result {
		if shims := d.Shims(); len(shims) != n {
			return poll.Continue("the question has %d shims %v, want %d", len(shims), shims, n)
		}
		return poll.Success()
	}
}

// SocketName returns the name of the file in SocketDir on which the shim of a container listens. The shim computes it
// from the daemon's address, the containerd namespace and its group, which is the container's id unless an annotation
// names another one.
func (d *Daemon) SocketName(id string) string {
	return socketName(d.Address, d.Namespace, id)
}

func socketName(address, namespace, group string) string {
	sum := sha256.Sum256([]byte(filepath.Join(address, namespace, group)))
	return fmt.Sprintf("%x", sum)
}

// ShimAddressFile returns the path of the file in a task's bundle that has the address of the shim: bootstrap.json in
// containerd 2, address before.
func ShimAddressFile(bundle string) string {
	if path := filepath.Join(bundle, "bootstrap.json"); file.Exists(path) {
		return path
	}
	return filepath.Join(bundle, "address")
}

// ShimSocket returns the path of the socket of a container's shim, as the task's bundle names it.
func (d *Daemon) ShimSocket(id string) string {
	d.q.Helper()
	return d.Bootstrap(id).socket()
}

// PinSocket keeps the socket of a living shim from being unlinked, until unpin is called or the question ends. `shim start` takes the
// group's shim for dead if it is not back from connect(2) within 100 ms, as where it gets no processor for so long: Go's DialTimeout
// reports a timeout even after connect(2) has succeeded (net/fd_unix.go). It would then unlink the socket and start another shim. unlink(2)
// of a mount point fails with EBUSY, and so does the start. [Daemon.TryStartTask] repeats it.
//
// https://github.com/containerd/containerd/blob/v2.4.2/pkg/shim/util_unix.go#L186
func (d *Daemon) PinSocket(path string) (unpin func()) {
	d.q.Helper()
	d.q.LogCommand("mount --bind %s %s   # a mount point cannot be unlinked", path, path)
	assert.NilError(d.q, unix.Mount(path, path, "", unix.MS_BIND, ""))
	var once sync.Once
	unpin = func() {
		once.Do(func() {
			d.q.LogCommand("umount %s", path)
			assert.Check(d.q, unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		})
	}
	d.q.Cleanup(unpin)
	return unpin
}
