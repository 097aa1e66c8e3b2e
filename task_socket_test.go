//go:build linux && vmlab

package cdblab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	shimapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ptypes "github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// The shim is reached by a unix socket, which is named after the daemon's address, the containerd namespace and the container's
// id. Every process that may open it can call the shim, and containerd need not even live.
//
// The name is a sha256, since the path of a socket may have no more than 108 bytes. The bundle keeps the address and, since containerd 2,
// the protocol and its version. From these, a containerd that has been restarted finds its shims. The protocol is TTRPC: gRPC's calls
// without HTTP/2. The helper that started the shim made the socket, and the kernel still shows its pid.
//
// Hint: bootstrap.json (or address) in the bundle; printf %s ADDRESS/NAMESPACE/ID | sha256sum; ss -xlp.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#start, https://github.com/containerd/ttrpc
// Kernel: https://man7.org/linux/man-pages/man7/unix.7.html, SO_PEERCRED
func TestTask_HowIsTheShimReached(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How is the shim reached?")
	defer q.Recover()
	d := ctrd.Start(q)
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")
	socket := shimSocketPath(d, d.Namespace, id)
	assert.Check(q, cmp.ErrorIs(check.Dial(socket), unix.ENOENT), "before there is a task")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of the task")
	shim := proc.Snapshot(q, shims[0])

	q.Step("read the bundle: it names the socket by its address and, since containerd 2, the protocol and its version")
	bootstrap := d.Bootstrap(id)
	named := bootstrap.Address == "unix://"+socket
	assert.Check(q, named, "the bundle names %s, and the sha256 of address/namespace/id gives %s", bootstrap.Address, socket)
	q.Fact("file of the bundle that has the address", bootstrap.File)
	q.Fact("socket: its name is the sha256 of address/namespace/id", named)
	recordProtocol(q, bootstrap)

	q.Step("look at the socket: the shim listens there, and only root may connect")
	assert.Check(q, proc.Listens(q, shim, socket), "the shim does not listen on %s", socket)
	access := file.AccessOf(q, socket)
	assert.Check(q, cmp.Equal(access, "socket 0600 0:0"), "type, mode and owner of the shim's socket")
	q.Fact("the shim's socket: type, mode and owner", access)

	q.Step("look at what leads to it: only root may write there; containerd's own sockets are for root and its group")
	recordAccess(q, d, id)

	q.Step("connect and cut the connection, also before the answer is read: the shim has as many descriptors of each kind as before")
	recordCutConnections(q, d, id, socket, shim, bootstrap.Version)

	q.Step("look at the modes: only root may write the files of the bundle, and only root may enter containerd's root directory")
	recordClosedToOthers(q, d, id)

	q.Control("look for the socket of another id, and of another containerd namespace: they do not exist")
	assert.Check(q, cmp.ErrorIs(check.Dial(shimSocketPath(d, d.Namespace, id+"-other")), unix.ENOENT), "another id")
	assert.Check(q, cmp.ErrorIs(check.Dial(shimSocketPath(d, d.Namespace+"-other", id)), unix.ENOENT), "another containerd namespace")

	q.Step("kill containerd: the shim answers without it")
	d.ExecDetached(id, "second", "sleep", "3601")
	second := proc.FirstExcept(pid, proc.Children(q, shim.PID))
	proc.WaitFor(q, proc.Runs(second, "sleep"))
	exec := proc.Snapshot(q, second)
	d.Kill()
	conn, err := net.Dial("unix", socket)
	assert.NilError(q, err)
	creds := proc.PeerCredentials(q, conn)
	client := newShimClient(q, conn, d.Namespace, bootstrap.Version)
	var connected shimapi.ConnectResponse
	client.call("Connect", &shimapi.ConnectRequest{ID: id}, &connected)
	assert.Check(q, cmp.Equal(proc.PID(connected.ShimPid), shim.PID), "Connect: the shim's pid")
	assert.Check(q, cmp.Equal(proc.PID(connected.TaskPid), pid), "Connect: the task's pid")
	q.Fact("Connect: shim and task", []proc.PID{shim.PID, pid})
	var state shimapi.StateResponse
	client.call("State", &shimapi.StateRequest{ID: id}, &state)
	assert.Check(q, cmp.Equal(state.Status, task.Status_RUNNING))
	assert.Check(q, cmp.Equal(proc.PID(state.Pid), pid), "State: the task's pid")
	assert.Check(q, cmp.Equal(state.Bundle, d.Bundle(id)))
	q.Fact("State", state.Status)
	assert.Check(q, cmp.DeepEqual(cgroup.Of(q, "/"+d.Namespace+"/"+id).Procs(), check.Sorted(pid, second)))
	assert.Check(q, cmp.DeepEqual(client.pids(id), check.Sorted(pid, second)), "Pids")
	q.Fact("Pids", []proc.PID{pid, exec.PID})

	q.Step("have the shim kill the exec: it takes commands as well, and has the exit status")
	client.call("Kill", &shimapi.KillRequest{ID: id, ExecID: "second", Signal: uint32(unix.SIGKILL)}, &ptypes.Empty{})
	proc.WaitFor(q, proc.Dead(exec.Identity))
	var waited shimapi.WaitResponse
	client.call("Wait", &shimapi.WaitRequest{ID: id, ExecID: "second"}, &waited)
	assert.Check(q, cmp.Equal(waited.ExitStatus, uint32(128+unix.SIGKILL)))
	assert.Check(q, cmp.DeepEqual(client.pids(id), []proc.PID{pid}), "Pids, after the death of the exec")
	q.Fact("exit status of the exec", waited.ExitStatus)

	q.Step("ask for SO_PEERCRED: it names the process that called listen, which is the helper that started the shim and has ended")
	recordListenCaller(q, creds, shim)

	q.Control("call the other version of the protocol: the shim answers that it has no such service")
	other := shimService(5 - bootstrap.Version)
	err = client.tryCall(other, "Connect", &shimapi.ConnectRequest{ID: id}, &connected)
	assert.Check(q, cmp.ErrorContains(err, other), "error of the other version of the protocol")
	q.Fact("error of the other version of the protocol", fmt.Sprint(err))

	q.TearDown("start containerd again and delete the task: containerd finds the shim, and the socket is removed with the task", func() {
		d.Start()
		assert.Check(q, cmp.DeepEqual(d.Shims(), shims))
		assert.Check(q, cmp.Equal(d.Bootstrap(id), bootstrap))
		d.KillAndDeleteTask(id)
		proc.WaitFor(q, proc.Dead(shim.Identity))
		assert.Check(q, check.Dial(socket) != nil, "after tasks delete, the socket %s accepts a connection", socket)
		assertSocketRemoved(q, d, id, socket)
	})

	q.Answer("The shim listens on a unix socket that is named sha256(address/namespace/id), and speaks TTRPC. containerd and " +
		"any other process of root can call it there.")
}

