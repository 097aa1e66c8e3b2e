//go:build linux

package check

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/proc"
)

// MountOptions returns those of the given options that a mount has, as a flag of the mount itself or of its file system.
func MountOptions(m *mountinfo.Info, of []string) []string {
	has := strings.Split(m.Options+","+m.VFSOptions, ",")
	return slices.DeleteFunc(slices.Clone(of), func(option string) bool { return !slices.Contains(has, option) })
}

// MountFlags returns the flags that a mount with these options of config.json has, sorted, as /proc/PID/mountinfo shows them.
// A mount is writable and has relatime where no option says otherwise (mount(2)). The kernel shows no word for strictatime.
func MountFlags(options ...string) []string {
	flags := map[string]bool{"rw": true, "relatime": true}
	for _, option := range options {
		switch option {
		case "ro", "rw":
			delete(flags, "ro")
			delete(flags, "rw")
			flags[option] = true
		case "relatime", "noatime", "strictatime":
			delete(flags, "relatime")
			delete(flags, "noatime")
			flags[option] = option != "strictatime"
		case "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow":
			flags[option] = true
		}
	}
	maps.DeleteFunc(flags, func(_ string, shown bool) bool { return !shown })
	return slices.Sorted(maps.Keys(flags))
}

// MountTable describes each mount of a process, sorted: its mount point, root, type and flags, and the options of its file system.
// Those of an overlay are left out, because they name directories of the host.
func MountTable(tb testing.TB, p proc.Process) []string {
	tb.Helper()
	var out []string
	for _, m := range Mounts(tb, p) {
		words := []string{m.Mountpoint, m.Root, m.FSType, strings.Join(FlagsOf(m), ",")}
		if m.FSType != "overlay" {
			words = append(words, m.VFSOptions)
		}
		out = append(out, strings.Join(words, " "))
	}
	slices.Sort(out)
	return out
}

// FlagsOf returns the flags of a mount, sorted.
func FlagsOf(m *mountinfo.Info) []string { return slices.Sorted(strings.SplitSeq(m.Options, ",")) }

// FileSystemOptions returns those options of a mount in config.json that have a value, such as size=64k, in the form of
// /proc/PID/mountinfo: a mode has no leading zeros. They belong to the file system.
func FileSystemOptions(options []string) []string {
	var out []string
	for _, option := range options {
		if name, value, ok := strings.Cut(option, "="); ok {
			out = append(out, name+"="+strings.TrimLeft(value, "0"))
		}
	}
	return out
}

// MountedFor returns the mounts that a runtime makes for a mount of config.json: the one at its destination, or, for the type cgroup
// on cgroup v1, the one of each hierarchy below it. runc mounts these in a tmpfs, and leaves the tmpfs writable whatever the
// options say (verified with 1.1.12 and 1.5.2).
func MountedFor(tb testing.TB, mounts []*mountinfo.Info, m specs.Mount) []*mountinfo.Info {
	tb.Helper()
	if m.Type != "cgroup" || cgroup.Version(tb) == "v2" {
		return []*mountinfo.Info{TopMount(tb, mounts, m.Destination)}
	}
	var out []*mountinfo.Info
	for _, mounted := range mounts {
		if strings.HasPrefix(mounted.Mountpoint, m.Destination+"/") {
			out = append(out, mounted)
		}
	}
	assert.Check(tb, len(out) > 0, "no cgroup hierarchy is mounted below %s", m.Destination)
	return out
}

// IsAsConfigured asserts that a mount in the container of a process has the type that config.json gives it, the flags that the
// options ask for and no others, and the options that are the file system's own. It is not for bind mounts, which have the type
// and the flags of their source.
func IsAsConfigured(tb testing.TB, p proc.Process, mounted *mountinfo.Info, m specs.Mount) {
	tb.Helper()
	wantType := m.Type
	if m.Type == "cgroup" && cgroup.Version(tb) == "v2" {
		wantType = "cgroup2"
	}
	assert.Check(tb, cmp.Equal(mounted.FSType, wantType), "type of the mount at %s", mounted.Mountpoint)
	assert.Check(tb, cmp.DeepEqual(FlagsOf(mounted), MountFlags(m.Options...)),
		"flags of the mount at %s, whose options in config.json are %v", mounted.Mountpoint, m.Options)
	want := FileSystemOptions(m.Options)
	if m.Type == "tmpfs" { // mountinfo does not show the mode if it is the default, 1777
		mode := fmt.Sprintf("mode=%o", StatInRoot(tb, p.PID, m.Destination).Mode&0o7777)
		want = slices.DeleteFunc(want, func(option string) bool { return option == mode })
	}
	assert.Check(tb, cmp.DeepEqual(MountOptions(mounted, want), want),
		"options of the file system at %s: mountinfo has %s", mounted.Mountpoint, mounted.VFSOptions)
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

// PropagationFrom returns the propagation of a mount that is a copy of another one: peer (in the original's group: both receive what is
// mounted in the other one), slave (it receives), private, shared (in a group that is not the original's), slave+shared, or unbindable.
func PropagationFrom(original, m *mountinfo.Info) string {
	group := strings.TrimPrefix(original.Optional, "shared:")
	var words []string
	for word := range strings.FieldsSeq(m.Optional) {
		switch kind, number, _ := strings.Cut(word, ":"); {
		case kind == "shared" && number == group:
			words = append(words, "peer")
		case kind == "master" && number == group:
			words = append(words, "slave")
		default:
			words = append(words, kind)
		}
	}
	if words == nil {
		return "private"
	}
	slices.Sort(words)
	slices.Reverse(words)
	return strings.Join(words, "+")
}

var peerGroup = regexp.MustCompile(`:\d+`)
