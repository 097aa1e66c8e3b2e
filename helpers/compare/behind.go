package compare

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/host"
)

// withoutContainerd are the questions that containerd, ctr and the shim have no part in.
var withoutContainerd = regexp.MustCompile(`^Test(Bundle|Lifecycle)_`)

// Behind says what can be the reason for the differences of a question: each part of the stack that is not the same in the two runs, and
// that the question depends on.
func (c *Comparison) Behind(q Question) string {
	ofRunc := withoutContainerd.MatchString(q.Test) && !strings.Contains(q.Test, "ontainerd")
	var reasons []string
	for _, r := range c.Stacks() {
		switch {
		case r.Same, r.Name == verdictsRow, strings.HasPrefix(r.Name, host.ContainerdConfig):
			// The lab's containerd does not read the machine's configuration.
		case ofRunc && slices.Contains([]string{"containerd", "ctr", "containerd-shim-runc-v2"}, r.Name):
		default:
			reasons = append(reasons, fmt.Sprintf("%s: %s → %s", r.Name, r.A, r.B))
		}
	}
	switch len(reasons) {
	case 0:
		return "Nothing that the lab records of the two machines is different. Run both again: a fact that changes by chance is a mistake of the lab."
	case 1:
		return "What lies behind it is " + reasons[0]
	}
	return "What can lie behind it: " + strings.Join(reasons, "; ")
}
