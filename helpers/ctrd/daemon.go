//go:build linux

// Package ctrd starts a private containerd for a question, or shares one among questions. Questions use it through ctr,
// as a reader types it, and through the Go client. Private means that it shares no file, socket or directory with a
// containerd of the host.
package ctrd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"

	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/slowness"
)

// Namespace is the chapter's containerd namespace. In a shared daemon each question has a namespace of its own, whose
// name begins with it.
const Namespace = "cdb-lab"

// ContainerID is the chapter's id for a container that containerd creates.
const ContainerID = "cdb-task"

// Daemon is a containerd, as one question uses it.
type Daemon struct {
	*server
	Namespace string // containerd namespace of the question's commands
	FifoDir   string // directory of the FIFOs for the tasks' standard streams

	q      *lab.Q
	name   string // see [StartNamed]
	shared bool
	client *containerd.Client
}

// Option changes the configuration of a private containerd.
type Option func(*configuration)

// WithConfig returns an option that appends a table to the configuration: "[debug]\n  level = \"debug\"".
func WithConfig(table string) Option {
	return func(c *configuration) { c.tables = append(c.tables, table) }
}

// WithNodeConfig returns an option that gives containerd the CRI plugin, with what the configuration of a node decides for pods.
func WithNodeConfig(node NodeConfig) Option { return func(c *configuration) { c.node = &node } }

// Start starts a containerd for this question alone and waits until it answers. When the question ends, its containers
// are deleted, the daemon is stopped, and its directories are removed.
func Start(q *lab.Q, options ...Option) *Daemon {
	q.Helper()
	return start(q, "", nil, options)
}

// StartNamed is [Start] for a question that starts a daemon in each of several subtests. The names of the facts about the daemon begin
// with its name.
func StartNamed(q *lab.Q, name string, options ...Option) *Daemon {
	q.Helper()
	return start(q, name, nil, options)
}

func start(q *lab.Q, name string, service *service, options []Option) *Daemon {
	q.Helper()
	dir := q.Mkdir("containerd")
	q.Mkdir("s")
	var c configuration
	for _, o := range options {
		o(&c)
	}
	s, err := newServer(q.Session(), q, dir, c, func(argv ...string) (*exec.Cmd, error) {
		return q.Cmd(context.Background(), argv...), nil
	})
	if err != nil {
		q.Fatal(err)
	}
	s.service = service
	d := &Daemon{server: s, Namespace: Namespace, q: q, name: name, FifoDir: filepath.Join(q.Dir, "fifo")}
	if !file.Exists(d.FifoDir) { // else it is that of the shared daemon, which the question uses as well
		q.Mkdir("fifo")
	}
	q.LogCommandAs("cat > containerd/config.toml   # root, state, address and socket_dir below "+q.Dir,
		"mkdir -p containerd "+s.SocketDir+" fifo && cat > containerd/config.toml <<'END'\n"+s.toml+"END")
	q.Export("CONTAINERD_ADDRESS", d.Address)
	d.useOverlayfs()
	q.SuggestCommand("ctr -n " + Namespace + " tasks ls   # and, where the daemon has died: " +
		"containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS &")
	d.registerCleanUp()
	d.Start()
	d.connect()
	q.Fact(d.factName("containerd answers after"), lab.Elapsed(d.StartupTime))
	return d
}

func (d *Daemon) factName(name string) string {
	if d.name == "" {
		return name
	}
	return d.name + ": " + name
}

// useOverlayfs makes the question's ctr use the snapshotter overlayfs, which is ctr's default, also if the caller's
// environment names another one. Several questions look into its directories.
func (d *Daemon) useOverlayfs() {
	const env = "CONTAINERD_SNAPSHOTTER"
	if os.Getenv(env) != "" {
		d.q.Export(env, "overlayfs")
	}
}

// registerCleanUp has [Daemon.cleanUp] called when the question ends. [Start] and [Shared] both call it before they
// connect. Cleanups are called in reverse order: the question's clients are closed first, and cleanUp then makes a
// client of its own. So it works the same whether or not the daemon was killed or restarted, and it also runs if the
// question fails while the daemon starts or while it connects.
func (d *Daemon) registerCleanUp() { d.q.Cleanup(d.cleanUp) }

// connect makes the question's Go client.
func (d *Daemon) connect() {
	d.q.Helper()
	c, err := NewClient(d.Address, d.Namespace)
	if err != nil {
		d.q.Fatalf("connect to containerd at %s: %v", d.Address, err)
	}
	d.client = c
	// Not q.Cleanup: the client is part of this process, and is closed even if the daemon is kept.
	d.q.TB.Cleanup(func() { c.Close() })
}

