//go:build linux && vmlab

package cdblab

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"cdblab/helpers/check"

	shimapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ptypes "github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// By a unix socket, which is named after the daemon's address, the containerd namespace and the container's id; whoever
// may open it can call the shim, and containerd need not even live.
//
// The name is a sha256, since a path of a socket may have but 108 bytes. The bundle keeps the address, the protocol and
// its version, from which a containerd that has been restarted finds its shims. The protocol is TTRPC: gRPC's calls
// without HTTP/2. Who made the socket was the helper that started the shim, and the kernel still says so.
//
// Hint: bootstrap.json (or address) in the bundle; printf %s ADDRESS/NAMESPACE/ID | sha256sum; ss -xlp.
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md, https://github.com/containerd/ttrpc
// Kernel: https://man7.org/linux/man-pages/man7/unix.7.html, SO_PEERCRED
func TestTask_HowIsTheShimReached(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How is the shim reached?")
	d := ctrd.Start(q)
	id := q.ID(ctrd.ID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "300")
	socket := filepath.Join(d.SocketDir, hash(d.Address+"/"+d.Namespace+"/"+id))
	assert.Check(q, cmp.ErrorIs(check.Dial(socket), unix.ENOENT), "before there is a task")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of the task")
	shim := proc.Snapshot(q, shims[0])

	q.Step("the bundle says where: an address, a protocol and its version")
	said := bootstrap(q, d.Bundle(id))
	assert.Check(q, cmp.Equal(said.Address, "unix://"+socket), "the sha256 of address/namespace/id")
	assert.Check(q, cmp.Equal(said.Protocol, "ttrpc"))
	q.Fact("said in the bundle's", said.file)
	q.Fact("socket", "sha256 of address/namespace/id")
	q.Fact("protocol", said.Protocol)
	q.Fact("version", said.Version)

	q.Step("the shim listens there, and only root may connect")
	assert.Check(q, proc.Listens(q, shim, socket), "the shim does not listen on %s", socket)
	var st unix.Stat_t
	assert.NilError(q, unix.Lstat(socket, &st))
	assert.Check(q, cmp.Equal(st.Mode&unix.S_IFMT, uint32(unix.S_IFSOCK)), "the file's type")
	assert.Check(q, cmp.Equal(st.Mode&0o7777, uint32(0o600)), "the file's mode")
	assert.Check(q, cmp.DeepEqual([]uint32{st.Uid, st.Gid}, []uint32{0, 0}), "the file's owner and group")
	q.Fact("mode and owner", fmt.Sprintf("%04o %d:%d", st.Mode&0o7777, st.Uid, st.Gid))

	q.Control("another id, or another containerd namespace: a socket that does not exist")
	for _, other := range []string{d.Namespace + "/" + id + "-other", d.Namespace + "-other/" + id} {
		assert.Check(q, cmp.ErrorIs(check.Dial(filepath.Join(d.SocketDir, hash(d.Address+"/"+other))), unix.ENOENT), other)
	}

	q.Step("containerd is killed: the shim is asked without it")
	d.Ctr("tasks", "exec", "-d", "--fifo-dir", d.FifoDir, "--exec-id", "second", id, "sleep", "301")
	second := proc.FirstExcept(pid, proc.Children(q, shim.PID))
	proc.WaitFor(q, proc.Runs(second, "sleep"))
	exec := proc.Snapshot(q, second)
	d.Kill()
	conn, err := net.Dial("unix", socket)
	assert.NilError(q, err)
	creds := peer(q, conn)
	client := ttrpc.NewClient(conn)
	q.TB.Cleanup(func() { client.Close() })
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), d.Namespace), proc.Patience)
	defer cancel()
	call := func(method string, request, response any) {
		q.Helper()
		q.LogCommand("# TTRPC client: %s %s", service(said.Version), method)
		assert.NilError(q, client.Call(ctx, service(said.Version), method, request, response))
	}

	var connected shimapi.ConnectResponse
	call("Connect", &shimapi.ConnectRequest{ID: id}, &connected)
	assert.Check(q, cmp.Equal(proc.PID(connected.ShimPid), shim.PID), "Connect: the shim's pid")
	assert.Check(q, cmp.Equal(proc.PID(connected.TaskPid), pid), "Connect: the task's pid")
	q.Fact("Connect: shim and task", []proc.PID{shim.PID, pid})
	var state shimapi.StateResponse
	call("State", &shimapi.StateRequest{ID: id}, &state)
	assert.Check(q, cmp.Equal(state.Status, task.Status_RUNNING))
	assert.Check(q, cmp.Equal(proc.PID(state.Pid), pid), "State: the task's pid")
	assert.Check(q, cmp.Equal(state.Bundle, d.Bundle(id)))
	q.Fact("State", state.Status)
	assert.Check(q, cmp.DeepEqual(cgroup.Of(q, "/"+d.Namespace+"/"+id).Procs(), check.Sorted(pid, second)))
	assert.Check(q, cmp.DeepEqual(pids(call, id), check.Sorted(pid, second)), "Pids")
	q.Fact("Pids", []proc.PID{pid, exec.PID})

	q.Step("it obeys, too: the exec is killed, and the shim has its exit status")
	call("Kill", &shimapi.KillRequest{ID: id, ExecID: "second", Signal: uint32(unix.SIGKILL)}, &ptypes.Empty{})
	proc.WaitFor(q, proc.Dead(exec.Identity))
	var waited shimapi.WaitResponse
	call("Wait", &shimapi.WaitRequest{ID: id, ExecID: "second"}, &waited)
	assert.Check(q, cmp.Equal(waited.ExitStatus, uint32(128+unix.SIGKILL)))
	assert.Check(q, cmp.DeepEqual(pids(call, id), []proc.PID{pid}), "Pids, after the death of the exec")
	q.Fact("exit status of the exec", waited.ExitStatus)

	q.Step("SO_PEERCRED names who called listen: the helper that started the shim and has ended, and not the shim")
	assert.Check(q, cmp.DeepEqual([]uint32{creds.Uid, creds.Gid}, []uint32{0, 0}))
	assert.Check(q, proc.PID(creds.Pid) != shim.PID, "the shim itself called listen")
	helper, err := proc.Read(proc.PID(creds.Pid))
	assert.Check(q, err != nil || helper.Start > shim.Start, "process %d, which called listen, lives: %v", creds.Pid, helper.Args)
	q.Fact("who called listen", proc.PID(creds.Pid))

	q.Control("the other version of the protocol: the shim answers, but has no such service")
	other := service(5 - said.Version)
	err = client.Call(ctx, other, "Connect", &shimapi.ConnectRequest{ID: id}, &connected)
	assert.Check(q, cmp.ErrorContains(err, other), "the shim speaks it as well")
	q.Fact("of the other version it says", fmt.Sprint(err))

	q.TearDown("containerd is back and finds it; with the task, the socket goes", func() {
		d.Start()
		assert.Check(q, cmp.DeepEqual(d.Shims(), shims))
		assert.Check(q, cmp.Equal(bootstrap(q, d.Bundle(id)), said))
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, d.Stopped(id))
		d.DeleteTask(id)
		proc.WaitFor(q, proc.Dead(shim.Identity))
		assert.Check(q, cmp.ErrorIs(check.Dial(socket), unix.ENOENT), "after tasks delete")
	})

	q.Answer("By a socket named sha256(address/namespace/id), in TTRPC: by containerd, or by anyone who is root.")
}

