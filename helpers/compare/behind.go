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

// readsNodeConfig is in the name of the question that takes keys from the machine's own configuration of containerd.
const readsNodeConfig = "ConfigTOML"

// nodeConfigKeys matches the keys that it takes, and what decides whether it can.
var nodeConfigKeys = regexp.MustCompile(`(default_runtime_name|runtime_type|BinaryName|SystemdCgroup|snapshotter|disabled_plugins|imports|version)$`)

// ReadsNodeConfig reports whether a question depends on a key of the machine's own configuration of containerd.
func ReadsNodeConfig(test, key string) bool {
	return strings.Contains(test, readsNodeConfig) && nodeConfigKeys.MatchString(key)
}

// Behind says what can be the reason for the differences of a question: each part of the stack that is not the same in the two runs, and
// that the question depends on.
func (c *Comparison) Behind(q Question) string {
	ofRunc := withoutContainerd.MatchString(q.Test) && !strings.Contains(q.Test, "ontainerd")
	var names []string
	var only StackRow
	if c.chaptersDiffer() {
		names, only = append(names, "the lab"), StackRow{Name: "the lab", A: "its version of the question in A", B: "that in B"}
	}
	for _, r := range c.Stacks() {
		switch {
		case r.Same, r.Name == verdictsRow:
		case strings.HasPrefix(r.Name, host.ContainerdConfig) && !ReadsNodeConfig(q.Test, r.Name):
			// The lab's containerd does not read the machine's configuration.
		case ofRunc && slices.Contains([]string{"containerd", "ctr", "containerd-shim-runc-v2"}, r.Name):
		default:
			names, only = append(names, r.Name), r
		}
	}
	switch len(names) {
	case 0:
		return "Nothing that the lab records of the two machines is different. Run both again: " +
			"a fact that changes by chance is a mistake of the lab."
	case 1:
		return fmt.Sprintf("What lies behind it is %s: %s → %s", only.Name, only.A, only.B)
	}
	return "What can lie behind it: " + strings.Join(names, ", ")
}
