//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Each entry changes one thing: in which namespace of its type the process is.
//
// An entry with no path asks for a new namespace, one with a path joins the one named, and a type without an entry is
// inherited from whoever calls the runtime. The mount namespace is no free choice: without one there is nothing to
// pivot in, and one that is joined does not have the bundle's directory.
//
// Hint: compare the links of /proc/PID/ns with your own, and find for each type something that only the host has.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#namespaces
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html
func TestBundle_WhatDoesEachNamespaceEntryChange(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does each namespace entry change?")
	b := bundle.Busybox(q, "sleep", "300")
	self := proc.Self(q)

	q.Step("on the host: what a process sees only if it shares the host's namespace of a type")
	abstract := hostAbstractSocket(q)
	const size = 0xcdb // of the segment, which tells it from others
	hostSharedMemory(q, size)
	hostname, err := os.Hostname()
	assert.NilError(q, err)
	const decade = 10 * 365 * 24 * 60 * 60 // seconds; no host of the lab has been up for so long
	rows := []struct {
		entry specs.LinuxNamespaceType
		file  string // in /proc/PID/ns
		sees  string // succeeds in the host's namespace alone
	}{
		{specs.PIDNamespace, "pid", "grep -qsxF " + self.Comm + " /proc/[0-9]*/comm"},
		{specs.NetworkNamespace, "net", "grep -q " + abstract + " /proc/net/unix"},
		{specs.IPCNamespace, "ipc", fmt.Sprintf("awk '$4 == %d { found = 1 } END { exit !found }' /proc/sysvipc/shm", size)},
		{specs.UTSNamespace, "uts", "[ $(hostname) = " + hostname + " ]"},
		{specs.MountNamespace, "mnt", "[ -e " + q.Dir + " ]"},
		{specs.CgroupNamespace, "cgroup", "grep -q :" + q.Cgroup + "/ /proc/self/cgroup"},
		{specs.TimeNamespace, "time", fmt.Sprintf("[ $(cut -d. -f1 /proc/uptime) -lt %d ]", decade)},
	}
	// What the kernel or the runtime cannot do is no row.
	hasTime := file.Exists("/proc/self/ns/time") && knowsTimeNamespace(q, b)
	q.Fact("time namespaces", map[bool]string{true: "can be asked for", false: "unknown to the kernel or the runtime"}[hasTime])
	if !hasTime {
		rows = rows[:len(rows)-1]
	}

	q.Step("linux.namespaces[].type: with every entry, no namespace is the host's")
	_, own, inOwn := runc.StartWithShell(q, b, "own", func(s *specs.Spec) {
		s.Linux.Namespaces = nil
		for _, row := range rows {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: row.entry})
		}
		s.Hostname = "cdb-own"
		if hasTime {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: decade}, "monotonic": {Secs: decade}}
		}
	})
	for _, row := range rows {
		assert.Check(q, inOwn.NS[row.file] != self.NS[row.file], "with an entry %s, it is in the host's: %d", row.entry, self.NS[row.file])
		r := own.Run(row.sees)
		assert.Check(q, r.Code != 0, "with an entry %s, it still sees what is the host's: %s %s", row.entry, row.sees, r.Out)
		q.Fact(string(row.entry)+", of the host and its own", []proc.Inode{self.NS[row.file], inOwn.NS[row.file]})
	}
	q.Fact("linux.namespaces[].type", inOwn.OwnNamespaces(self.Identity))
	if hasTime {
		q.Fact("linux.timeOffsets", proc.File(q, inOwn.PID, "timens_offsets"))
		assert.Check(q, cmp.Regexp(fmt.Sprintf(`boottime +%d +0`, decade), proc.File(q, inOwn.PID, "timens_offsets")))
	}
	q.Fact("its interfaces", strings.Fields(own.Run("ls /sys/class/net").Out))
	assert.Check(q, cmp.Equal(proc.InnerPID(q, inOwn.PID), 1), "the first process of a pid namespace is pid 1 in it")
	assert.Check(q, cmp.Equal(own.Run("echo $$").Out, "1"), "and sees itself so")
	assert.Check(q, cmp.Equal(own.Run("cut -d: -f3 /proc/self/cgroup | sort -u").Out, "/"), "its cgroup is the root of its cgroup namespace")

	q.Control("without an entry, it is the host's, and what the host has is seen")
	// The mount namespace stays: without it the runtime would turn the host's own mounts over.
	_, none, inHost := runc.StartWithShell(q, b, "none", func(s *specs.Spec) {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		s.Hostname = ""
	})
	for _, row := range rows {
		if row.entry == specs.MountNamespace {
			continue
		}
		assert.Check(q, cmp.Equal(inHost.NS[row.file], self.NS[row.file]), "without an entry %s, it is in another than the host's", row.entry)
		r := none.Run(row.sees)
		assert.Check(q, cmp.Equal(r.Code, 0), "without an entry %s, it does not see what is the host's: %s %s", row.entry, row.sees, r.Out)
	}
	q.Fact("shared with the host", inHost.SharedNamespaces(self.Identity))

	q.Step("linux.namespaces[].path: it joins the namespace that the path names")
	// Through a link, so that config.json reads the same in each run.
	assert.NilError(q, os.Symlink(fmt.Sprintf("/proc/%d/ns", inOwn.PID), q.Dir+"/ns"))
	q.Cleanup(func() { _ = os.Remove(q.Dir + "/ns") })
	q.LogCommand(`ln -s /proc/$(grep -o '"init_process_pid":[0-9]*' root-own/cdb-runc-own/state.json | cut -d: -f2)/ns ns`)
	path := func(path string) string { return q.Dir + "/ns/" + path }
	_, joined, inJoined := runc.StartWithShell(q, b, "joined", func(s *specs.Spec) {
		s.Linux.Namespaces = nil
		for _, row := range rows {
			ns := specs.LinuxNamespace{Type: row.entry, Path: path(row.file)}
			if row.entry == specs.MountNamespace {
				ns.Path = ""
			}
			s.Linux.Namespaces = append(s.Linux.Namespaces, ns)
		}
		s.Hostname = "" // it would name the holder
	})
	for _, row := range rows {
		if row.entry == specs.MountNamespace {
			assert.Check(q, inJoined.NS["mnt"] != inOwn.NS["mnt"], "an entry without a path joined another container's mount namespace")
			continue
		}
		assert.Check(q, cmp.Equal(inJoined.NS[row.file], inOwn.NS[row.file]), "with a path, %s is not the one named", row.entry)
		r := joined.Run(row.sees)
		assert.Check(q, r.Code != 0, "in another's %s namespace, it sees what is the host's: %s %s", row.entry, row.sees, r.Out)
	}
	q.Fact("linux.namespaces[].path", inJoined.SharedNamespaces(inOwn.Identity))
	assert.Check(q, cmp.Equal(joined.Run("hostname").Out, "cdb-own"), "hostname in the joined uts namespace")
	r := own.Run(`cat /proc/[0-9]*/cmdline | tr '\0' '\n' | grep -x '[c]db-runc-joined'`)
	assert.Check(q, cmp.Equal(r.Out, "cdb-runc-joined"), "who joined, as the first process of the pid namespace sees it")
	assert.Check(q, proc.InnerPID(q, inJoined.PID) != 1, "there are two first processes in one pid namespace")
	q.Fact("its cgroup, from the other's root", joined.Run("cut -d: -f3 /proc/self/cgroup | sort -u").Out)

	q.Step("what cannot be meant is refused, and leaves nothing")
	namespaces := func(ns ...specs.LinuxNamespace) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, ns...) }
	}
	instead := func(ns specs.LinuxNamespace) func(*specs.Spec) {
		return func(s *specs.Spec) { bundle.WithoutNamespace(ns.Type)(s); namespaces(ns)(s) }
	}
	type refusal struct {
		what  string
		edit  func(*specs.Spec)
		names string
	}
	refusals := []refusal{
		{"a type twice", namespaces(specs.LinuxNamespace{Type: specs.UTSNamespace}), "duplicate"},
		{"no type at all", namespaces(specs.LinuxNamespace{Type: "nonsense"}), "namespace"},
		{"no file of this path", instead(specs.LinuxNamespace{Type: specs.UTSNamespace, Path: q.Dir + "/nowhere"}), "nowhere|no such file"},
		{"a namespace of another type", instead(specs.LinuxNamespace{Type: specs.IPCNamespace, Path: path("net")}), "setns|namespace"},
		// With no path to mask, 1.5.2 goes on, on the host's mount table: nothing to try on a host that is still needed.
		{"no mount namespace", bundle.WithoutNamespace(specs.MountNamespace), "MNT namespace"},
		// There, the bundle is nowhere.
		{"another's mount namespace", instead(specs.LinuxNamespace{Type: specs.MountNamespace, Path: path("mnt")}), "no such file"},
	}
	if hasTime {
		offsets := func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: decade}}
		}
		refusals = append(refusals, refusal{"time offsets, on the host", offsets, "time namespace"})
	}
	for _, refused := range refusals {
		name := strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(refused.what)
		q.Run(name, func(q *lab.Q) { refusesNamespace(q, runc.Variant(q, b, name, refused.edit), refused.names) })
	}

	q.Answer("In which namespace of its type the process is: a new one, the one of the path, or, with no entry, the caller's.")
}

