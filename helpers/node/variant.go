package node

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/vm"
)

// A Variant says what the node is.
type Variant struct {
	Suite         string // of Debian: bookworm
	Cgroup        string // v2; v1 or hybrid for systemd's old hierarchies
	SystemdCgroup bool   // containerd lets runc ask systemd for each cgroup
}

var suiteName = regexp.MustCompile(`^[a-z]+$`)

// ParseVariant reads the variables of make: SUITE=trixie CGROUP=v1 SYSTEMD_CGROUP=1. The archive's address MIRROR is not part of the
// variant; "" stands for the sources of this machine's apt.
func ParseVariant(words []string) (v Variant, mirror string, err error) {
	v = Variant{Suite: "bookworm", Cgroup: "v2"}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		known := true
		switch name {
		case "SUITE":
			v.Suite, known = value, suiteName.MatchString(value)
		case "CGROUP":
			v.Cgroup, known = value, slices.Contains([]string{"v1", "v2", "hybrid"}, value)
		case "SYSTEMD_CGROUP":
			v.SystemdCgroup, known = value == "1", slices.Contains([]string{"0", "1"}, value)
		case "MIRROR":
			mirror, known = value, strings.Contains(value, "://")
		default:
			known = false
		}
		if !known {
			return v, "", &vm.Fault{
				Tried: "read the variant of the node", Seen: fmt.Sprintf("%q is not a variant", word),
				Do: "use SUITE=bookworm (a name of Debian's), CGROUP=v2, v1 or hybrid, SYSTEMD_CGROUP=1, " +
					"MIRROR=http://… (an address of Debian's archive)",
			}
		}
	}
	return v, mirror, nil
}

// Name returns the beginning of the image's name.
func (v Variant) Name() string {
	name := v.Suite + "-cgroup-" + v.Cgroup
	if v.SystemdCgroup {
		name += "-systemd-driver"
	}
	return name
}

// kernelWords returns the words that the variant adds to the kernel's command line. systemd 256 and 257 use the old hierarchies only
// with the last word; systemd 258 has them no more.
//
// https://github.com/systemd/systemd/blob/v257/NEWS
func (v Variant) kernelWords() string {
	switch v.Cgroup {
	case "v1":
		return "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
	case "hybrid":
		return "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
	}
	return ""
}

// firstWithoutV1 is the first version of systemd that has cgroup v2 only.
const firstWithoutV1 = 258
