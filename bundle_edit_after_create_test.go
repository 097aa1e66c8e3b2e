//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// No. Create has read it, and keeps what it needs in the runtime's own state; start, kill and delete never look again.
//
// `exec` does look: it is no operation of the specification, and runc takes the new process's env, cwd, user and
// capabilities from the bundle's config.json as it is then. So an edit, though it changes nothing of the container,
// changes what is executed in it afterwards; and without a config.json there is no exec.
//
// Hint: where is the container's configuration after create? Which commands still need the bundle?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#create
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_environ.5.html
func TestBundle_DoesEditingConfigJSONAfterCreateChangeTheContainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does editing config.json after create change the container?")
	c := runc.New(q, bundle.Busybox(q, "sleep", "300"))

	q.Step("created, and then everything is edited: program, environment, directory, user, hostname, limits, hooks")
	c.Create()
	created := proc.Snapshot(q, proc.PID(c.State().Pid))
	c.Bundle.Edit(func(s *specs.Spec) {
		s.Process.Args = []string{"top"}
		s.Process.Env = append(s.Process.Env, "EDITED=yes")
		s.Process.Cwd = "/tmp"
		s.Process.User = specs.User{UID: 1000, GID: 1000}
		s.Hostname = "edited"
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: new(int64(7))}
		s.Linux.Namespaces = s.Linux.Namespaces[:1]
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/no/such/hook"}}}
	})

	q.Step("start: what was created runs, as it was written then")
	c.Start()
	proc.WaitFor(q, proc.Runs(created.PID, "sleep"))
	p := proc.Snapshot(q, created.PID)
	assert.Check(q, cmp.DeepEqual(p.Args, []string{"sleep", "300"}))
	assert.Check(q, !slices.Contains(p.Env, "EDITED=yes"), "environ: %q", p.Env)
	assert.Check(q, cmp.Equal(proc.Cwd(q, p.PID), "/"))
	assert.Check(q, cmp.Equal(p.UID, 0))
	assert.Check(q, cmp.DeepEqual(p.Identity, created.Identity))
	q.Fact("cmdline", p.Args)
	q.Fact("cwd and uid", []string{proc.Cwd(q, p.PID), fmt.Sprint(p.UID)})
	q.Clause("Lifecycle: Any updates to config.json after this step MUST NOT affect the container.", lab.Met)

	q.Step("exec: it takes the edited process")
	e := runc.ExecSleep(q, c, "edited")
	assert.Check(q, slices.Contains(e.Env, "EDITED=yes"), "environ of the exec: %q", e.Env)
	assert.Check(q, cmp.Equal(proc.Cwd(q, e.PID), "/tmp"))
	assert.Check(q, cmp.Equal(e.UID, 1000))
	assert.Check(q, cmp.DeepEqual(e.NS, p.NS), "namespaces are the container's, not those of the edited file")
	host := c.Exec("hostname")
	assert.Check(q, cmp.Equal(strings.TrimSpace(host.Stdout), "runc"), "the container's hostname")
	q.Fact("an exec's EDITED, cwd, uid", []string{"yes", proc.Cwd(q, e.PID), fmt.Sprint(e.UID)})
	q.Fact("hostname", strings.TrimSpace(host.Stdout))

	q.Step("no config.json at all: exec fails, the rest works")
	assert.NilError(q, os.Remove(c.Bundle.Config()))
	q.LogCommand("rm %s/config.json", c.Bundle.Name)
	refused := c.Exec("true")
	assert.Check(q, refused.Code != 0, "exec succeeds without a config.json:\n%s", refused)
	assert.Check(q, cmp.Contains(refused.Stderr, "config.json"))
	q.Fact("exec says", runc.LastLogMessage(refused))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	c.KillAndDelete(p)
	assert.Check(q, !file.Exists(c.StateDir()))
	q.Fact("state, kill and delete", "work")

	q.Control("the edit before create: another program, in another place")
	c.Bundle.Restore()
	before := runc.Variant(q, c.Bundle, "before", func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "301"}
		s.Process.Env = append(s.Process.Env, "EDITED=yes")
		s.Process.Cwd = "/tmp"
	})
	b := before.CreateAndStart()
	assert.Check(q, cmp.DeepEqual(b.Args, []string{"sleep", "301"}))
	assert.Check(q, slices.Contains(b.Env, "EDITED=yes"), "environ: %q", b.Env)
	assert.Check(q, cmp.Equal(proc.Cwd(q, b.PID), "/tmp"))
	q.Fact("cmdline", b.Args)

	q.Answer("No: it was read once, at create. Only exec reads it again, for the process that it adds.")
}