// What is a namespace's own can be set for one container: its names and the sysctls that belong to a namespace.
//
// The runtime writes the value in the container's namespace, and only in one of its own: without the entry it would be the
// host's that changes, and the runtime refuses. A sysctl that belongs to no namespace is the whole machine's, and refused
// always.
//
// Hint: read the same file of /proc/sys in the container and on the host.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#sysctl
// Kernel: https://docs.kernel.org/admin-guide/sysctl/net.html, https://man7.org/linux/man-pages/man7/uts_namespaces.7.html
func TestBundle_WhichNamesAndSysctlsAreTheContainersOwn(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which names and sysctls are the container's own?")
	b := bundle.Busybox(q, "sleep", "300")
	sysctl := func(key, value string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			if s.Linux.Sysctl == nil {
				s.Linux.Sysctl = map[string]string{}
			}
			s.Linux.Sysctl[key] = value
		}
	}
	rows := []struct {
		field string
		edit  func(*specs.Spec)
		ns    specs.LinuxNamespaceType // whose it is
		file  string                   // below /proc/sys
		value string
	}{
		{"hostname", func(s *specs.Spec) { s.Hostname = "cdb-name" }, specs.UTSNamespace, "kernel/hostname", "cdb-name"},
		{"domainname", func(s *specs.Spec) { s.Domainname = "cdb.example" }, specs.UTSNamespace, "kernel/domainname", "cdb.example"},
		{"linux.sysctl", sysctl("net.ipv4.ip_default_ttl", "99"), specs.NetworkNamespace, "net/ipv4/ip_default_ttl", "99"},
		{"linux.sysctl", sysctl("kernel.msgmax", "4321"), specs.IPCNamespace, "kernel/msgmax", "4321"},
		{"linux.sysctl", sysctl("fs.mqueue.msg_max", "7"), specs.IPCNamespace, "fs/mqueue/msg_max", "7"},
	}
	host := func() (values []string) {
		for _, row := range rows {
			values = append(values, file.Read(q, "/proc/sys/"+row.file))
		}
		return values
	}
	before := host()
	inside := func(sh *runc.Shell) []string {
		cat := ""
		for _, row := range rows {
			cat += " /proc/sys/" + row.file
		}
		return strings.Split(sh.Run("cat"+cat).Out, "\n")
	}

	q.Step("without the fields: in namespaces of its own, the kernel's first values, and a copy of the host's names")
	_, sh, _ := runc.StartWithShell(q, b, "first", func(s *specs.Spec) { s.Hostname, s.Domainname, s.Linux.Sysctl = "", "", nil })
	first := inside(sh)
	assert.Assert(q, cmp.Len(first, len(rows)), "one line for each file")
	assert.Check(q, cmp.Equal(first[0], before[0]), "a new uts namespace begins with a copy of the old one's hostname")

	q.Step("with them: the values are the container's, and the host's are untouched")
	_, sh, _ = runc.StartWithShell(q, b, "set", func(s *specs.Spec) {
		for _, row := range rows {
			row.edit(s)
		}
	})
	set := inside(sh)
	assert.Assert(q, cmp.Len(set, len(rows)), "one line for each file")
	for i, row := range rows {
		assert.Check(q, first[i] != row.value, "%s has the value %s without the field", row.file, row.value)
		if row.field == "domainname" && !q.UnderTest("runc").Pinned && set[i] == first[i] {
			q.Fact(row.field, "older runtimes do not know the field, and say nothing")
			continue
		}
		assert.Check(q, cmp.Equal(set[i], row.value), "%s in the container, by %s", row.file, row.field)
		q.Fact(row.field+": "+row.file, set[i])
	}
	assert.Check(q, cmp.DeepEqual(host(), before), "the host's values after")
	r := sh.Run("echo 98 > /proc/sys/net/ipv4/ip_default_ttl")
	assert.Check(q, cmp.Contains(r.Out, "Read-only file system"), "the container's own write to its sysctl: exit code %d", r.Code)
	q.Fact("a write from inside", "Read-only file system")

	q.Control("without a namespace of its own they would be the host's: refused")
	for i, row := range rows {
		// A field that the runtime does not know it cannot refuse either.
		if set[i] != row.value {
			continue
		}
		name := "host-" + strings.ReplaceAll(row.file, "/", "-")
		q.Run(name, func(q *lab.Q) {
			bare := func(s *specs.Spec) { s.Hostname = "" }
			refusesNamespace(q, runc.Variant(q, b, name, bare, row.edit, bundle.WithoutNamespace(row.ns)), "namespace")
		})
	}
	q.Run("no-namespace", func(q *lab.Q) {
		refusesNamespace(q, runc.Variant(q, b, "no-namespace", sysctl("vm.swappiness", "1")), "vm.swappiness.*namespace")
	})
	assert.Check(q, cmp.DeepEqual(host(), before), "the host's values at the end")

	q.Answer("Those that belong to a namespace, in one of its own. All others are the host's, and refused.")
}

