//go:build linux

package check

import (
	"regexp"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// MountOptions returns those of the given options that a mount has, as a flag of the mount itself or of its file system.
func MountOptions(m *mountinfo.Info, of []string) []string {
	has := strings.Split(m.Options+","+m.VFSOptions, ",")
	return slices.DeleteFunc(slices.Clone(of), func(option string) bool { return !slices.Contains(has, option) })
}

// MountsOutside lists the mount points, other than /, that are not one of the directories and not below one of them.
func MountsOutside(ms []*mountinfo.Info, dirs []string) []string {
	var out []string
	for _, m := range ms {
		atOrBelow := func(dir string) bool { return m.Mountpoint == dir || strings.HasPrefix(m.Mountpoint, dir+"/") }
		if m.Mountpoint != "/" && !slices.ContainsFunc(dirs, atOrBelow) {
			out = append(out, m.Mountpoint)
		}
	}
	return out
}

// Propagation returns a mount's propagation in the words of /proc/PID/mountinfo: private, shared, master (it is a slave) or
// shared+master. The numbers of the peer groups are left out, because they differ from run to run.
func Propagation(m *mountinfo.Info) string {
	if m.Optional == "" {
		return "private"
	}
	return strings.ReplaceAll(peerGroup.ReplaceAllString(m.Optional, ""), " ", "+")
}

var peerGroup = regexp.MustCompile(`:\d+`)
