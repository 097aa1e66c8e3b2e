//go:build linux

package failure

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/proc"
)

// rows are the rows of the table. The kernel and the file system show the first eight. containerd reports the others to
// its clients. "old Wait" is that of the client that was there before the death.
var rows = []string{
	"init", "exec", "shim", "bundle", "rootfs mount", "shim's socket", "cgroup", "runtime's state",
	"container", "new client: task", "new client: exec", "old Wait: task", "old Wait: exec",
	"event 1", "event 2", "event 3", "another exec", "a new task",
}

// maxEvents is how many events of a victim the table has rows for.
const maxEvents = 3

// Observation is what remains after a death: a column of the table. It maps each row, such as "shim's socket", to what
// was observed: "alive" or "dead" for a process, "there" or "gone" for a thing, "none" where there was none before.
type Observation map[string]string

// observe records everything observable without side effects. Of a task, ctr and the Go client have to report the same;
// tasks is the output of `ctr tasks ls`.
func (v *Victim) observe(tasks string) Observation {
	v.q.Helper()
	// Of a shim that was killed, or ended while containerd did nothing, a socket that is there was left. Of another, it may have been lost:
	// containerd does not wait for the shim's end before it removes the bundle, by which the shim finds its socket.
	hasSocket := file.Exists(v.Socket) && (v.Killed == Shim || v.Shim.Alive())
	o := Observation{
		"init": aliveOrDead(v.Init.Identity), "exec": "none", "shim": aliveOrDead(v.Shim.Identity),
		"bundle":          ThereOrGone(file.Exists(v.Bundle)),
		"rootfs mount":    ThereOrGone(check.MountAt(v.q, filepath.Join(v.Bundle, "rootfs")) != nil),
		"shim's socket":   ThereOrGone(hasSocket),
		"cgroup":          ThereOrGone(v.HasCgroup()),
		"runtime's state": ThereOrGone(file.Exists(v.StateDir)),
		"old Wait: task":  v.TaskWait.Result(), "old Wait: exec": v.ExecWait.Result(),
	}
	if v.Exec != nil {
		o["exec"] = aliveOrDead(v.Exec.Identity)
	}
	_, err := v.client.LoadContainer(context.Background(), v.ID)
	assert.Check(v.q, err == nil || errdefs.IsNotFound(err), "find container %s: %v", v.ID, err)
	o["container"] = ThereOrGone(err == nil)
	o["new client: task"], o["new client: exec"] = v.Statuses()
	byCtr := "no task"
	if strings.Contains(tasks, v.ID+" ") {
		byCtr = check.TableCell(v.q, tasks, v.ID, 2)
	}
	byClient := strings.TrimRight(o["new client: task"], " 0123456789") // without the exit status, which ctr does not list
	assert.Check(v.q, cmp.Equal(byCtr, byClient), "the status of %s by ctr tasks ls, and by the Go client", v)

	for i := range maxEvents {
		o[eventRow(i)] = "-"
		if v.Lost {
			o[eventRow(i)] = "by chance"
		}
	}
	if v.Lost {
		return o
	}
	events := v.Events()
	if len(events) > maxEvents {
		v.q.Errorf("%s: %d events were received, and the table has rows for %d: %q", v, len(events), maxEvents, events)
		events = events[:maxEvents]
	}
	for i, e := range events {
		if i < v.eventsBefore {
			e += " (before)"
		}
		o[eventRow(i)] = e
	}
	return o
}

// eventRow returns the row of the i-th event, counted from 0.
func eventRow(i int) string { return fmt.Sprint("event ", i+1) }

func aliveOrDead(id proc.Identity) string {
	if id.Alive() {
		return "alive"
	}
	return "dead"
}

// ThereOrGone returns the table's word for a thing that exists, or does not exist any more.
func ThereOrGone(exists bool) string {
	if exists {
		return "there"
	}
	return "gone"
}

// String returns the observation on one line. It begins with what remains and what is gone.
func (o Observation) String() string {
	byWord := map[string][]string{}
	rest := ""
	for _, row := range rows {
		switch seen := o[row]; seen {
		case "alive", "there", "dead", "gone":
			byWord[seen] = append(byWord[seen], row)
		case "none", "-":
		default:
			rest += fmt.Sprintf("; %s: %s", row, seen)
		}
	}
	var parts []string
	for _, word := range []string{"alive", "there", "dead", "gone"} {
		if len(byWord[word]) > 0 {
			parts = append(parts, word+": "+strings.Join(byWord[word], ", "))
		}
	}
	return strings.Join(parts, "; ") + rest
}
