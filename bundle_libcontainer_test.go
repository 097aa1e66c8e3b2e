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

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// One function of runc, specconv.CreateLibcontainerConfig, makes libcontainer's configuration of config.json: names become numbers,
// and options become flags.
//
// libcontainer does not read config.json. It takes a structure of its own, in which the pid namespace is NEWPID and nosuid is a bit. An
// option without a bit is data for the file system. The devices that the specification demands of every container, such as /dev/null,
// are in the structure too. What only the first process needs (args, env, cwd, uid and groups) is not in it: it goes into another
// structure, which runc does not record.
//
// Hint: "config" in state.json beside config.json.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options,
// https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices
// Kernel: https://man7.org/linux/man-pages/man2/mount.2.html, https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
func TestBundle_HowDoesAnOciFieldBecomeLibcontainersConfiguration(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does an OCI field become libcontainer's configuration?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "libcontainer's configuration in state.json")
	b := bundle.Busybox(q, "sleep", "3600")
	b.Spec.Process.Capabilities.Ambient = nil // an older runc spec asks for some, without what they need
	nonce := "CDB_NONCE=" + filepath.Base(q.Dir) + "-of-the-process"

	full := runConverted(q, runc.Variant(q, b, "full", setConvertedFields, func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, nonce)
	}))
	plain := runConverted(q, runc.Variant(q, b, "plain", bundle.WithoutNamespace(specs.IPCNamespace), func(s *specs.Spec) {
		s.Hostname = "other"
		// /dev/mqueue belongs to the IPC namespace, which is the host's.
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "mqueue" })
	}))

	q.Step("for each field, the kernel shows what libcontainer's configuration says; with another value of the field, both differ")
	var wrong []string // the fields that do not have what libcontainer's configuration says
	for _, row := range convertedFields(q, full) {
		field := row.covers[0]
		for _, c := range []convertedRunning{full, plain} {
			if given, shown := row.given(c.config), row.shown(c); !reflect.DeepEqual(given, shown) {
				q.Errorf("%s of container %s: Config.%s is %v, and the kernel shows %v", field, c.c.Bundle.Name, row.name, given, shown)
				wrong = append(wrong, field)
			}
		}
		assert.Check(q, !reflect.DeepEqual(row.given(full.config), row.given(plain.config)),
			"%s is the same in both, so the row shows nothing", field)
		assert.Check(q, cmp.DeepEqual(row.given(*full.conversion), row.given(full.config)),
			"%s → %s: the library's conversion, and state.json", field, row.name)
		q.Covers(row.covers...)
		q.Fact(field+" → "+row.name, row.given(full.config))
	}
	q.Clause("Create: All of the properties configured in config.json except for process MUST be applied.",
		lab.MetIf(len(wrong) == 0, "the kernel shows something else for "+strings.Join(wrong, " ")))

	if cgroup.Version(q) == "v1" {
		recordReadonlyHierarchies(q, full)
	}

	q.Step("in the configuration, options of a mount have become bits and data")
	for _, m := range full.config.Mounts {
		if m.Destination == "/tmp" {
			assert.Check(q, cmp.Equal(m.Flags, unix.MS_RDONLY|unix.MS_NOEXEC))
			assert.Check(q, cmp.Equal(m.Data, "size=128k"))
			q.Fact("ro,noexec,size=128k", fmt.Sprintf("%#x and %q", m.Flags, m.Data))
		}
	}
	q.Fact("linux.namespaces", full.config.Namespaces)
	q.Fact("devices of which config.json says nothing", len(plain.config.Devices))
	assert.Check(q, len(plain.config.Devices) > 0 && len(plain.c.Bundle.Spec.Linux.Devices) == 0, "the conversion adds no default devices")

	q.Step("the library converts as the runtime did: its configuration has the sections of the one in state.json")
	converted, recorded := full.asJSON()
	differing := differingSections(converted, recorded)
	// A release that follows another version of the specification has other fields, and records the version that it follows.
	if recorded["version"] == converted["version"] {
		// The conversion records its working directory as a label. For runc that is the bundle, and here it is the directory of the test.
		assert.Check(q, cmp.DeepEqual(differing, []string{"labels"}), "sections that differ between the conversion and state.json")
	}
	q.Fact("sections that are others in state.json", differing)
	q.Fact("sections that are the same", len(converted)-len(differing))

	q.Step("state.json has neither args, env, cwd nor uid of the process")
	assert.Check(q, cmp.Contains(full.Env, nonce), "the program lacks a variable of process.env")
	assert.Check(q, !strings.Contains(full.state, nonce), "state.json has the program's environment")
	for _, key := range []string{"args", "env", "cwd", "user", "uid", "gid"} {
		_, inState := recorded[key]
		_, inConversion := converted[key]
		assert.Check(q, !inState && !inConversion, "libcontainer's configuration has %q: in state.json %t, in the library's conversion %t",
			key, inState, inConversion)
	}
	q.Fact("process.env: in the program's environment", slices.Contains(full.Env, nonce))
	q.Fact("process.env: in state.json", strings.Contains(full.state, nonce))

	q.Control("create refuses a value that the conversion does not know, and leaves nothing behind")
	for _, unknown := range unknownValues {
		c := runc.Variant(q, b, "unknown-"+strings.Trim(filepath.Ext(unknown.field), "."), unknown.edit)
		_, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: c.ID, Spec: c.Bundle.Spec})
		assert.Check(q, cmp.ErrorContains(err, ""), "the conversion accepts any value of %s", unknown.field)
		q.Fact(unknown.field+": error of the conversion", err)
		before := q.TakeInventory()
		refused := c.Try("create")
		assert.Check(q, refused.Code != 0, "create succeeds:\n%s", refused)
		assert.Check(q, cmp.Regexp("dream|sideways", refused.Stderr), "the error does not name the value")
		assert.Check(q, cmp.Len(c.Leftovers(before), 0), "left by the refused create")
		q.Fact(unknown.field+": error of create", runc.LastLogMessage(refused))
	}
	full.c.KillAndDelete(full.Process)
	plain.c.KillAndDelete(plain.Process)

	q.Answer("One function of runc turns the names of config.json into numbers, and the options of mounts into flags. The " +
		"fields of process that concern one program alone go another way.")
}

