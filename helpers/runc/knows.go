//go:build linux

package runc

import (
	"bytes"
	"os"
	"strings"

	"cdblab/helpers/lab"
)

// Knows reports whether the runtime under test knows a field of its input by its name in JSON: then the name is in the program. A
// script, behind which another program is the runtime, has to do what the pinned runc does.
//
// A version number would not show what a distribution has patched.
func Knows(q *lab.Q, field string) bool {
	q.Helper()
	program, err := os.ReadFile(q.UnderTest("runc").Path)
	if err != nil {
		q.Fatalf("look for %s in the runtime under test: %v", field, err)
	}
	return bytes.HasPrefix(program, []byte("#!")) || bytes.Contains(program, []byte(field))
}

// KnowsScheduler is [Knows] for process.scheduler, which runc has since 1.2.0. The word alone is in each Go program, whose own runtime
// has a scheduler. A runtime in C has the names of the policies.
func KnowsScheduler(q *lab.Q) bool {
	q.Helper()
	return Knows(q, `json:"scheduler`) || Knows(q, "SCHED_BATCH")
}

// FeaturesHave reports whether `runc features` prints a name, such as that of a seccomp action. A runtime without this command, such as
// crun 1.8, has none.
func FeaturesHave(q *lab.Q, name string) bool {
	q.Helper()
	r := q.Exec("runc", "features")
	return r.Code == 0 && strings.Contains(r.Stdout, `"`+name+`"`)
}