// The runtime moves it: out of the network namespace in which it is called, into the container's, before the program runs.
//
// The device keeps its address and is set up again there, under the name that the field gives it. It is moved, not
// copied: where it came from, it is no more.
//
// Hint: /sys/class/net shows the devices of the namespace in which sysfs was mounted; where is the device afterwards?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#network-devices
// Kernel: https://man7.org/linux/man-pages/man7/network_namespaces.7.html
func TestBundle_HowDoesANetworkDeviceComeIntoTheContainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does a network device come into the container?")
	b := bundle.Busybox(q, "sleep", "300")
	devices := func(sh *runc.Shell) []string { return strings.Fields(sh.Run("ls /sys/class/net").Out) }

	q.Step("a network namespace that stands for the host's, of a container that may administer it")
	_, holder, held := runc.StartWithShell(q, b, "holder", func(s *specs.Spec) {
		c := s.Process.Capabilities
		for _, set := range []*[]string{&c.Bounding, &c.Permitted, &c.Effective} {
			*set = append(*set, "CAP_NET_ADMIN")
		}
	})
	if r := holder.Run("ip link add cdb0 type veth && ip addr add 192.0.2.7/24 dev cdb0 && ip link set cdb0 up"); r.Code != 0 {
		q.Skipf("this kernel has no veth to make a device of: %s", r.Out)
	}
	assert.Check(q, cmp.Contains(devices(holder), "cdb0"))
	assert.NilError(q, os.Symlink(fmt.Sprintf("/proc/%d/ns/net", held.PID), q.Dir+"/holder-net"))
	q.Cleanup(func() { _ = os.Remove(q.Dir + "/holder-net") })
	q.LogCommand(`ln -s /proc/$(grep -o '"init_process_pid":[0-9]*' root-holder/cdb-runc-holder/state.json | cut -d: -f2)/ns/net holder-net`)
	// The runtime is called in the holder's network namespace, so that no device of the host's is ever touched.
	create := func(c *runc.Container) lab.Result {
		return q.Exec(q.UnderTest("busybox").Path, "nsenter", "-n"+q.Dir+"/holder-net",
			"runc", "--root", c.Root, "create", "--bundle", c.Bundle.Name, c.ID)
	}
	begin := func(c *runc.Container) proc.Process {
		r := create(c)
		assert.Assert(q, cmp.Equal(r.Code, 0), "%s", r)
		pid := c.State().Pid
		c.Start()
		proc.WaitFor(q, proc.Runs(proc.PID(pid), "sh"))
		return proc.Snapshot(q, proc.PID(pid))
	}

	q.Control("without the field, it stays where it is")
	plain := runc.Variant(q, b, "plain")
	sh := plain.UseShell()
	inPlain := begin(plain)
	assert.Check(q, inPlain.NS["net"] != held.NS["net"], "the container has no network namespace of its own")
	assert.Check(q, !cmp.Contains(devices(sh), "cdb0")().Success(), "the device is in a container that did not ask for it")
	assert.Check(q, cmp.Contains(devices(holder), "cdb0"), "the device left its namespace for no reason")
	q.Fact("devices of the container", devices(sh))

	q.Step("linux.netDevices: it is moved, and renamed")
	device := func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"cdb0": {Name: "cdb7"}} }
	moved := runc.Variant(q, b, "moved", device)
	sh = moved.UseShell()
	if err := netlinkFamilies(); err != nil && q.UnderTest("runc").Pinned {
		// To give the device its address back, runc opens a netlink socket of each of these families, and needs only one.
		r := create(moved)
		assert.Check(q, r.Code != 0, "runc moves a device although the kernel has %v:\n%s", err, r)
		assert.Check(q, cmp.Contains(r.Stderr, "protocol not supported"))
		q.Fact("linux.netDevices", withoutPIDs(runc.LastLogMessage(r)))
		q.Fact("the kernel has", err)
		// It fails after the move: the device has gone, and ends with the namespace of a container that never was.
		assert.Check(q, !cmp.Contains(devices(holder), "cdb0")().Success(), "the device is back where it came from")
		q.Fact("the device", "no longer where it was")
		q.Answer("Not on this kernel: runc asks it for more kinds of netlink sockets than it has.")
		return
	}
	begin(moved)
	if found := devices(sh); !cmp.Contains(found, "cdb7")().Success() && !q.UnderTest("runc").Pinned {
		assert.Check(q, cmp.Contains(devices(holder), "cdb0"), "the device is in neither namespace")
		q.Fact("linux.netDevices", "older runtimes do not know the field, and say nothing")
		q.Answer("Not by this runtime: it does not know the field, and leaves the device where it is.")
		return
	}
	assert.Check(q, cmp.Contains(devices(sh), "cdb7"), "the device is not in the container")
	assert.Check(q, !cmp.Contains(devices(holder), "cdb0")().Success(), "the device is still where it came from")
	address := sh.Run("ip -o -4 addr show dev cdb7").Out
	assert.Check(q, cmp.Contains(address, "192.0.2.7/24"), "its address came along")
	assert.Check(q, cmp.Equal(sh.Run("ip link show up dev cdb7 | grep -c cdb7").Out, "1"), "it is set up")
	q.Fact("linux.netDevices", devices(sh))
	q.Fact("devices left behind", devices(holder))

	q.Step("what is not there, and what has nowhere to go, is refused")
	for _, refused := range []struct {
		what  string
		edits []func(*specs.Spec)
		names string
	}{
		{"no-such-device", []func(*specs.Spec){device}, "cdb0|Link not found|no such (network )?(interface|device)"},
		{"no-namespace", []func(*specs.Spec){device, bundle.WithoutNamespace(specs.NetworkNamespace)}, "NET namespace"},
	} {
		c := runc.Variant(q, b, refused.what, refused.edits...)
		r := create(c)
		assert.Check(q, r.Code != 0, "create succeeds:\n%s", r)
		assert.Check(q, cmp.Regexp("(?i)"+refused.names, r.Stderr), "the error does not name what is wrong")
		q.Fact("create says", withoutPIDs(runc.LastLogMessage(r)))
	}

	q.Answer("The runtime moves it there from its own network namespace; it is then no longer where it was.")
}