// setConvertedFields gives the fields of convertedFields other values than runc spec, so that the container plain shows something else.
func setConvertedFields(s *specs.Spec) {
	s.Hostname = "translated"
	s.Root.Readonly = false
	s.Process.NoNewPrivileges = false
	s.Process.OOMScoreAdj = new(500)
	s.Process.User.Umask = new(uint32(0o027))
	for _, set := range []*[]string{
		&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Permitted, &s.Process.Capabilities.Effective,
	} {
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
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/nil", Type: "c", Major: 1, Minor: 3, FileMode: new(os.FileMode(0o640)),
		UID: new(uint32(12)), GID: new(uint32(34))}}
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: new(convertedMemoryLimit)}
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: new(int64(50))}
}

// unknownValues are edits of config.json by which fields have values that the conversion does not know.
var unknownValues = []struct {
	field string
	edit  func(*specs.Spec)
}{
	{"linux.rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "sideways" }},
	{"linux.namespaces[].type", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "dream" }},
}

const convertedMemoryLimit = int64(64 << 20)

// convertedRunning is a running container, and the configuration that libcontainer made of its config.json.
type convertedRunning struct {
	proc.Process
	q          *lab.Q
	c          *runc.Container
	sh         *runc.Shell
	state      string          // state.json
	config     configs.Config  // in state.json: what the runtime under test has converted
	conversion *configs.Config // what the library that go.mod pins makes of the same config.json
	group      cgroup.Group
	mounts     []*mountinfo.Info
}

// runConverted runs a container. It reads the configuration that the runtime has recorded, and converts config.json by the library.
func runConverted(q *lab.Q, c *runc.Container) convertedRunning {
	q.Helper()
	sh := c.UseShell()
	p := c.CreateAndStart()
	conversion, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: c.ID, Spec: c.Bundle.Spec})
	assert.NilError(q, err)
	var recorded struct{ Config configs.Config }
	state := file.Read(q, c.StateFile())
	check.DecodeJSON(q, state, &recorded)
	group := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	return convertedRunning{p, q, c, sh, state, recorded.Config, conversion, group, check.Mounts(q, p)}
}

// topMount returns the container's uppermost mount at the path, or nil if there is none.
func (c convertedRunning) topMount(path string) *mountinfo.Info {
	for _, m := range slices.Backward(c.mounts) {
		if m.Mountpoint == path {
			return m
		}
	}
	return nil
}

