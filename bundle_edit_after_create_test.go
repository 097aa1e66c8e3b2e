//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Editing config.json after create does not change the container. Create has read it, and keeps what it needs in the runtime's own
// state; start, kill and delete do not read it again.
//
// `runc exec` does read it. It is no operation of the specification. runc takes the new process's env, cwd, user and capabilities from
// the bundle's config.json as it is then, but neither its umask nor its OOM score. So an edit changes nothing of the container, but it
// changes the programs that are executed in it later. `runc exec --process` takes the process from another file, and needs no
// config.json.
//
// Hint: where is the container's configuration after create? Which commands still need the bundle?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#create
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_environ.5.html
func TestBundle_DoesEditingConfigJSONAfterCreateChangeTheContainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does editing config.json after create change the container?")
	defer q.Recover()
	c := runc.New(q, bundle.Busybox(q, "sleep", "3600"))
	const onlyKill = proc.Mask(1 << unix.CAP_KILL)

	q.Step("create the container, and then edit everything: program, environment, directory, user, hostname, limits, namespaces, hooks")
	c.Create()
	group := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	pidsMax := group.Read("pids", "pids.max")
	created := proc.Snapshot(q, proc.PID(c.State().Pid))
	c.Bundle.Edit(func(s *specs.Spec) {
		s.Process.Args = []string{"top"}
		s.Process.Env = append(s.Process.Env, "EDITED=yes")
		s.Process.Cwd = "/tmp"
		s.Process.User = specs.User{UID: 1000, GID: 1000, Umask: new(uint32(0o37))}
		s.Process.OOMScoreAdj = new(500)
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}
		s.Hostname = "edited"
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: new(int64(7))}
		s.Linux.Namespaces = s.Linux.Namespaces[:1]
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/no/such/hook"}}}
	})

	q.Step("start the container: it runs as config.json was at create")
	c.Start()
	proc.WaitFor(q, proc.Runs(created.PID, "sleep"))
	started := proc.Snapshot(q, created.PID)
	assert.Check(q, cmp.DeepEqual(started.Args, []string{"sleep", "3600"}))
	assert.Check(q, !slices.Contains(started.Env, "EDITED=yes"), "environ: %q", started.Env)
	assert.Check(q, cmp.Equal(proc.Cwd(q, started.PID), "/"))
	assert.Check(q, cmp.Equal(started.UID, 0))
	bounding := proc.Bits(q, started.PID, "CapBnd")
	assert.Check(q, bounding != onlyKill && bounding.Has(unix.CAP_KILL), "CapBnd after start: %s; the edited config.json has only CAP_KILL",
		bounding)
	q.Fact("CapBnd after start", bounding.String())
	assert.Check(q, cmp.DeepEqual(started.Identity, created.Identity)) // with namespaces, cgroups and mounts
	assert.Check(q, cmp.Equal(pidsMax, "max"), "pids.max after create, before the edit")
	assert.Check(q, cmp.Equal(group.Read("pids", "pids.max"), pidsMax), "pids.max after start: the edited config.json says 7")
	q.Fact("pids.max after start", group.Read("pids", "pids.max"))
	q.Fact("cmdline", started.Args)
	q.Fact("cwd and uid", []string{proc.Cwd(q, started.PID), fmt.Sprint(started.UID)})
	q.Clause("Lifecycle: Any updates to config.json after this step MUST NOT affect the container.", lab.Met)

	q.Step("runc exec takes the edited process")
	executed := runc.ExecSleep(q, c, "edited")
	assert.Check(q, slices.Contains(executed.Env, "EDITED=yes"), "environ of the exec: %q", executed.Env)
	assert.Check(q, cmp.Equal(proc.Cwd(q, executed.PID), "/tmp"))
	assert.Check(q, cmp.Equal(executed.UID, 1000))
	executedBounding := proc.Bits(q, executed.PID, "CapBnd")
	assert.Check(q, cmp.Equal(executedBounding, onlyKill), "CapBnd of the exec: the edited config.json has only CAP_KILL")
	q.Fact("an executed program: CapBnd", executedBounding.String())
	assertUmaskAndScoreOfCaller(q, executed.PID)
	assert.Check(q, cmp.DeepEqual(executed.NS, started.NS), "namespaces are the container's, not those of the edited file")
	hostname := c.Exec("hostname")
	assert.Check(q, cmp.Equal(strings.TrimSpace(hostname.Stdout), "runc"), "the container's hostname")
	edited := slices.DeleteFunc(slices.Clone(executed.Env), func(v string) bool { return !strings.HasPrefix(v, "EDITED=") })
	q.Fact("an executed program: EDITED, cwd, uid", append(edited, proc.Cwd(q, executed.PID), fmt.Sprint(executed.UID)))
	q.Fact("hostname", strings.TrimSpace(hostname.Stdout))

	q.Step("remove config.json: exec fails, and exec --process, state, kill and delete work")
	ofFile := *c.Bundle.Spec.Process
	ofFile.Args, ofFile.Cwd = []string{"sleep", "3602"}, "/etc"
	assert.NilError(q, os.Remove(c.Bundle.Config()))
	q.LogCommand("rm %s/config.json", c.Bundle.Name)
	refused := c.Exec("true")
	assert.Check(q, refused.Code != 0, "exec succeeds without a config.json:\n%s", refused)
	assert.Check(q, cmp.Contains(refused.Stderr, "config.json"))
	q.Fact("runc exec without a config.json: error", runc.LastLogMessage(refused))
	withFile := runc.ExecProcess(q, c, &ofFile)
	assert.Check(q, cmp.Equal(proc.Cwd(q, withFile.PID), "/etc"), "working directory of a program of exec --process")
	q.Fact("runc exec --process without a config.json: cmdline", withFile.Args)
	status := c.State().Status
	assert.Check(q, cmp.Equal(status, specs.StateRunning))
	c.KillAndDelete(started)
	q.Fact("without a config.json: status", status)
	q.Fact("without a config.json: state after delete", file.Names(q, c.Root))

	q.Control("the edit comes before create: another program runs, in another directory")
	c.Bundle.Restore()
	before := runc.Variant(q, c.Bundle, "before", func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "3601"}
		s.Process.Env = append(s.Process.Env, "EDITED=yes")
		s.Process.Cwd = "/tmp"
	})
	editedFirst := before.CreateAndStart()
	assert.Check(q, cmp.DeepEqual(editedFirst.Args, []string{"sleep", "3601"}))
	assert.Check(q, slices.Contains(editedFirst.Env, "EDITED=yes"), "environ: %q", editedFirst.Env)
	assert.Check(q, cmp.Equal(proc.Cwd(q, editedFirst.PID), "/tmp"))
	q.Covers("process.args", "process.env", "process.cwd")
	q.Fact("cmdline, edited before create", editedFirst.Args)

	q.Answer("No, runc reads config.json once, at create. Only runc exec reads it again, for the process that it adds, " +
		"unless --process names another file.")
}

// assertUmaskAndScoreOfCaller asserts that the executed program has the umask and the OOM score of its caller, which is the lab. runc
// takes neither from the edited config.json. Another runtime may.
func assertUmaskAndScoreOfCaller(q *lab.Q, executed proc.PID) {
	q.Helper()
	umaskAndScore := func(pid proc.PID) []string {
		return []string{proc.Status(q, pid, "Umask"), proc.File(q, pid, "oom_score_adj")}
	}
	got, callers := umaskAndScore(executed), umaskAndScore(proc.PID(os.Getpid()))
	if runc.IsRunc(q) {
		assert.Check(q, cmp.DeepEqual(got, callers), "umask and OOM score of the exec and of its caller: the edited config.json has 0037 and 500")
	}
	q.Fact("an executed program: umask and OOM score are its caller's", slices.Equal(got, callers))
}
