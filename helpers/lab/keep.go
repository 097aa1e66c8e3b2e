//go:build linux

package lab

import (
	"os"
	"slices"
	"strings"
	"sync"
)

// keepEnv asks for the state of all questions (CDB_KEEP=1), or of those that fail (CDB_KEEP=failed), to be kept for a look.
const keepEnv = "CDB_KEEP"

// keepPolicy says which questions leave their state on the machine.
type keepPolicy int

const (
	keepNever keepPolicy = iota
	keepFailed
	keepAlways
)

func keepPolicyFromEnv() keepPolicy {
	switch os.Getenv(keepEnv) {
	case "", "0", "no":
		return keepNever
	case "failed":
		return keepFailed
	}
	return keepAlways
}

// keepsState reports whether the question's state is kept. Everything that takes state down asks this first.
func (q *Q) keepsState() bool {
	return q.session.keep == keepAlways || q.session.keep == keepFailed && q.Failed()
}

// Cleanup registers a teardown as testing.TB does. It is not called for a question whose state is kept.
func (q *Q) Cleanup(f func()) {
	q.TB.Cleanup(func() {
		if !q.keepsState() {
			f()
		}
	})
}

// TearDown is the last step of a question: it takes down what was built, by the chapter's own commands, and asserts that
// it is gone. It does nothing where state is kept.
func (q *Q) TearDown(step string, f func()) {
	q.Helper()
	if q.keepsState() {
		return
	}
	q.Step("%s", step)
	f()
}

// SuggestCommand adds a command to those that a reader is told to type when the question's state is kept.
func (q *Q) SuggestCommand(command string) { q.env.suggested = append(q.env.suggested, command) }

// printKept tells the reader how to look at the state that is kept, and how to remove it.
func (q *Q) printKept() {
	q.session.kept.add(q.Dir)
	var b strings.Builder
	b.WriteString("kept. To look around:\n")
	for _, line := range slices.Concat(q.notes.setup, q.env.suggested) {
		b.WriteString("       " + line + "\n")
	}
	b.WriteString("     To remove it:\n       make sweep")
	q.notes.line("\n     %s", b.String())
}

// keptDirs are the directories of the questions whose state is kept.
type keptDirs struct {
	mu   sync.Mutex
	dirs []string
}

func (k *keptDirs) add(dir string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirs = append(k.dirs, dir)
}

func (k *keptDirs) list() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.dirs)
}