// flagsMountpoint returns where the flags of a mount are found: on cgroup v1 at the mounts of the hierarchies, not at the
// tmpfs that holds them.
func (c convertedRunning) flagsMountpoint(m *configs.Mount) string {
	if m.Device == "cgroup" && !c.group.V2 {
		for _, at := range c.mounts {
			if filepath.Dir(at.Mountpoint) == m.Destination {
				return at.Mountpoint
			}
		}
	}
	return m.Destination
}

// flags returns those of mountFlags that the mount at the path has.
func (c convertedRunning) flags(path string) map[string]bool {
	m := c.topMount(path)
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

// isMasked reports whether the path is /dev/null or a file system that is empty and read-only.
func (c convertedRunning) isMasked(path string) bool {
	m := c.topMount(path)
	if m == nil {
		return false
	}
	st := check.StatInRoot(c.q, c.PID, path)
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return m.FSType == "tmpfs" && c.flags(path)["ro"]
	}
	return st.Rdev == unix.Mkdev(1, 3)
}

// existing returns those of the paths that exist in the container. Most exist or not by the kernel's configuration.
func (c convertedRunning) existing(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return !file.Exists(filepath.Join("/proc", strconv.Itoa(int(c.PID)), "root", path))
	})
}

// mountFlags are the flags of a mount about which this topic asks: the option's name → the bit of mount(2).
var mountFlags = map[string]int{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
}

// convertedField is a field of config.json that the conversion puts into libcontainer's configuration.
type convertedField struct {
	covers lab.Fields                 // of config.json
	name   string                     // of the field in libcontainer's Config
	given  func(configs.Config) any   // the value in libcontainer's configuration
	shown  func(convertedRunning) any // the value that the kernel shows
}

