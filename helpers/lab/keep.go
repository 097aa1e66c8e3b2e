//go:build linux

package lab

import (
	"os"
	"strings"
	"sync"
)

// keepEnv asks for the state of the questions (CDB_KEEP=1), or of those that fail (CDB_KEEP=failed), to stay for a look.
const keepEnv = "CDB_KEEP"

// kept says whether the question's state is to stay.
func (q *Q) keepsState() bool {
	switch os.Getenv(keepEnv) {
	case "", "0", "no":
		return false
	case "failed":
		return q.Failed()
	}
	return true
}

// TearDown is the last step of a question: what was built is taken down, by the chapter's own commands, and that it is
// gone is verified. Where the state is to be kept for a look, it is left out.
func (q *Q) TearDown(step string, f func()) {
	q.Helper()
	if q.keepsState() {
		return
	}
	q.Step("%s", step)
	f()
}

// keep tells how to look at the state that stays, and how to get rid of it.
func keep(q *Q) {
	keptMu.Lock()
	keptQuestions = append(keptQuestions, q.Dir)
	keptMu.Unlock()
	var b strings.Builder
	b.WriteString("kept. To look around:\n")
	for _, line := range q.notes.setup {
		b.WriteString("       " + line + "\n")
	}
	for _, line := range q.env.looks {
		b.WriteString("       " + line + "\n")
	}
	b.WriteString("     To remove it:\n       make sweep")
	q.notes.line("\n     %s", b.String())
}

// keptQuestions are the directories of the questions whose state stays.
var (
	keptMu        sync.Mutex
	keptQuestions []string
)

// Look adds a command to what a reader is told to type when the question's state is kept.
func (q *Q) SuggestCommand(command string) { q.env.looks = append(q.env.looks, command) }
