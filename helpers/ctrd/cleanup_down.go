//go:build linux

package ctrd

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cdblab/helpers/host"
	"cdblab/helpers/proc"
)

// startForCleanUp starts a private daemon that is down, or does not answer, while tasks are left: the question has failed between
// [Daemon.Stop] and [Daemon.Start], or its new daemon cannot start. It starts the daemon that has answered last, because that one finds
// the shims. After an upgrade that has failed this is the old daemon. After a downgrade that has failed it is the new one: containerd 1.7
// does not find the shims of containerd 2.
func (d *Daemon) startForCleanUp() error {
	if d.shared || len(d.answered) == 0 || len(d.bundles()) == 0 {
		return nil
	}
	if d.runs() {
		if conn, err := net.Dial("unix", d.Address); err == nil {
			return conn.Close()
		}
	}
	if err := d.server.stop(); err != nil {
		d.q.Error(err)
	}
	for _, p := range d.answered {
		if d.q.UnderTest(p.Name).Path != p.Path {
			d.q.Use(p)
		}
	}
	return d.server.start() // not Daemon.Start, whose failure would end the cleanup
}

// bundles returns the bundles of the daemon's tasks, in all its containerd namespaces. containerd hides a bundle, by a dot, before it removes it.
func (d *Daemon) bundles() []string {
	found, err := filepath.Glob(filepath.Join(d.State, "io.containerd.runtime.v2.task", "*", "[^.]*"))
	if err != nil {
		d.q.Error(err)
	}
	return found
}

// endTasksWithoutDaemon does for each task of a private daemon what containerd does for a task whose shim has died:
// `containerd-shim-runc-v2 delete` kills the task and unmounts its root filesystem. The shims are killed before, and
// the bundle is removed after that.
//
// https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#delete
func (d *Daemon) endTasksWithoutDaemon() {
	for _, shim := range proc.FindIdentities(d.q, func(_ proc.PID, comm string, args []string) bool {
		return strings.HasPrefix(comm, "containerd-shim") && d.isOwnShim(args)
	}) {
		if err := proc.Kill(shim); err != nil {
			d.q.Errorf("end a shim of the question: %v", err)
		}
	}
	for _, bundle := range d.bundles() {
		namespace, id := filepath.Base(filepath.Dir(bundle)), filepath.Base(bundle)
		if b, err := readBootstrap(bundle); err == nil { // a shim that was killed leaves its socket
			if err := os.Remove(b.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				d.q.Error(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
		cmd := d.q.Cmd(ctx, "containerd-shim-runc-v2",
			"-namespace", namespace, "-address", d.Address, "-id", id, "-bundle", bundle, "delete")
		cmd.Dir, cmd.WaitDelay = bundle, time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			d.q.Errorf("end the task of %s without containerd: %v: %s", id, err, out)
		}
		cancel()
		if _, err := host.Remove(bundle); err != nil {
			d.q.Error(err)
		}
		if state := filepath.Join(d.RuncRoot, namespace); d.RuncRoot == defaultRuncRoot && d.q.Owner.Owns("/"+namespace) {
			_ = os.Remove(state) // as long as other tasks have a directory there, it stays
		}
	}
	d.RemoveFIFOs("*") // no client deletes these tasks
}