// recordProtocol asserts that bootstrap.json names a protocol and its version that the lab knows.
func recordProtocol(q *lab.Q, bootstrap ctrd.Bootstrap) {
	if bootstrap.File == "bootstrap.json" {
		assert.Check(q, cmp.Equal(bootstrap.Protocol, "ttrpc"))
		assert.Check(q, bootstrap.Version == 2 || bootstrap.Version == 3, "version of the protocol: %d", bootstrap.Version)
		q.Fact("protocol", bootstrap.Protocol)
		q.Fact("version", bootstrap.Version)
	} else { // the file is the address, and no more
		q.Fact("protocol", "not in the bundle")
		q.Fact("version", "not in the bundle")
	}
}

// recordCutConnections asserts that connections that were cut cost the shim neither descriptors nor threads.
func recordCutConnections(q *lab.Q, d *ctrd.Daemon, id, socket string, shim proc.Process, version int) {
	before := proc.DescriptorKinds(q, shim.PID)
	const cut = 20
	q.LogCommand("# TTRPC client, %d times: connect and close; connect, call Connect, and close without reading the answer", cut)
	for range cut {
		assert.NilError(q, check.Dial(socket)) // which closes the connection
		resetConnection(q, socket, d.Namespace, version, id)
	}
	// The kernel completes a connection before the shim has accepted it. The shim accepts in order: once it answers a later connection, it
	// has accepted all of them.
	later, err := net.Dial("unix", socket)
	assert.NilError(q, err)
	afterCut := newShimClient(q, later, d.Namespace, version)
	afterCut.call("Connect", &shimapi.ConnectRequest{ID: id}, &shimapi.ConnectResponse{})
	assert.NilError(q, afterCut.ttrpc.Close())
	// One socket more may be the shim's own connection to containerd, which it makes again when a dial took too long.
	proc.WaitFor(q, proc.HasNoMoreDescriptors(shim.PID, before, 1))
	// Go makes threads as it needs them, and keeps them. How many it needs depends on the machine, and not on the number of connections.
	started := proc.Snapshot(q, shim.PID).Threads - shim.Threads
	assert.Check(q, started < cut, "the shim has %d threads more after %d connections that were cut", started, 2*cut)
	q.Fact(fmt.Sprintf("threads of the shim after %d connections that were cut: fewer than %d more", 2*cut, cut), started < cut)
}

