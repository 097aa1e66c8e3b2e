//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cdblab/helpers/check"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// By one function of the runtime, specconv.CreateLibcontainerConfig: names become numbers, and options become flags.
//
// libcontainer knows no config.json. It takes a structure of its own, in which namespaces are NEWPID, nosuid is a bit, and
// an option that is no bit is data for the file system; what the specification demands of every container, such as
// /dev/null, has become devices. What concerns the first process alone (args, env, cwd, user) is not in it: that goes into
// another structure, which is not recorded.
//
// Hint: "config" in state.json beside config.json.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md
// Kernel: https://man7.org/linux/man-pages/man2/mount.2.html, https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
func TestBundle_HowDoesAnOciFieldBecomeLibcontainersConfiguration(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does an OCI field become libcontainer's configuration?")
	b := bundle.Busybox(q, "sleep", "300")
	b.Spec.Process.Capabilities.Ambient = nil // an older runc spec asks for some, without what they need
	umask, adj, pids, memory, mode := uint32(0o027), 500, int64(50), int64(64<<20), os.FileMode(0o640)
	nonce := "CDB_NONCE=" + filepath.Base(q.Dir) + "-of-the-process"

	full := translate(q, runc.Variant(q, b, "full", func(s *specs.Spec) {
		s.Hostname = "translated"
		s.Root.Readonly = false
		s.Process.Env = append(s.Process.Env, nonce)
		s.Process.NoNewPrivileges = false
		s.Process.OOMScoreAdj = &adj
		s.Process.User.Umask = &umask
		for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Permitted, &s.Process.Capabilities.Effective} {
			*set = append(*set, "CAP_SYS_CHROOT")
		}
		s.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
		s.Process.Capabilities.Ambient = []string{"CAP_KILL"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "scratch",
			Options: []string{"ro", "noexec", "size=128k"}})
		s.Linux.RootfsPropagation = "shared"
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/proc/version")
		s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, "/proc/tty")
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/nil", Type: "c", Major: 1, Minor: 3, FileMode: &mode}}
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	}))
	plain := translate(q, runc.Variant(q, b, "plain", bundle.WithoutNamespace(specs.IPCNamespace), func(s *specs.Spec) {
		s.Hostname = "other"
		// /dev/mqueue is of the IPC namespace, which is the host's.
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "mqueue" })
	}))

	q.Step("one row for a field: what libcontainer is told is what the kernel shows; another value of the field, and both are others")
	for _, row := range []struct {
		field, of string // of config.json, of libcontainer's Config
		told      func(configs.Config) any
		shows     func(translated) any
	}{
		{"linux.namespaces[].type", "Namespaces", toldNamespaces, func(c translated) any { return c.OwnNamespaces(proc.Self(c.q).Identity) }},
		{"hostname", "Hostname", func(c configs.Config) any { return c.Hostname }, func(c translated) any { return c.sh.Run("hostname").Out }},
		{"root.readonly", "Readonlyfs", func(c configs.Config) any { return c.Readonlyfs }, func(c translated) any { return c.flags("/")["ro"] }},
		{"mounts[].destination", "Mounts[].Destination", func(c configs.Config) any {
			return eachMount(c, func(m *configs.Mount) any { return true })
		}, func(c translated) any {
			return eachMount(c.config, func(m *configs.Mount) any { return c.mount(m.Destination) != nil })
		}},
		{"mounts[].type", "Mounts[].Device", func(c configs.Config) any {
			return eachMount(c, func(m *configs.Mount) any { return m.Device })
		}, func(c translated) any {
			return eachMount(c.config, func(m *configs.Mount) any {
				// On cgroup v1 it is a directory of hierarchies, on v2 a file system of another name.
				if at := c.mount(m.Destination); at != nil && m.Device != "cgroup" {
					return at.FSType
				}
				return m.Device
			})
		}},
		{"mounts[].options", "Mounts[].Flags", func(c configs.Config) any {
			return eachMount(c, func(m *configs.Mount) any { return toldFlags(m) })
		}, func(c translated) any {
			return eachMount(c.config, func(m *configs.Mount) any { return c.flags(c.underneath(m)) })
		}},
		{"mounts[].options (what is no flag)", "Mounts[].Data", func(c configs.Config) any {
			return eachMount(c, func(m *configs.Mount) any { return sizes(m.Data) })
		}, func(c translated) any {
			return eachMount(c.config, func(m *configs.Mount) any {
				if at := c.mount(m.Destination); at != nil && m.Device == "tmpfs" {
					return sizes(at.VFSOptions)
				}
				return ""
			})
		}},
		{"linux.rootfsPropagation", "RootPropagation", func(c configs.Config) any { return c.RootPropagation&unix.MS_SHARED != 0 },
			func(c translated) any { return strings.Contains(c.mount("/").Optional, "shared:") }},
		{"process.capabilities.bounding", "Capabilities.Bounding", func(c configs.Config) any { return mask(c.Capabilities.Bounding) },
			func(c translated) any { return proc.Bits(c.q, c.PID, "CapBnd") }},
		{"process.capabilities.effective", "Capabilities.Effective", func(c configs.Config) any { return mask(c.Capabilities.Effective) },
			func(c translated) any { return proc.Bits(c.q, c.PID, "CapEff") }},
		{"process.capabilities.permitted", "Capabilities.Permitted", func(c configs.Config) any { return mask(c.Capabilities.Permitted) },
			func(c translated) any { return proc.Bits(c.q, c.PID, "CapPrm") }},
		{"process.capabilities.inheritable", "Capabilities.Inheritable", func(c configs.Config) any { return mask(c.Capabilities.Inheritable) },
			func(c translated) any { return proc.Bits(c.q, c.PID, "CapInh") }},
		{"process.capabilities.ambient", "Capabilities.Ambient", func(c configs.Config) any { return mask(c.Capabilities.Ambient) },
			func(c translated) any { return proc.Bits(c.q, c.PID, "CapAmb") }},
		{"process.noNewPrivileges", "NoNewPrivileges", func(c configs.Config) any { return c.NoNewPrivileges },
			func(c translated) any { return proc.Status(c.q, c.PID, "NoNewPrivs") == "1" }},
		{"process.oomScoreAdj", "OomScoreAdj", func(c configs.Config) any {
			if c.OomScoreAdj == nil {
				return file.Read(q, "/proc/self/oom_score_adj") // what it inherits
			}
			return strconv.Itoa(*c.OomScoreAdj)
		}, func(c translated) any { return proc.File(c.q, c.PID, "oom_score_adj") }},
		{"process.user.umask", "Umask", func(c configs.Config) any {
			if c.Umask == nil {
				return "0022" // what the specification has for it
			}
			return fmt.Sprintf("%04o", *c.Umask)
		}, func(c translated) any { return proc.Status(c.q, c.PID, "Umask") }},
		{"linux.maskedPaths", "MaskPaths", func(c configs.Config) any { return there(full, c.MaskPaths) }, func(c translated) any {
			return slices.DeleteFunc(there(c, c.config.MaskPaths), func(path string) bool { return !c.masked(path) })
		}},
		{"linux.readonlyPaths", "ReadonlyPaths", func(c configs.Config) any { return there(full, c.ReadonlyPaths) }, func(c translated) any {
			return slices.DeleteFunc(there(c, c.config.ReadonlyPaths), func(path string) bool { return !c.flags(path)["ro"] })
		}},
		{"linux.sysctl", "Sysctl", func(c configs.Config) any { return c.Sysctl["net.ipv4.ip_forward"] == "1" },
			func(c translated) any { return c.sh.Run("cat /proc/sys/net/ipv4/ip_forward").Out == "1" }},
		{"linux.devices[].path", "Devices[].Path", func(c configs.Config) any {
			return eachDevice(c, func(path string, major, minor int64) string { return fmt.Sprintf("%d:%d", major, minor) })
		}, func(c translated) any {
			return eachDevice(c.config, func(path string, _, _ int64) string {
				d := uint64(check.StatInRoot(c.q, c.PID, path).Rdev)
				return fmt.Sprintf("%d:%d", unix.Major(d), unix.Minor(d))
			})
		}},
		{"linux.cgroupsPath", "Cgroups.Path", func(c configs.Config) any { return c.Cgroups.Path }, func(c translated) any {
			if c.group.V2 {
				return c.Cgroups[""]
			}
			return c.Cgroups["pids"]
		}},
		{"linux.resources.pids.limit", "Cgroups.PidsLimit", func(c configs.Config) any {
			if c.Cgroups.PidsLimit == nil {
				return "max"
			}
			return strconv.FormatInt(*c.Cgroups.PidsLimit, 10)
		}, func(c translated) any { return c.group.Read("pids", "pids.max") }},
		{"linux.resources.memory.limit", "Cgroups.Memory", func(c configs.Config) any { return c.Cgroups.Memory == memory }, func(c translated) any {
			path := "memory.limit_in_bytes"
			if c.group.V2 {
				path = "memory.max"
			}
			return c.group.Read("memory", path) == strconv.FormatInt(memory, 10)
		}},
	} {
		for _, c := range []translated{full, plain} {
			told, shown := row.told(c.config), row.shows(c)
			if !q.UnderTest("runc").Pinned && !reflect.DeepEqual(told, shown) {
				q.Fact(row.field+", of another runc", shown) // its libcontainer is not the one that converts here
				continue
			}
			assert.Check(q, cmp.DeepEqual(told, shown), "%s, Config.%s of container %s: told, and what the kernel shows", row.field, row.of, c.name)
		}
		assert.Check(q, !reflect.DeepEqual(row.told(full.config), row.told(plain.config)), "%s is the same in both, so the row shows nothing", row.field)
		q.Fact(row.field+" → "+row.of, row.told(full.config))
	}

	if cgroup.Version(q) == "v1" {
		// There is one mount for each hierarchy; libcontainer puts them on a tmpfs of its own making, with flags of its own.
		made := full.sh.Run("mkdir /sys/fs/cgroup/made && rmdir /sys/fs/cgroup/made")
		refused := full.sh.Run("mkdir " + full.underneath(&configs.Mount{Device: "cgroup", Destination: "/sys/fs/cgroup"}) + "/made")
		assert.Check(q, refused.Code != 0, "a hierarchy that was to be read-only is not")
		q.Fact("ro of /sys/fs/cgroup, in a hierarchy", refused.Out)
		q.Fact("ro of /sys/fs/cgroup, beside the hierarchies", map[bool]string{true: "not applied: mkdir succeeds", false: made.Out}[made.Code == 0])
	}

	q.Step("names have become numbers, and options bits and data")
	for _, m := range full.config.Mounts {
		if m.Destination == "/tmp" {
			assert.Check(q, cmp.Equal(m.Flags, unix.MS_RDONLY|unix.MS_NOEXEC))
			assert.Check(q, cmp.Equal(m.Data, "size=128k"))
			q.Fact("ro,noexec,size=128k", fmt.Sprintf("%#x and %q", m.Flags, m.Data))
		}
	}
	q.Fact("linux.namespaces", full.config.Namespaces)
	q.Fact("devices of which config.json says nothing", len(plain.config.Devices))
	assert.Check(q, len(plain.config.Devices) > 0 && len(plain.c.Bundle.Spec.Linux.Devices) == 0, "no default devices")

	q.Step("state.json has what libcontainer was told, but nothing of the process: args, env, cwd, user")
	var recorded struct{ Config map[string]any }
	text := file.Read(q, filepath.Join(full.c.StateDir(), "state.json"))
	check.DecodeJSON(q, text, &recorded)
	var told map[string]any
	data, err := json.Marshal(full.config)
	assert.NilError(q, err)
	check.DecodeJSON(q, string(data), &told)
	var others []string
	for _, key := range slices.Sorted(maps.Keys(told)) {
		if !reflect.DeepEqual(told[key], recorded.Config[key]) {
			others = append(others, key)
		}
	}
	if q.UnderTest("runc").Pinned {
		// The bundle is the runtime's working directory, and the conversion notes where that is: here it is not.
		assert.Check(q, cmp.DeepEqual(others, []string{"labels"}), "sections that differ between the conversion and state.json")
	}
	q.Fact("sections that are others in state.json", others)
	q.Fact("sections that are the same", len(told)-len(others))
	assert.Check(q, cmp.Contains(full.Env, nonce), "the program has not the environment that it was given")
	assert.Check(q, !strings.Contains(text, nonce), "state.json has the program's environment")
	for _, word := range []string{`"args"`, `"env"`, `"cwd"`, `"user"`} {
		assert.Check(q, !strings.Contains(string(data), word), "libcontainer's configuration has %s", word)
	}
	q.Fact("process.env", "with the program, not in state.json")

	q.Control("what the conversion does not know is refused, before anything is made")
	for _, unknown := range []struct {
		field string
		edit  func(*specs.Spec)
	}{
		{"linux.rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "sideways" }},
		{"linux.namespaces[].type", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "dream" }},
	} {
		c := runc.Variant(q, b, "unknown-"+strings.Trim(filepath.Ext(unknown.field), "."), unknown.edit)
		_, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: c.ID, Spec: c.Bundle.Spec})
		assert.Check(q, cmp.ErrorContains(err, ""), "the conversion takes any %s", unknown.field)
		q.Fact(unknown.field, err)
		runc.AssertCreateRefused(q, c, "dream|sideways")
	}
	full.c.KillAndDelete(full.Process)
	plain.c.KillAndDelete(plain.Process)

	q.Answer("One function turns names into numbers and options into flags. The process's own fields go another way.")
}

