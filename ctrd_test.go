//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// What several rooms of the chapter do with a containerd.

// pull pulls the lab's image through a registry on loopback, under the chapter's name for it, and returns that name.
func pull(q *lab.Q, d *ctrd.Daemon) string {
	q.Helper()
	ref, ours := lab.ImageRef()
	if !ours {
		d.Ctr("images", "pull", ref)
		return ref
	}
	registry := image.Serve(q)
	d.Ctr("images", "pull", "--hosts-dir", registry.HostsDir(q), ref) // the daemon reads it, in a directory of its own
	// The layer itself is fetched once, and shared by all containerd namespaces.
	asked := registry.Requests()
	assert.Check(q, cmp.Contains(asked, "HEAD /v2/library/busybox/manifests/latest"), "asked of the registry on loopback")
	q.Fact("image served from", "loopback")
	return ref
}

// pullAgain pulls in another containerd namespace what is pulled already.
func pullAgain(q *lab.Q, d *ctrd.Daemon, ref string) {
	q.Helper()
	argv := []string{"images", "pull"}
	if _, ours := lab.ImageRef(); ours {
		// The registry of the first pull serves until the question ends.
		argv = append(argv, "--hosts-dir", filepath.Join(q.Dir, "hosts"))
	}
	d.Ctr(append(argv, ref)...)
}

// deleteTask deletes a task. If that fails, what the reader needs to see is the list of tasks; nothing is forced.
func deleteTask(q *lab.Q, d *ctrd.Daemon, id string) {
	q.Helper()
	if r := d.TryCtr("tasks", "delete", id); r.Code != 0 {
		q.Fatalf("the task cannot be deleted:\n%s\n%s", r, d.TryCtr("tasks", "ls"))
	}
}

// killAndDelete ends a task and deletes it.
func killAndDelete(q *lab.Q, d *ctrd.Daemon, id string) {
	q.Helper()
	d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
	proc.WaitFor(q, d.Stopped(id))
	deleteTask(q, d, id)
}

// pauseTask is [pause] through containerd. What is frozen cannot be killed: it is thawed, should the question end here.
func pauseTask(q *lab.Q, d *ctrd.Daemon, id string) {
	q.Helper()
	g := cgroup.Of(q, "/"+d.Namespace+"/"+id)
	q.Cleanup(func() {
		if g.Frozen() {
			d.TryCtr("tasks", "resume", id)
		}
	})
	r := d.TryCtr("tasks", "pause", id)
	for range 50 {
		if r.Code == 0 || !strings.Contains(r.Stderr, "unable to freeze") {
			break
		}
		r = d.TryCtr("tasks", "pause", id)
	}
	if r.Code != 0 {
		q.Fatalf("this command had to succeed:\n%s", r)
	}
}

// shimsLeft is a poll check: the daemon has n shims.
func shimsLeft(d *ctrd.Daemon, n int) poll.Check {
	return func(poll.LogT) poll.Result {
		if got := d.Shims(); len(got) != n {
			return poll.Continue("%d shims: %v, want %d", len(got), got, n)
		}
		return poll.Success()
	}
}

// row returns the fields of the line of a table that begins with a word.
func row(q *lab.Q, table, first string) []string {
	q.Helper()
	for line := range strings.SplitSeq(table, "\n") {
		if f := strings.Fields(line); len(f) > 0 && f[0] == first {
			return f
		}
	}
	q.Fatalf("no line begins with %q:\n%s", first, table)
	return nil
}

// files lists the names in a directory.
func files(q *lab.Q, dir string) []string {
	q.Helper()
	entries, err := os.ReadDir(dir)
	assert.NilError(q, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// onlyWhenAsked has the daemon collect garbage only when somebody waits for it; else it does so at its start and every
// second or so after something was deleted, between any two steps.
const onlyWhenAsked = `[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "1h"
  pause_threshold = 0.0000001`

// wrapper makes a program that is called in the runtime's place, or the shim's: a shell script, to which $RUNC and $SHIM are
// those under test. It has to outlive the tasks: who starts a daemon makes it before.
func wrapper(q *lab.Q, name, script string) string {
	q.Helper()
	path := filepath.Join(q.Mkdir(name), name)
	text := fmt.Sprintf("#!/bin/sh\nRUNC=%s SHIM=%s\n%s\n", lab.UnderTest("runc").Path, lab.UnderTest("containerd-shim-runc-v2").Path, script)
	q.LogCommandAs("cat > "+path+"   # "+strings.ReplaceAll(script, "\n", "; "), "mkdir -p "+filepath.Dir(path)+" && cat > "+path+" <<'END'\n"+text+"END\nchmod +x "+path)
	assert.NilError(q, os.WriteFile(path, []byte(text), 0o755))
	return path
}