// recordListenCaller asserts that root has called listen, in a process other than the shim, which has ended.
func recordListenCaller(q *lab.Q, creds *unix.Ucred, shim proc.Process) {
	assert.Check(q, cmp.DeepEqual([]uint32{creds.Uid, creds.Gid}, []uint32{0, 0}))
	assert.Check(q, proc.PID(creds.Pid) != shim.PID, "the shim itself called listen")
	helper, err := proc.Read(proc.PID(creds.Pid))
	assert.Check(q, err != nil || helper.Start > shim.Start, "process %d, which called listen, lives: %v", creds.Pid, helper.Args)
	q.Fact("process that called listen", proc.PID(creds.Pid))
}

// assertSocketRemoved asserts that the shim has removed its socket, if not at once, then when the task is started and deleted again.
func assertSocketRemoved(q *lab.Q, d *ctrd.Daemon, id, socket string) {
	// The shim removes it. A shim that is slow does not find it: containerd has removed the bundle, which has the way to it.
	for tries := 1; file.Exists(socket) && tries < 5; tries++ {
		d.StartTaskAndWait(id)
		d.KillAndDeleteTask(id)
	}
	assert.Check(q, !file.Exists(socket), "after tasks delete, each of five times: %s is still there", socket)
}

// shimSocketPath returns the path of the socket that a shim of a container makes.
func shimSocketPath(d *ctrd.Daemon, namespace, id string) string {
	return filepath.Join(d.SocketDir, fmt.Sprintf("%x", sha256.Sum256([]byte(d.Address+"/"+namespace+"/"+id))))
}

// recordAccess asserts which users may connect to containerd, and which may write into the directories on the way to a task's files.
func recordAccess(q *lab.Q, d *ctrd.Daemon, id string) {
	// Who can connect to containerd is root on this machine.
	for _, socket := range []string{d.Address, d.Address + ".ttrpc"} {
		assert.Check(q, cmp.Equal(file.AccessOf(q, socket), "socket 0660 0:0"), "type, mode and owner of %s", socket)
		q.Fact(filepath.Base(socket)+": type, mode and owner", file.AccessOf(q, socket))
	}
	bundle := d.Bundle(id)
	fifos := file.Names(q, d.FifoDir)
	assert.Assert(q, cmp.Len(fifos, 1), "directories of FIFOs of one task")
	for _, dir := range []struct{ name, path, want string }{
		{"containerd's state", d.State, "directory 07[01][01] 0:0"},
		{"bundles of the containerd namespace", filepath.Dir(bundle), "directory 07[01][01] 0:0"},
		{"bundle", bundle, "directory 0700 0:0"},
		{"rootfs of the bundle", filepath.Join(bundle, "rootfs"), "directory 07[0-7][0145] 0:0"},
		{"directory of the task's FIFOs", filepath.Join(d.FifoDir, fifos[0]), "directory 0700 0:0"},
	} {
		assert.Check(q, cmp.Regexp("^"+dir.want+"$", file.AccessOf(q, dir.path)), "type, mode and owner of the %s", dir.name)
		q.Fact(dir.name+": type, mode and owner", file.AccessOf(q, dir.path))
	}
}