// hostAbstractSocket listens at an abstract name, which belongs to a network namespace and to no file system.
func hostAbstractSocket(q *lab.Q) string {
	q.Helper()
	name := "@" + q.ID("cdb-host")
	l, err := net.Listen("unix", name)
	assert.NilError(q, err)
	q.TB.Cleanup(func() { l.Close() })
	return name
}

// hostSharedMemory makes a System V shared memory segment.
func hostSharedMemory(q *lab.Q, size int) {
	q.Helper()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, size, unix.IPC_CREAT|0o600)
	assert.NilError(q, err)
	q.TB.Cleanup(func() {
		_, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		assert.Check(q, err)
	})
}

// refusesNamespace asserts that create fails, says why, and leaves no state. What else it may leave, the question's end sees.
func refusesNamespace(q *lab.Q, c *runc.Container, names string) {
	q.Helper()
	r := c.Try("create")
	assert.Check(q, r.Code != 0, "create succeeds:\n%s", r)
	assert.Check(q, cmp.Regexp("(?i)"+names, r.Stderr), "the error does not name what is wrong")
	assert.Check(q, !file.Exists(c.StateDir()), "a refused create left its state: %s", c.StateDir())
	q.Fact("create says", withoutPIDs(runc.LastLogMessage(r)))
}

// netlinkFamilies says which of the netlink families that runc's library opens the kernel has not, or cannot load.
func netlinkFamilies() error {
	for name, family := range map[string]int{"NETLINK_XFRM": unix.NETLINK_XFRM, "NETLINK_NETFILTER": unix.NETLINK_NETFILTER} {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
		if err != nil {
			return fmt.Errorf("no %s: %w", name, err)
		}
		_ = unix.Close(fd)
	}
	return nil
}

// withoutPIDs leaves out of a message the pids of the runtime's own processes, which no two runs agree on.
func withoutPIDs(message string) string {
	return regexp.MustCompile(`(nsexec-\d\[|/proc/)\d+`).ReplaceAllString(message, "${1}PID")
}

// knowsTimeNamespace says whether the runtime knows the type: one that does not refuses it by name.
func knowsTimeNamespace(q *lab.Q, b *bundle.Bundle) bool {
	q.Helper()
	c := runc.Variant(q, b, "time", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	})
	r := c.Try("create")
	if r.Code == 0 {
		c.Must("delete", "--force")
		return true
	}
	assert.Check(q, cmp.Contains(r.Stderr, "time"), "create is refused for another reason")
	return false
}