// service is the name of the shim's service in a version of it. Between 2 and 3 the messages have not changed.
func service(version int) string { return fmt.Sprintf("containerd.task.v%d.Task", version) }

// pids asks the shim for the processes of a container.
func pids(call func(method string, request, response any), id string) []proc.PID {
	var all shimapi.PidsResponse
	call("Pids", &shimapi.PidsRequest{ID: id}, &all)
	var out []proc.PID
	for _, p := range all.Processes {
		out = append(out, proc.PID(p.Pid))
	}
	return check.Sorted(out...)
}

// boot is what a bundle says of how its shim is reached.
type boot struct {
	Version           int
	Address, Protocol string

	file string
}

// bootstrap reads it: from bootstrap.json, or from the file address, which was there before and means version 2.
func bootstrap(q *lab.Q, bundle string) boot {
	q.Helper()
	path := ctrd.AddressFile(bundle)
	b := boot{file: filepath.Base(path)}
	if b.file == "address" {
		b.Version, b.Address, b.Protocol = 2, file.Read(q, path), "ttrpc"
		return b
	}
	assert.NilError(q, json.Unmarshal([]byte(file.Read(q, path)), &b))
	return b
}

func hash(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

// peer is who the kernel says is at the other end.
func peer(q *lab.Q, conn net.Conn) *unix.Ucred {
	q.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	assert.NilError(q, err)
	var creds *unix.Ucred
	assert.NilError(q, raw.Control(func(fd uintptr) {
		creds, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}))
	assert.NilError(q, err)
	return creds
}
