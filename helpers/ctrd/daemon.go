//go:build linux

// Package ctrd starts a private containerd for a question and drives it by both hands: ctr, as the reader types it, and
// the Go client. Private means that it shares no file, socket or directory with a containerd of the host's.
package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Namespace is the chapter's containerd namespace.
const Namespace = "cdb-lab"

// ID is the chapter's id for a container that containerd makes.
const ID = "cdb-task"

// Daemon is a private containerd.
type Daemon struct {
	Address   string        // of its gRPC socket
	Root      string        // what survives a reboot: content, snapshots, metadata
	State     string        // what does not: the tasks' bundles
	SocketDir string        // the shims' sockets
	RuncRoot  string        // the runtime's state directory (--root), one below for each namespace
	FifoDir   string        // the tasks' stdio
	Ready     time.Duration // from the start of the process to the first answer

	q      *lab.Q
	dir    string
	log    string
	cmd    *exec.Cmd
	exited chan error
	client *containerd.Client
}

// Start starts a containerd for the question and waits until it answers. When the question ends, its containers are
// deleted, it is stopped, and its directories are removed.
func Start(q *lab.Q) *Daemon {
	q.Helper()
	dir := q.Mkdir("containerd")
	p, err := newPaths(dir)
	if err != nil {
		q.Fatal(err)
	}
	d := &Daemon{
		q: q, dir: dir, log: filepath.Join(dir, "log"),
		Address: p.Address, Root: p.Root, State: p.State, SocketDir: p.SocketDir,
		RuncRoot: filepath.Join(dir, "runc"), FifoDir: q.Mkdir("fifo"),
	}
	q.Mkdir(filepath.Base(p.SocketDir))
	var toml bytes.Buffer
	if err := config.Execute(&toml, p); err != nil {
		q.Fatalf("write containerd's configuration: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), toml.Bytes(), 0o644); err != nil {
		q.Fatalf("write containerd's configuration: %v", err)
	}
	q.DidLong("cat > containerd/config.toml   # root, state, address and socket_dir below "+q.Dir,
		"mkdir -p containerd s fifo && cat > containerd/config.toml <<'END'\n"+toml.String()+"END")
	q.Export("CONTAINERD_ADDRESS", d.Address)
	q.Look("ctr -n " + Namespace + " tasks ls   # and, where the daemon has died: containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS &")
	// Not q.Cleanup: the client is this process's own, also when the daemon is to be kept.
	q.TB.Cleanup(func() {
		if d.client != nil {
			d.client.Close()
		}
	})
	q.Cleanup(d.end)
	d.Start()
	q.Fact("containerd answers after", lab.Elapsed(d.Ready))
	return d
}

// Start starts the daemon again after a [Daemon.Kill] or [Daemon.Stop].
func (d *Daemon) Start() {
	d.q.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		d.q.Fatalf("open containerd's log: %v", err)
	}
	defer log.Close()
	// --address besides the configuration's, because the address of the shims' callbacks is derived from the flag.
	argv := []string{"containerd", "--config", "containerd/config.toml", "--address", d.Address}
	d.q.DidLong("containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS &",
		"containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS 2>> containerd/log & sleep 1")
	d.cmd = d.q.Cmd(context.Background(), argv...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// A Ctrl-C at the terminal is for the lab, which then ends its daemons in order.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := d.cmd.Start(); err != nil {
		d.q.Fatalf("start containerd: %v", err)
	}
	cmd, exited := d.cmd, make(chan error, 1)
	d.exited = exited
	go func() { exited <- cmd.Wait() }()
	d.waitReady(begin)
}

// readyTimeout is how long a daemon may take to answer: natively it takes some 50 ms, under emulation 3 s.
const readyTimeout = time.Minute