// translated is a running container and the configuration that libcontainer makes of its config.json.
type translated struct {
	proc.Process
	name   string
	q      *lab.Q
	c      *runc.Container
	sh     *runc.Shell
	config configs.Config
	group  cgroup.Group
	mounts []*mountinfo.Info
}

// translate runs a container, and converts its configuration as the runtime does.
func translate(q *lab.Q, c *runc.Container) translated {
	q.Helper()
	sh := c.UseShell()
	p := c.CreateAndStart()
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: c.ID, Spec: c.Bundle.Spec})
	assert.NilError(q, err)
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(int(p.PID)), "mountinfo"))
	assert.NilError(q, err)
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, nil)
	assert.NilError(q, err)
	return translated{p, c.Bundle.Name, q, c, sh, *config, cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath), mounts}
}

// mount is the container's uppermost mount at the path; nil where there is none.
func (c translated) mount(path string) *mountinfo.Info {
	for _, m := range slices.Backward(c.mounts) {
		if m.Mountpoint == path {
			return m
		}
	}
	return nil
}

// underneath is where the flags of a mount go: on cgroup v1 to the mounts of the hierarchies, not to the tmpfs below them.
func (c translated) underneath(m *configs.Mount) string {
	if m.Device == "cgroup" && !c.group.V2 {
		for _, at := range c.mounts {
			if filepath.Dir(at.Mountpoint) == m.Destination {
				return at.Mountpoint
			}
		}
	}
	return m.Destination
}

