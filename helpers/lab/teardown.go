//go:build linux

package lab

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/host"
	"cdblab/helpers/howto"
	"cdblab/helpers/retry"
	"cdblab/helpers/slowness"
)

// TearDown is the last step of a question. It takes down what was built, by the chapter's own commands, and asserts that it
// is gone. It does nothing if the question's state is kept.
func (q *Q) TearDown(step string, f func()) {
	q.Helper()
	if q.keepsState() {
		return
	}
	if q.notes.taken {
		q.notes.steps.tornDown = true
	}
	q.Step("%s", step)
	f()
}

// SuggestCommand adds a command to those that a reader can type to look at the question's state when it is kept.
func (q *Q) SuggestCommand(command string) { q.env.suggested = append(q.env.suggested, command) }

// printKept prints how to look at the state that is kept, and how to remove it.
func (q *Q) printKept() {
	q.session.kept.add(q.Dir)
	var b strings.Builder
	b.WriteString("kept. To look around:\n")
	for _, line := range slices.Concat(q.notes.setup, q.env.suggested) {
		b.WriteString("       " + line + "\n")
	}
	b.WriteString("     To remove it:\n       " + howto.Sweep())
	q.notes.line("\n     %s", b.String())
}

// leftoverTimeout is how long a question's leftovers may take to disappear on a quiet machine. The kernel and the shim take a
// moment to release everything.
const leftoverTimeout = 5 * time.Second

// verifyClean fails the question if it left something behind, and sweeps it. If the question's state is kept, verifyClean
// prints how to look at it.
func (q *Q) verifyClean(before host.Inventory) {
	defer q.notes.out.flush()
	if q.keepsState() {
		q.printKept()
		return
	}
	var leftovers []host.Change
	clean := retry.Until(slowness.Scale(leftoverTimeout), func() bool {
		leftovers = q.ignoreOwnDirs(host.OwnedBy(host.Diff(before, q.TakeInventory()), q.Owner))
		return len(leftovers) == 0
	})
	if clean {
		if err := host.RemoveEmpty(q.Owner); err != nil {
			q.Errorf("remove the question's directory and cgroup: %v", err)
		}
		return
	}
	for _, leftover := range leftovers {
		q.Errorf("the question left something behind: %s", leftover)
	}
	swept, err := host.SweepOwner(q.Owner)
	if err != nil {
		q.Errorf("sweep the question's leftovers: %v", err)
	}
	q.Logf("swept: %s", swept)
}

// ignoreOwnDirs returns the changes without those that the lab itself made: the question's directory, and its empty cgroups.
// The runtime makes cgroups on its way down to the container's cgroup, and no runtime removes them.
func (q *Q) ignoreOwnDirs(changes []host.Change) []host.Change {
	var out []host.Change
	for _, c := range changes {
		own := c.Name == q.Dir
		if _, cgroup, _ := strings.Cut(c.Name, ":"); c.Kind == "cgroup" && (cgroup == q.Cgroup || filepath.Dir(cgroup) == "/") {
			own = true // the second one is the cgroup of a containerd namespace, above those of its containers
		}
		if !own {
			out = append(out, c)
		}
	}
	return out
}