// resetConnection calls the shim, and closes the connection when the answer has arrived and was not read. The shim's next read fails with
// ECONNRESET then, and not with the end of the stream. Shims of containerd before 1.6.20 kept such a connection.
func resetConnection(q *lab.Q, socket, namespace string, version int, id string) {
	q.Helper()
	conn, err := net.Dial("unix", socket)
	assert.NilError(q, err)
	client := newShimClient(q, &unreadConn{Conn: conn, closed: make(chan struct{})}, namespace, version)
	ended := lab.Go(func() error {
		return client.tryCall(shimService(version), "Connect", &shimapi.ConnectRequest{ID: id}, &shimapi.ConnectResponse{})
	})
	raw, err := conn.(*net.UnixConn).SyscallConn()
	assert.NilError(q, err)
	assert.NilError(q, conn.SetReadDeadline(time.Now().Add(proc.Patience)))
	arrived := 0
	assert.NilError(q, raw.Read(func(fd uintptr) bool {
		arrived, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN
	}), "wait for the shim's answer to Connect")
	assert.Assert(q, arrived == 1 && err == nil, "the shim has closed the connection without an answer to Connect: %v", err)
	assert.NilError(q, client.ttrpc.Close())
	assert.Check(q, <-ended != nil, "the client has read an answer, so the connection was not reset")
}

// unreadConn is a connection from which nothing is read.
type unreadConn struct {
	net.Conn
	closed chan struct{}
}

func (c *unreadConn) Read([]byte) (int, error) {
	<-c.closed
	return 0, net.ErrClosed
}

func (c *unreadConn) Close() error {
	close(c.closed) // the client closes once
	return c.Conn.Close()
}

// recordClosedToOthers asserts that other users may neither write the files of the bundle, nor enter containerd's root.
func recordClosedToOthers(q *lab.Q, d *ctrd.Daemon, id string) {
	// A user who can write the address can make containerd talk to another program. containerd 1.7.11 and 2.1.4 had files with mode 0666.
	writable := file.WritableByOthers(q, d.Bundle(id), "rootfs") // the files of the image have the modes that the image gives them
	assert.Check(q, cmp.Len(writable, 0), "files of the bundle that other users may write: %q", writable)
	q.Fact("files of the bundle that other users may write", writable)
	// A user who can enter the root can execute set-user-ID programs of snapshots. Before 1.7.29, 2.0.7 and 2.1.5 its mode was 0711
	// (CVE-2024-25621).
	var root unix.Stat_t
	assert.NilError(q, unix.Stat(d.Root, &root))
	assert.Check(q, cmp.Equal(root.Mode&0o077, uint32(0)), "containerd's root has the mode %04o, and only root may enter it", root.Mode&0o7777)
	q.Fact("mode of containerd's root", fmt.Sprintf("%04o", root.Mode&0o7777))
}

// shimClient calls a shim as containerd does, by TTRPC.
type shimClient struct {
	q         *lab.Q
	namespace string
	version   int // of the shim's service
	ttrpc     *ttrpc.Client
}

// newShimClient returns a client that calls the shim by a connection, which it closes after the question.
func newShimClient(q *lab.Q, conn net.Conn, namespace string, version int) *shimClient {
	client := ttrpc.NewClient(conn)
	q.TB.Cleanup(func() { client.Close() })
	return &shimClient{q: q, namespace: namespace, version: version, ttrpc: client}
}

// shimService returns the name of the shim's service. Between versions 2 and 3 its messages have not changed.
func shimService(version int) string { return fmt.Sprintf("containerd.task.v%d.Task", version) }

// call calls a method of the service in the version that the bundle names.
func (c *shimClient) call(method string, request, response any) {
	c.q.Helper()
	c.q.LogCommand("# TTRPC client: %s %s", shimService(c.version), method)
	assert.NilError(c.q, c.tryCall(shimService(c.version), method, request, response))
}

// tryCall calls a method of a service. Each call has a deadline of its own: with CDB_STEP=1 a reader takes any time between two steps.
func (c *shimClient) tryCall(service, method string, request, response any) error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), c.namespace), proc.Patience)
	defer cancel()
	return c.ttrpc.Call(ctx, service, method, request, response)
}

// pids asks the shim for the processes of a task.
func (c *shimClient) pids(id string) []proc.PID {
	c.q.Helper()
	var response shimapi.PidsResponse
	c.call("Pids", &shimapi.PidsRequest{ID: id}, &response)
	var out []proc.PID
	for _, p := range response.Processes {
		out = append(out, proc.PID(p.Pid))
	}
	return check.Sorted(out...)
}
