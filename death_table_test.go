//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
)

// remains is what is left after a death: what is looked at, and what is seen.
type remains map[string]string

// looks are the lines of the table. The first eight are the kernel's and the file system's; the others are what clients
// of containerd's are told.
var looks = []string{
	"init", "exec", "shim", "bundle", "rootfs mount", "shim's socket", "cgroup", "runtime's state",
	"container", "new client: task", "new client: exec", "old Wait: task", "old Wait: exec",
	"event 1", "event 2", "event 3", "another exec", "a new task",
}

// look looks at all that can be looked at without a change, and at what ctr lists.
func (m *mortal) look(tasks string) remains {
	m.q.Helper()
	r := remains{
		"init": aliveOrDead(m.init.Identity), "exec": "none", "shim": aliveOrDead(m.shim.Identity),
		"bundle":          thereOrGone(file.Exists(m.bundle)),
		"rootfs mount":    thereOrGone(check.MountAt(m.q, filepath.Join(m.bundle, "rootfs")) != nil),
		"shim's socket":   thereOrGone(file.Exists(m.socket)),
		"cgroup":          thereOrGone(m.hasCgroup()),
		"runtime's state": thereOrGone(file.Exists(m.state)),
		"old Wait: task":  m.wait.said(), "old Wait: exec": m.execWait.said(),
	}
	if m.exec != nil {
		r["exec"] = aliveOrDead(m.exec.Identity)
	}
	_, err := m.now.LoadContainer(context.Background(), m.id)
	assert.Check(m.q, err == nil || errdefs.IsNotFound(err), "find container %s: %v", m.id, err)
	r["container"] = thereOrGone(err == nil)
	r["new client: task"], r["new client: exec"] = m.sees()
	ctr := "no task"
	if strings.Contains(tasks, m.id+" ") {
		ctr = check.TableRow(m.q, tasks, m.id)[2]
	}
	client := strings.TrimRight(r["new client: task"], " 0123456789") // without an exit status, which ctr does not list
	assert.Check(m.q, cmp.Equal(ctr, client), "ctr tasks ls, and the Go client, of %s", m)

	for i := range 3 {
		r[fmt.Sprint("event ", i+1)] = "-"
	}
	for i, e := range m.events() {
		if i < m.before {
			e += " (before)"
		}
		if i > 2 {
			m.q.Errorf("%s: more events than the table has lines: %q", m, m.events())
			break
		}
		r[fmt.Sprint("event ", i+1)] = e
	}
	return r
}

// fill looks at each of the dead and tries what can still be done, records each as a fact, and compares the table with
// what is known of the pinned versions. It returns what it saw, by the name of the death.
func fill(q *lab.Q, d *ctrd.Daemon, path string, dead []*mortal) map[string]remains {
	q.Helper()
	tasks := d.Ctr("tasks", "ls").Stdout
	table := map[string]remains{}
	for _, m := range dead {
		table[m.String()] = m.look(tasks)
	}
	for _, m := range dead {
		r := table[m.String()]
		r["another exec"] = m.tryExec()
		r["a new task"] = m.again()
		q.Fact(m.String(), r)
	}
	var columns []string
	for _, m := range dead {
		columns = append(columns, m.String())
	}
	text := aligned(columns, table)
	if q.Pinned() {
		golden.Assert(q, text, path)
	} else {
		differences(q, path, text)
	}
	return table
}

// String is the column on one line, which begins with what has gone and what has not.
func (r remains) String() string {
	by := map[string][]string{}
	rest := ""
	for _, look := range looks {
		switch seen := r[look]; seen {
		case "alive", "there", "dead", "gone":
			by[seen] = append(by[seen], look)
		case "none", "-":
		default:
			rest += fmt.Sprintf("; %s: %s", look, seen)
		}
	}
	var parts []string
	for _, word := range []string{"alive", "there", "dead", "gone"} {
		if len(by[word]) > 0 {
			parts = append(parts, word+": "+strings.Join(by[word], ", "))
		}
	}
	return strings.Join(parts, "; ") + rest
}

// aligned writes the table, a death in each column.
func aligned(columns []string, table map[string]remains) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, strings.Join(append([]string{"after the death of"}, columns...), "\t"))
	for _, look := range looks {
		line := look
		for _, c := range columns {
			line += "\t" + table[c][look]
		}
		fmt.Fprintln(w, line)
	}
	_ = w.Flush()
	return b.String()
}

var gap = regexp.MustCompile(`\s{3,}`)

// cells reads a table back: line and column → cell.
func cells(text string) map[string]string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	columns := gap.Split(lines[0], -1)
	out := map[string]string{}
	for _, line := range lines[1:] {
		f := gap.Split(line, -1)
		for i := 1; i < min(len(f), len(columns)); i++ {
			out[columns[i]+": "+f[0]] = strings.TrimSpace(f[i])
		}
	}
	return out
}

// differences records in which cells another version differs from the pinned one. Which of them it may, the question
// itself says.
func differences(q *lab.Q, path, text string) {
	q.Helper()
	known, err := os.ReadFile(filepath.Join("testdata", path))
	assert.NilError(q, err)
	want, got := cells(string(known)), cells(text)
	for _, cell := range slices.Sorted(maps.Keys(want)) {
		if got[cell] != want[cell] {
			q.Fact("unlike the pinned version, "+cell, fmt.Sprintf("%s, not %s", got[cell], want[cell]))
		}
	}
}