// convertedFields returns one row for each field. Of maskedPaths and readonlyPaths it compares those that exist in the container full.
func convertedFields(q *lab.Q, full convertedRunning) []convertedField {
	return []convertedField{
		{lab.Fields{"linux.namespaces[].type"}, "Namespaces", func(config configs.Config) any {
			var out []string
			for _, ns := range config.Namespaces {
				out = append(out, configs.NsName(ns.Type))
			}
			slices.Sort(out)
			return out
		}, func(c convertedRunning) any { return c.OwnNamespaces(proc.Self(q).Identity) }},
		{lab.Fields{"hostname"}, "Hostname",
			func(config configs.Config) any { return config.Hostname },
			func(c convertedRunning) any { return c.sh.Run("hostname").Out }},
		{lab.Fields{"root.readonly"}, "Readonlyfs",
			func(config configs.Config) any { return config.Readonlyfs },
			func(c convertedRunning) any { return c.flags("/")["ro"] }},
		{lab.Fields{"mounts[].destination"}, "Mounts[].Destination", func(config configs.Config) any {
			return eachMount(config, func(*configs.Mount) any { return true })
		}, func(c convertedRunning) any {
			return eachMount(c.config, func(m *configs.Mount) any { return c.topMount(m.Destination) != nil })
		}},
		{lab.Fields{"mounts[].type"}, "Mounts[].Device", func(config configs.Config) any {
			return eachMount(config, func(m *configs.Mount) any { return m.Device })
		}, func(c convertedRunning) any {
			return eachMount(c.config, func(m *configs.Mount) any {
				// On cgroup v1 it is a directory of hierarchies, on v2 a file system of another name.
				if at := c.topMount(m.Destination); at != nil && m.Device != "cgroup" {
					return at.FSType
				}
				return m.Device
			})
		}},
		{lab.Fields{"mounts[].options"}, "Mounts[].Flags", func(config configs.Config) any {
			return eachMount(config, func(m *configs.Mount) any {
				flags := map[string]bool{}
				for name, bit := range mountFlags {
					if m.Flags&bit != 0 {
						flags[name] = true
					}
				}
				return flags
			})
		}, func(c convertedRunning) any {
			return eachMount(c.config, func(m *configs.Mount) any { return c.flags(c.flagsMountpoint(m)) })
		}},
		// Options that are no flag are data for the file system.
		{lab.Fields{"mounts[].options"}, "Mounts[].Data", func(config configs.Config) any {
			return eachMount(config, func(m *configs.Mount) any { return sizeOption(m.Data) })
		}, func(c convertedRunning) any {
			return eachMount(c.config, func(m *configs.Mount) any {
				if at := c.topMount(m.Destination); at != nil && m.Device == "tmpfs" {
					return sizeOption(at.VFSOptions)
				}
				return ""
			})
		}},
		{lab.Fields{"linux.rootfsPropagation"}, "RootPropagation",
			func(config configs.Config) any { return config.RootPropagation&unix.MS_SHARED != 0 },
			func(c convertedRunning) any { return strings.Contains(c.topMount("/").Optional, "shared:") }},
		{lab.Fields{"process.capabilities.bounding"}, "Capabilities.Bounding",
			func(config configs.Config) any { return capabilityMask(config.Capabilities.Bounding) },
			func(c convertedRunning) any { return proc.Bits(q, c.PID, "CapBnd") }},
		{lab.Fields{"process.capabilities.effective"}, "Capabilities.Effective",
			func(config configs.Config) any { return capabilityMask(config.Capabilities.Effective) },
			func(c convertedRunning) any { return proc.Bits(q, c.PID, "CapEff") }},
		{lab.Fields{"process.capabilities.permitted"}, "Capabilities.Permitted",
			func(config configs.Config) any { return capabilityMask(config.Capabilities.Permitted) },
			func(c convertedRunning) any { return proc.Bits(q, c.PID, "CapPrm") }},
		{lab.Fields{"process.capabilities.inheritable"}, "Capabilities.Inheritable",
			func(config configs.Config) any { return capabilityMask(config.Capabilities.Inheritable) },
			func(c convertedRunning) any { return proc.Bits(q, c.PID, "CapInh") }},
		{lab.Fields{"process.capabilities.ambient"}, "Capabilities.Ambient",
			func(config configs.Config) any { return capabilityMask(config.Capabilities.Ambient) },
			func(c convertedRunning) any { return proc.Bits(q, c.PID, "CapAmb") }},
		{lab.Fields{"process.noNewPrivileges"}, "NoNewPrivileges",
			func(config configs.Config) any { return config.NoNewPrivileges },
			func(c convertedRunning) any { return proc.Status(q, c.PID, "NoNewPrivs") == "1" }},
		{lab.Fields{"process.oomScoreAdj"}, "OomScoreAdj", func(config configs.Config) any {
			if config.OomScoreAdj == nil {
				return file.Read(q, "/proc/self/oom_score_adj") // what it inherits
			}
			return strconv.Itoa(*config.OomScoreAdj)
		}, func(c convertedRunning) any { return proc.File(q, c.PID, "oom_score_adj") }},
		{lab.Fields{"process.user.umask"}, "Umask", func(config configs.Config) any {
			if config.Umask == nil {
				return "0022" // what runc sets (rootfs_linux.go); the specification leaves the caller's
			}
			return fmt.Sprintf("%04o", *config.Umask)
		}, func(c convertedRunning) any { return proc.Status(q, c.PID, "Umask") }},
		{lab.Fields{"linux.maskedPaths"}, "MaskPaths",
			func(config configs.Config) any { return full.existing(config.MaskPaths) },
			func(c convertedRunning) any {
				return slices.DeleteFunc(c.existing(c.config.MaskPaths), func(path string) bool { return !c.isMasked(path) })
			}},
		{lab.Fields{"linux.readonlyPaths"}, "ReadonlyPaths",
			func(config configs.Config) any { return full.existing(config.ReadonlyPaths) },
			func(c convertedRunning) any {
				return slices.DeleteFunc(c.existing(c.config.ReadonlyPaths), func(path string) bool { return !c.flags(path)["ro"] })
			}},
		{lab.Fields{"linux.sysctl"}, "Sysctl",
			func(config configs.Config) any { return config.Sysctl["net.ipv4.ip_forward"] == "1" },
			func(c convertedRunning) any { return c.sh.Run("cat /proc/sys/net/ipv4/ip_forward").Out == "1" }},
		{lab.Fields{"linux.devices[].path", "linux.devices[].type", "linux.devices[].major", "linux.devices[].minor",
			"linux.devices[].fileMode", "linux.devices[].uid", "linux.devices[].gid"}, "Devices[]", func(config configs.Config) any {
			out := map[string]string{} // path → the rest
			for _, d := range config.Devices {
				out[d.Path] = check.Device(rune(d.Type), d.Major, d.Minor, uint32(d.FileMode), d.Uid, d.Gid)
			}
			return out
		}, func(c convertedRunning) any {
			out := map[string]string{}
			for _, d := range c.config.Devices {
				out[d.Path] = check.DeviceInRoot(q, c.PID, d.Path)
			}
			return out
		}},
		{lab.Fields{"linux.cgroupsPath"}, "Cgroups.Path", func(config configs.Config) any { return config.Cgroups.Path },
			func(c convertedRunning) any {
				if c.group.V2 {
					return c.Cgroups[""]
				}
				return c.Cgroups["pids"]
			}},
		{lab.Fields{"linux.resources.pids.limit"}, "Cgroups.PidsLimit", func(config configs.Config) any {
			if config.Cgroups.PidsLimit == nil || *config.Cgroups.PidsLimit == 0 { // runc 1.1 has a number: 0 is no limit
				return "max"
			}
			return strconv.FormatInt(*config.Cgroups.PidsLimit, 10)
		}, func(c convertedRunning) any { return c.group.Read("pids", "pids.max") }},
		{lab.Fields{"linux.resources.memory.limit"}, "Cgroups.Memory",
			func(config configs.Config) any { return config.Cgroups.Memory == convertedMemoryLimit },
			func(c convertedRunning) any {
				name := "memory.limit_in_bytes"
				if c.group.V2 {
					name = "memory.max"
				}
				return c.group.Read("memory", name) == strconv.FormatInt(convertedMemoryLimit, 10)
			}},
	}
}