// Start starts the daemon again after a [Daemon.Kill] or [Daemon.Stop].
func (d *Daemon) Start() {
	d.q.Helper()
	d.requirePrivate()
	if d.service == nil { // else the command of systemd is logged
		d.q.LogCommandAs("containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS &",
			"containerd --config containerd/config.toml --address $CONTAINERD_ADDRESS 2>> containerd/log & sleep 1")
	}
	if err := d.server.start(); err != nil {
		d.q.Fatal(err)
	}
	d.rememberPrograms()
	if d.client != nil {
		// The connection of the old client would wait, up to a second, before it dials again.
		d.connect()
	}
}

// rememberPrograms notes the programs with which the daemon has answered, for [Daemon.startForCleanUp].
func (d *Daemon) rememberPrograms() {
	d.q.Helper()
	d.answered = nil
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		d.answered = append(d.answered, d.q.UnderTest(name))
	}
}

// PID returns the daemon's process, or 0 while there is none.
func (d *Daemon) PID() proc.PID {
	if d.service != nil {
		return d.service.PID()
	}
	if d.cmd == nil {
		return 0
	}
	return proc.PID(d.cmd.Process.Pid)
}

// Kill ends the daemon with SIGKILL and waits until its process has ended.
func (d *Daemon) Kill() {
	d.q.Helper()
	d.requirePrivate()
	d.q.LogCommand("kill -KILL %d   # containerd", d.PID())
	if err := d.server.kill(); err != nil {
		d.q.Fatal(err)
	}
}

// Stop ends the daemon with SIGTERM and waits until its process has ended.
func (d *Daemon) Stop() error {
	d.q.Helper()
	d.requirePrivate()
	if d.service == nil { // else the command of systemd is logged
		d.q.LogCommand("kill -TERM %d   # containerd", d.PID())
	}
	return d.server.stop()
}

// requirePrivate fails a question that would start or end a daemon which other questions use.
func (d *Daemon) requirePrivate() {
	d.q.Helper()
	if d.shared {
		d.q.Fatal("this containerd is shared with other questions: a question that starts or ends it must get its own from ctrd.Start")
	}
}

// InNamespace returns the same daemon, used in another containerd namespace of the question.
func (d *Daemon) InNamespace(namespace string) *Daemon {
	d.q.Helper()
	other := *d
	other.Namespace = d.q.ID(namespace)
	other.connect()
	return &other
}

// InSubtest returns the same daemon, used by a subtest of the question: what fails there ends only the subtest.
func (d *Daemon) InSubtest(subtest *lab.Q) *Daemon {
	other := *d
	other.q = subtest
	return &other
}

// Client returns a Go client of the daemon. Its default containerd namespace is the question's.
func (d *Daemon) Client() *containerd.Client { return d.client }

// Ctr runs ctr in the question's containerd namespace. The command must succeed.
func (d *Daemon) Ctr(args ...string) lab.Result {
	d.q.Helper()
	result := d.TryCtr(args...)
	if result.Code != 0 {
		d.q.Fatalf("this command had to succeed:\n%s", result)
	}
	return result
}

// TryCtr runs ctr in the question's containerd namespace and returns its result, whatever its exit code is.
//
// ctr waits ten seconds until the daemon has answered its connection, and a machine that is emulated may stand still for longer. Then
// ctr has called nothing, and is run again: twice, and more often on a slow machine.
func (d *Daemon) TryCtr(args ...string) (result lab.Result) {
	d.q.Helper()
	for range slowness.Factor() + 2 {
		result = d.q.Exec(d.ctrCommand(args)...)
		if result.Code == 0 || !hasNotConnected(result.Stderr) || !d.runs() {
			break
		}
		d.q.Logf("containerd runs, and has not answered ctr: %s", strings.TrimSpace(result.Stderr))
	}
	return result
}

// hasNotConnected reports whether ctr's message says that the daemon has not answered its connection. That of 1.7 ends with the first text
// and the error of a context; newer ones have the second text, too.
func hasNotConnected(stderr string) bool {
	return strings.Contains(stderr, `ctr: failed to dial "`) || strings.Contains(stderr, "connection error: desc")
}

func (d *Daemon) ctrCommand(args []string) []string {
	return append([]string{"ctr", "-n", d.Namespace}, args...)
}

// Bundle returns the path of the directory that the daemon makes for the task of a container.
func (d *Daemon) Bundle(id string) string {
	return filepath.Join(d.State, "io.containerd.runtime.v2.task", d.Namespace, id)
}
