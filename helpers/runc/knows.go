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
// A name that is also a word of other things needs its tag: "scheduler,omitempty". A version number would not show what a
// distribution has patched.
func Knows(q *lab.Q, field string) bool {
	q.Helper()
	program, err := os.ReadFile(q.UnderTest("runc").Path)
	if err != nil {
		q.Fatalf("look for %s in the runtime under test: %v", field, err)
	}
	return bytes.HasPrefix(program, []byte("#!")) || bytes.Contains(program, []byte(field))
}

// KnowsSince is [Knows] for a field of the runtime specification that runc has since a release. The name alone proves nothing:
// a distribution may build an old runc with a newer package of the specification, which has all names. Debian's runc 1.1 is one.
func KnowsSince(q *lab.Q, field, release string) bool {
	q.Helper()
	return Knows(q, field) && !(IsRunc(q) && q.UnderTest("runc").Precedes(release))
}

// KnowsScheduler is [KnowsSince] for process.scheduler, which runc has since 1.2.0. The word alone is in each Go program, whose own runtime
// has a scheduler. A runtime in C has the names of the policies.
func KnowsScheduler(q *lab.Q) bool {
	q.Helper()
	return KnowsSince(q, `json:"scheduler`, "1.2.0-rc.1") || Knows(q, "SCHED_BATCH") && !IsRunc(q)
}

// FeaturesHave reports whether `runc features` prints a name, such as that of a seccomp action. A runtime without this command, such as
// crun 1.8, has none.
func FeaturesHave(q *lab.Q, name string) bool {
	q.Helper()
	r := q.Exec("runc", "features")
	return r.Code == 0 && strings.Contains(r.Stdout, `"`+name+`"`)
}