func (d *Daemon) waitReady(begin time.Time) {
	d.q.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	for {
		select {
		case err := <-d.exited:
			d.exited <- err
			d.q.Fatalf("containerd ended before it was ready: %v; its last words:\n%s", err, d.lastWords())
		case <-ctx.Done():
			d.q.Fatalf("containerd does not answer on %s after %v; its last words:\n%s", d.Address, readyTimeout, d.lastWords())
		case <-time.After(2 * time.Millisecond):
		}
		if _, err := os.Stat(d.Address); err != nil {
			continue // to dial earlier would only make gRPC wait longer before it dials again
		}
		if d.client == nil {
			c, err := containerd.New(d.Address, containerd.WithDefaultNamespace(Namespace), containerd.WithTimeout(readyTimeout))
			if err != nil {
				d.q.Fatalf("connect to containerd at %s: %v", d.Address, err)
			}
			d.client = c
		}
		if _, err := d.client.Version(ctx); err == nil {
			d.Ready = time.Since(begin)
			return
		}
	}
}

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Kill ends the daemon with SIGKILL and waits until it has gone.
func (d *Daemon) Kill() {
	d.q.Helper()
	d.q.Did("kill -KILL %d   # containerd", d.PID())
	if err := d.cmd.Process.Kill(); err != nil {
		d.q.Fatalf("kill containerd: %v", err)
	}
	<-d.exited
	d.cmd = nil
}

// Stop ends the daemon with SIGTERM and waits until it has gone.
func (d *Daemon) Stop() error {
	err := lab.Interrupt(d.cmd, d.exited)
	d.cmd = nil
	return err
}

// Client is a Go client of the daemon, whose default namespace is [Namespace].
func (d *Daemon) Client() *containerd.Client { return d.client }

// Ctr runs ctr in the namespace [Namespace]. It has to succeed.
func (d *Daemon) Ctr(args ...string) lab.Result {
	d.q.Helper()
	return d.q.Must(ctr(args)...)
}

// TryCtr runs ctr and returns what came of it.
func (d *Daemon) TryCtr(args ...string) lab.Result {
	d.q.Helper()
	return d.q.Exec(ctr(args)...)
}

func ctr(args []string) []string { return append([]string{"ctr", "-n", Namespace}, args...) }

// Bundle is the directory that the daemon makes for a task of a container.
func (d *Daemon) Bundle(id string) string {
	return filepath.Join(d.State, "io.containerd.runtime.v2.task", Namespace, id)
}

// Shims lists the daemon's shims, as the kernel shows them: processes of the shim's program that were given the daemon's
// address.
func (d *Daemon) Shims() []proc.PID {
	d.q.Helper()
	return proc.Find(d.q, func(pid int, _ string, args []string) bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err == nil && exe == d.shimProgram() && strings.Contains(strings.Join(args, " "), d.Address)
	})
}

func (d *Daemon) shimProgram() string {
	path, err := filepath.EvalSymlinks(lab.UnderTest("containerd-shim-runc-v2").Path)
	if err != nil {
		d.q.Fatalf("find the shim: %v", err)
	}
	return path
}

func (d *Daemon) lastWords() string {
	data, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// end deletes what is left of containers and tasks, and stops the daemon.
func (d *Daemon) end() {
	if d.cmd == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	if err := d.deleteAll(ctx); err != nil {
		d.q.Errorf("delete what is left in containerd: %v; its last words:\n%s", err, d.lastWords())
	}
	if err := d.Stop(); err != nil {
		d.q.Error(err)
	}
}

func (d *Daemon) deleteAll(ctx context.Context) error {
	all, err := d.client.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, ns := range all {
		ctx := namespaces.WithNamespace(ctx, ns)
		containers, err := d.client.Containers(ctx)
		errs = append(errs, err)
		for _, c := range containers {
			if task, err := c.Task(ctx, nil); err == nil {
				_, err = task.Delete(ctx, containerd.WithProcessKill)
				errs = append(errs, ignoreNotFound(err))
			}
			errs = append(errs, ignoreNotFound(c.Delete(ctx, containerd.WithSnapshotCleanup)))
		}
	}
	return errors.Join(errs...)
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