// flags says which of the flags that are asked about here the mount has.
func (c translated) flags(path string) map[string]bool {
	m := c.mount(path)
	if m == nil {
		return nil
	}
	out := map[string]bool{}
	for option := range strings.SplitSeq(m.Options, ",") {
		if _, ok := mountFlags[option]; ok {
			out[option] = true
		}
	}
	return out
}

// masked says whether the path is /dev/null or a file system that is empty and read-only.
func (c translated) masked(path string) bool {
	m := c.mount(path)
	if m == nil {
		return false
	}
	st := check.StatInRoot(c.q, c.PID, path)
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return m.FSType == "tmpfs" && c.flags(path)["ro"]
	}
	return st.Rdev == unix.Mkdev(1, 3)
}

// there are the paths that the container has; the kernel's configuration decides of most.
func there(c translated, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return !file.Exists(filepath.Join("/proc", strconv.Itoa(int(c.PID)), "root", path))
	})
}

var mountFlags = map[string]int{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC}

func toldFlags(m *configs.Mount) map[string]bool {
	out := map[string]bool{}
	for name, bit := range mountFlags {
		if m.Flags&bit != 0 {
			out[name] = true
		}
	}
	return out
}

func toldNamespaces(c configs.Config) any {
	var out []string
	for _, ns := range c.Namespaces {
		out = append(out, configs.NsName(ns.Type))
	}
	slices.Sort(out)
	return out
}

func eachMount(c configs.Config, say func(*configs.Mount) any) map[string]any {
	out := map[string]any{}
	for _, m := range c.Mounts {
		out[m.Destination] = say(m)
	}
	return out
}

func eachDevice(c configs.Config, say func(path string, major, minor int64) string) map[string]string {
	out := map[string]string{}
	for _, d := range c.Devices {
		out[d.Path] = say(d.Path, d.Major, d.Minor)
	}
	return out
}

// sizes picks the size out of the options of a tmpfs, which is what all of them show as it was given.
func sizes(options string) string {
	for option := range strings.SplitSeq(options, ",") {
		if strings.HasPrefix(option, "size=") {
			return option
		}
	}
	return ""
}

// mask is the set of capabilities, by their numbers; those that this question uses.
func mask(names []string) proc.Mask {
	var m proc.Mask
	for _, name := range names {
		m |= 1 << map[string]int{
			"CAP_AUDIT_WRITE": unix.CAP_AUDIT_WRITE, "CAP_KILL": unix.CAP_KILL,
			"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "CAP_SYS_CHROOT": unix.CAP_SYS_CHROOT,
		}[name]
	}
	return m
}