// eachMount describes each mount of the configuration: its destination → the description.
func eachMount(config configs.Config, describe func(*configs.Mount) any) map[string]any {
	out := map[string]any{}
	for _, m := range config.Mounts {
		out[m.Destination] = describe(m)
	}
	return out
}

// sizeOption returns the option size=… of a tmpfs. A tmpfs shows its size as it was given, other options not always.
func sizeOption(options string) string {
	for option := range strings.SplitSeq(options, ",") {
		if strings.HasPrefix(option, "size=") {
			return option
		}
	}
	return ""
}

// capabilityMask returns the mask of those capabilities that the containers of this question have.
func capabilityMask(names []string) proc.Mask {
	var m proc.Mask
	for _, name := range names {
		m |= 1 << map[string]int{
			"CAP_AUDIT_WRITE": unix.CAP_AUDIT_WRITE, "CAP_KILL": unix.CAP_KILL,
			"CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "CAP_SYS_CHROOT": unix.CAP_SYS_CHROOT,
		}[name]
	}
	return m
}

// recordReadonlyHierarchies records where the option ro of the cgroup mount forbids mkdir, on cgroup v1.
//
// There is one mount for each hierarchy; libcontainer puts them on a tmpfs of its own making, with flags of its own.
func recordReadonlyHierarchies(q *lab.Q, full convertedRunning) {
	q.Helper()
	made := full.sh.Run("mkdir /sys/fs/cgroup/made && rmdir /sys/fs/cgroup/made")
	hierarchy := full.flagsMountpoint(&configs.Mount{Device: "cgroup", Destination: "/sys/fs/cgroup"})
	refused := full.sh.Run("mkdir " + hierarchy + "/made")
	assert.Check(q, refused.Code != 0, "a hierarchy that was to be read-only is not")
	q.Fact("ro of /sys/fs/cgroup, in a hierarchy", refused.Out)
	besideHierarchies := made.Out
	if made.Code == 0 {
		besideHierarchies = fmt.Sprintf("exit code %d: ro is not applied there", made.Code)
	}
	q.Fact("ro of /sys/fs/cgroup, beside the hierarchies: mkdir", besideHierarchies)
}

// asJSON returns the configuration that the library makes, and the one that the runtime has recorded, as objects of JSON.
func (c convertedRunning) asJSON() (converted, recorded map[string]any) {
	c.q.Helper()
	data, err := json.Marshal(c.conversion)
	assert.NilError(c.q, err)
	check.DecodeJSON(c.q, string(data), &converted)
	var state struct{ Config map[string]any }
	check.DecodeJSON(c.q, c.state, &state)
	return converted, state.Config
}

// differingSections returns the keys, sorted, that have another value in the recorded configuration than in the converted one.
func differingSections(converted, recorded map[string]any) []string {
	var differing []string
	for _, key := range slices.Sorted(maps.Keys(converted)) {
		if !reflect.DeepEqual(converted[key], recorded[key]) {
			differing = append(differing, key)
		}
	}
	return differing
}
