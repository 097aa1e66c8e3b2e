//go:build linux

// Package ctrd starts a private containerd for a question, or shares one among questions, and drives it by both hands:
// ctr, as the reader types it, and the Go client. Private means that it shares no file, socket or directory with a
// containerd of the host's.
package ctrd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Namespace is the chapter's containerd namespace. Where a daemon is shared, each question has one of its own, whose name
// begins so.
const Namespace = "cdb-lab"

// ID is the chapter's id for a container that containerd makes.
const ContainerID = "cdb-task"

// Daemon is a containerd, in the hands of one question.
type Daemon struct {
	*server
	Namespace string // that of the question's commands
	FifoDir   string // the tasks' stdio

	q      *lab.Q
	shared bool
	client *containerd.Client
}

// Option changes how a private containerd is configured.
type Option func(*[]string)

// With appends a table to the configuration: "[debug]\n  level = \"debug\"".
func WithConfig(table string) Option { return func(extra *[]string) { *extra = append(*extra, table) } }

// Start starts a containerd for the question alone and waits until it answers. When the question ends, its containers are
// deleted, it is stopped, and its directories are removed.
func Start(q *lab.Q, options ...Option) *Daemon {
	q.Helper()
	dir := q.Mkdir("containerd")
	q.Mkdir("s")
	var extra []string
	for _, o := range options {
		o(&extra)
	}
	s, err := newServer(q.Session(), dir, extra, func(argv ...string) (*exec.Cmd, error) { return q.Cmd(context.Background(), argv...), nil })
	if err != nil {
		q.Fatal(err)
	}
	d := &Daemon{server: s, Namespace: Namespace, q: q, FifoDir: q.Mkdir("fifo")}
	q.LogCommandAs("cat > containerd/config.toml   # root, state, address and socket_dir below "+q.Dir,
		"mkdir -p containerd "+s.SocketDir+" fifo && cat > containerd/config.toml <<'END'\n"+s.toml+"END")
	q.Export("CONTAINERD_ADDRESS", d.Address)
	q.SuggestCommand("ctr -n " + Namespace + " tasks ls   # and, where the daemon has died: containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS &")
	q.Cleanup(d.cleanUp)
	d.Start()
	d.connect()
	q.Fact("containerd answers after", lab.Elapsed(d.StartupTime))
	return d
}

// connect makes the question's Go client.
func (d *Daemon) connect() {
	d.q.Helper()
	c, err := containerd.New(d.Address, containerd.WithDefaultNamespace(d.Namespace), containerd.WithTimeout(readyTimeout))
	if err != nil {
		d.q.Fatalf("connect to containerd at %s: %v", d.Address, err)
	}
	d.client = c
	// Not q.Cleanup: the client is this process's own, also when the daemon is to be kept.
	d.q.TB.Cleanup(func() { c.Close() })
}

// Start starts the daemon again after a [Daemon.Kill] or [Daemon.Stop].
func (d *Daemon) Start() {
	d.q.Helper()
	d.requirePrivate()
	d.q.LogCommandAs("containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS &",
		"containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS 2>> containerd/log & sleep 1")
	if err := d.server.start(); err != nil {
		d.q.Fatal(err)
	}
	if d.client != nil {
		// An old client's connection would wait, up to a second, before it dials again.
		d.connect()
	}
}

// PID is the daemon's process.
func (d *Daemon) PID() proc.PID { return proc.PID(d.cmd.Process.Pid) }

// Kill ends the daemon with SIGKILL and waits until it has gone.
func (d *Daemon) Kill() {
	d.q.Helper()
	d.requirePrivate()
	d.q.LogCommand("kill -KILL %d   # containerd", d.PID())
	if err := d.server.kill(); err != nil {
		d.q.Fatal(err)
	}
}

// Stop ends the daemon with SIGTERM and waits until it has gone.
func (d *Daemon) Stop() error {
	d.q.Helper()
	d.requirePrivate()
	d.q.LogCommand("kill -TERM %d   # containerd", d.PID())
	return d.server.stop()
}

// mine fails a question that would end a daemon which others use.
func (d *Daemon) requirePrivate() {
	d.q.Helper()
	if d.shared {
		d.q.Fatal("this containerd is shared: a question that ends it has to ctrd.Start its own")
	}
}

// In is the same daemon in another containerd namespace, of the question's own.
func (d *Daemon) InNamespace(namespace string) *Daemon {
	d.q.Helper()
	other := *d
	other.Namespace = d.q.ID(namespace)
	other.connect()
	return &other
}

// Client is a Go client of the daemon, whose default namespace is the question's.
func (d *Daemon) Client() *containerd.Client { return d.client }

// Ctr runs ctr in the question's namespace. It has to succeed.
func (d *Daemon) Ctr(args ...string) lab.Result {
	d.q.Helper()
	return d.q.Must(d.ctr(args)...)
}

// TryCtr runs ctr and returns what came of it.
func (d *Daemon) TryCtr(args ...string) lab.Result {
	d.q.Helper()
	return d.q.Exec(d.ctr(args)...)
}

func (d *Daemon) ctr(args []string) []string {
	return append([]string{"ctr", "-n", d.Namespace}, args...)
}

// Bundle is the directory that the daemon makes for a task of a container.
func (d *Daemon) Bundle(id string) string {
	return filepath.Join(d.State, "io.containerd.runtime.v2.task", d.Namespace, id)
}

// Log is what the daemon has logged so far, with what its shims say of themselves.
func (d *Daemon) Log() string {
	d.q.Helper()
	data, err := os.ReadFile(d.log())
	if err != nil {
		d.q.Fatalf("read containerd's log: %v", err)
	}
	return string(data)
}

// Shims lists the question's shims, as the kernel shows them: processes of the shim's program that were given the
// daemon's address, and, where the daemon is shared, a namespace of the question's.
func (d *Daemon) Shims() []proc.PID {
	d.q.Helper()
	return proc.Find(d.q, func(pid proc.PID, _ string, args []string) bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err == nil && exe == d.shimProgram() && d.isOwnShim(args)
	})
}

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
		d.q.Fatalf("find the shim: %v", err)
	}
	return path
}
