//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"net"
	"os"
	"slices"
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

// Each entry decides in which namespace of its type the process is.
//
// An entry without a path makes a new namespace. An entry with a path joins the namespace that the path names. A type without an
// entry is inherited from the process that calls the runtime.
//
// The mount namespace is special. Without its entry, runc refuses a config.json that masks paths or makes them read-only, as that of
// runc spec does. Without such paths runc goes on: it mounts in its caller's mount namespace, and changes the root with chroot(2).
// The lab does not show this, because it would change the host's mounts. To join another container's mount namespace fails, because the
// bundle's directory is not in it.
//
// Hint: compare the links of /proc/PID/ns with your own, and find for each type something that only the host has.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#namespaces
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html
func TestBundle_WhatDoesEachNamespaceEntryChange(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does each namespace entry change?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	self := proc.Self(q)

	q.Step("on the host: what a process sees only if it shares the host's namespace of a type")
	rows, hasTime := seenOnlyOnHost(q, b, self)

	q.Step("linux.namespaces[].type: with an entry of each type except user, only the user namespace is the host's")
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
		assert.Check(q, inOwn.NS[row.file] != self.NS[row.file], "with an entry %s, the process is in the host's namespace: %d",
			row.entry, self.NS[row.file])
		r := own.Run(row.seesHost)
		assert.Check(q, r.Code != 0, "with an entry %s, the program still sees what is the host's: %s %s",
			row.entry, row.seesHost, r.Out)
		q.Fact(string(row.entry)+", of the host and its own", []proc.Inode{self.NS[row.file], inOwn.NS[row.file]})
	}
	q.Covers("linux.namespaces[].type")
	q.Fact("linux.namespaces[].type", inOwn.OwnNamespaces(self.Identity))
	if hasTime {
		offsets := proc.File(q, inOwn.PID, "timens_offsets")
		assert.Check(q, cmp.Regexp(fmt.Sprintf(`boottime +%d +0`, decade), offsets))
		q.Covers("linux.timeOffsets")
		q.Fact("linux.timeOffsets", offsets)
	}
	q.Fact("its interfaces", strings.Fields(own.Run("ls /sys/class/net").Out))
	assertIsFirst(q, own, inOwn)

	q.Control("without an entry, the process is in the host's namespace, and sees what the host has")
	// The entry of the mount namespace stays: without it the runtime would change the host's own mounts.
	_, none, inHost := runc.StartWithShell(q, b, "none", func(s *specs.Spec) {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		s.Hostname = ""
	})
	for _, row := range rows {
		if row.entry == specs.MountNamespace {
			continue
		}
		assert.Check(q, cmp.Equal(inHost.NS[row.file], self.NS[row.file]),
			"without an entry %s, the process is not in the host's namespace", row.entry)
		r := none.Run(row.seesHost)
		assert.Check(q, cmp.Equal(r.Code, 0), "without an entry %s, the program does not see what is the host's: %s %s",
			row.entry, row.seesHost, r.Out)
	}
	q.Fact("shared with the host", inHost.SharedNamespaces(self.Identity))

	q.Step("linux.namespaces[].path: it joins the namespace that the path names")
	links := linkToNamespaces(q, "own", inOwn)
	_, joined, inJoined := runc.StartWithShell(q, b, "joined", func(s *specs.Spec) {
		s.Linux.Namespaces = nil
		for _, row := range rows {
			ns := specs.LinuxNamespace{Type: row.entry, Path: links + "/" + row.file}
			if row.entry == specs.MountNamespace {
				ns.Path = ""
			}
			s.Linux.Namespaces = append(s.Linux.Namespaces, ns)
		}
		s.Hostname = "" // it would become the hostname of the container "own"
	})
	for _, row := range rows {
		if row.entry == specs.MountNamespace {
			assert.Check(q, inJoined.NS["mnt"] != inOwn.NS["mnt"],
				"an entry without a path joined another container's mount namespace")
			continue
		}
		assert.Check(q, cmp.Equal(inJoined.NS[row.file], inOwn.NS[row.file]),
			"with a path, the %s namespace is not the one that the path names", row.entry)
		r := joined.Run(row.seesHost)
		assert.Check(q, r.Code != 0, "in the %s namespace of another container, the program sees what is the host's: %s %s",
			row.entry, row.seesHost, r.Out)
	}
	q.Covers("linux.namespaces[].path")
	q.Fact("linux.namespaces[].path", inJoined.SharedNamespaces(inOwn.Identity))
	assertSeesTheOther(q, own, joined, inJoined)

	q.Step("entries that make no sense are refused, and leave nothing")
	for _, refused := range namespaceRefusals(q.Dir, links, hasTime) {
		name := strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(refused.what)
		q.Run(name, func(q *lab.Q) {
			r := runc.Variant(q, b, name, refused.edit).MustRefuse(refused.wantError)
			q.Fact("create with "+refused.what+": error", runc.MaskPIDs(runc.LastLogMessage(r)))
		})
	}

	q.Answer("An entry of linux.namespaces decides in which namespace of its type the process is: in a new one, or in the one that its " +
		"path names. Without an entry, the process is in the namespace of the process that calls the runtime.")
}

const decade = 10 * 365 * 24 * 60 * 60 // seconds; no host of the lab has been up for so long

// namespaceEntry is an entry of linux.namespaces, and how to tell the host's namespace from others of its type.
type namespaceEntry struct {
	entry    specs.LinuxNamespaceType
	file     string // in /proc/PID/ns
	seesHost string // a command that succeeds in the host's namespace alone
}

// seenOnlyOnHost makes a socket and a shared memory segment on the host. It returns one row for each type of namespace that the kernel and
// the runtime have. hasTime reports whether they have time namespaces.
func seenOnlyOnHost(q *lab.Q, b *bundle.Bundle, self proc.Process) (rows []namespaceEntry, hasTime bool) {
	q.Helper()
	// The name of an abstract socket belongs to a network namespace, and is in no file system.
	abstractSocket := "@" + q.ID("cdb-host")
	listener, err := net.Listen("unix", abstractSocket)
	assert.NilError(q, err)
	q.TB.Cleanup(func() { listener.Close() })
	// A System V shared memory segment belongs to an IPC namespace. Its size tells it from others.
	const segmentSize = 0xcdb
	segment, err := unix.SysvShmGet(unix.IPC_PRIVATE, segmentSize, unix.IPC_CREAT|0o600)
	assert.NilError(q, err)
	q.TB.Cleanup(func() {
		_, err := unix.SysvShmCtl(segment, unix.IPC_RMID, nil)
		assert.Check(q, err)
	})
	hostname, err := os.Hostname()
	assert.NilError(q, err)
	rows = []namespaceEntry{
		{specs.PIDNamespace, "pid", "grep -qsxF " + self.Comm + " /proc/[0-9]*/comm"},
		{specs.NetworkNamespace, "net", "grep -q " + abstractSocket + " /proc/net/unix"},
		{specs.IPCNamespace, "ipc", fmt.Sprintf("awk '$4 == %d { found = 1 } END { exit !found }' /proc/sysvipc/shm", segmentSize)},
		{specs.UTSNamespace, "uts", "[ $(hostname) = " + hostname + " ]"},
		{specs.MountNamespace, "mnt", "[ -e " + q.Dir + " ]"},
		{specs.CgroupNamespace, "cgroup", "grep -q :" + q.Cgroup + "/ /proc/self/cgroup"},
		{specs.TimeNamespace, "time", fmt.Sprintf("[ $(cut -d. -f1 /proc/uptime) -lt %d ]", decade)},
	}
	hasTime = file.Exists("/proc/self/ns/time") && runc.KnowsTimeNamespaces(q, b)
	q.Fact("time namespaces", map[bool]string{true: "can be asked for", false: "unknown to the kernel or the runtime"}[hasTime])
	if !hasTime {
		rows = rows[:len(rows)-1]
	}
	return rows, hasTime
}

// assertIsFirst asserts that a process is pid 1 of its pid namespace, and that its cgroup is the root of its cgroup namespace.
func assertIsFirst(q *lab.Q, sh *runc.Shell, p proc.Process) {
	q.Helper()
	assert.Check(q, cmp.Equal(proc.InnerPID(q, p.PID), 1), "the first process of a pid namespace is pid 1 in it")
	assert.Check(q, cmp.Equal(sh.Run("echo $$").Out, "1"), "the pid that the process itself sees")
	assert.Check(q, cmp.Equal(sh.Run("cut -d: -f3 /proc/self/cgroup | sort -u").Out, "/"), "its cgroup is the root of its cgroup namespace")
}

// assertSeesTheOther asserts what the containers own and joined see of each other, where joined is in the namespaces of own.
func assertSeesTheOther(q *lab.Q, own, joined *runc.Shell, inJoined proc.Process) {
	q.Helper()
	assert.Check(q, cmp.Equal(joined.Run("hostname").Out, "cdb-own"), "hostname in the joined uts namespace")
	r := own.Run(`cat /proc/[0-9]*/cmdline | tr '\0' '\n' | grep -x '[c]db-runc-joined'`)
	assert.Check(q, cmp.Equal(r.Out, "cdb-runc-joined"), "the first process of the pid namespace sees the process that joined")
	assert.Check(q, proc.InnerPID(q, inJoined.PID) != 1, "there are two first processes in one pid namespace")
	q.Fact("cgroup of the process that joined, seen from the cgroup namespace that it joined",
		joined.Run("cut -d: -f3 /proc/self/cgroup | sort -u").Out)
}

// linkToNamespaces makes a link to the namespaces of a container's process, and returns it. With their paths through the link,
// config.json reads the same in each run. The name is that of the container.
func linkToNamespaces(q *lab.Q, name string, p proc.Process) string {
	q.Helper()
	link := q.Dir + "/ns"
	assert.NilError(q, os.Symlink(fmt.Sprintf("/proc/%d/ns", p.PID), link))
	q.Cleanup(func() { _ = os.Remove(link) })
	q.LogCommand(`ln -s /proc/$(grep -o '"init_process_pid":[0-9]*' root-%[1]s/cdb-runc-%[1]s/state.json | cut -d: -f2)/ns ns`, name)
	return link
}

// namespaceRefusal is an edit of config.json that makes create fail.
type namespaceRefusal struct {
	what      string
	edit      func(*specs.Spec)
	wantError string
}

// namespaceRefusals returns the entries that make no sense. links is the directory of the namespaces of a running container.
func namespaceRefusals(questionDir, links string, hasTime bool) []namespaceRefusal {
	add := func(ns specs.LinuxNamespace) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, ns) }
	}
	replace := func(ns specs.LinuxNamespace) func(*specs.Spec) {
		return func(s *specs.Spec) { bundle.WithoutNamespace(ns.Type)(s); add(ns)(s) }
	}
	refusals := []namespaceRefusal{
		{"a type twice", add(specs.LinuxNamespace{Type: specs.UTSNamespace}), "duplicate"},
		{"an unknown type", add(specs.LinuxNamespace{Type: "nonsense"}), "namespace"},
		{"no file of this path", replace(specs.LinuxNamespace{Type: specs.UTSNamespace, Path: questionDir + "/nowhere"}),
			"nowhere|no such file"},
		{"a namespace of another type", replace(specs.LinuxNamespace{Type: specs.IPCNamespace, Path: links + "/net"}),
			"setns|namespace"},
		// With no path to mask, runc 1.5.2 does not refuse, and changes the host's own mount table: do not try that on a host
		// that is still needed.
		{"no mount namespace, but masked paths", bundle.WithoutNamespace(specs.MountNamespace), "MNT namespace"},
		// In that mount namespace there is no directory of the bundle.
		{"another's mount namespace", replace(specs.LinuxNamespace{Type: specs.MountNamespace, Path: links + "/mnt"}), "no such file"},
	}
	if hasTime {
		offsets := func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: decade}}
		}
		refusals = append(refusals, namespaceRefusal{"time offsets, on the host", offsets, "time namespace"})
	}
	return refusals
}

// The hostname, the domain name, and the sysctls that are in a list of runc can be set for one container. Each belongs to a namespace.
//
// runc writes the values in the container's namespaces, and config.json has to have the entry of the namespace: without it the host's
// value would change, and runc refuses. An entry with a path is enough: the value then changes for each process in the joined
// namespace, such as those of another container. runc refuses a net sysctl if the path is its own network namespace. The list has
// net.*, fs.mqueue.*, eight of kernel.*, such as kernel.msgmax, kernel.domainname, and since runc 1.4 user.*. runc refuses each other
// sysctl. Most of them belong to no namespace, and are the whole machine's. But runc also refuses kernel.hostname, for which there is
// the field hostname, and kernel.msg_next_id, which belongs to the IPC namespace.
//
// Hint: read the same file of /proc/sys in the container and on the host.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#sysctl
// Kernel: https://docs.kernel.org/admin-guide/sysctl/net.html, https://man7.org/linux/man-pages/man7/uts_namespaces.7.html
func TestBundle_WhichNamesAndSysctlsAreTheContainersOwn(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which names and sysctls are the container's own?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	rows := ownNamesAndSysctls
	hostValues := func() (values []string) {
		for _, row := range rows {
			values = append(values, file.Read(q, "/proc/sys/"+row.file))
		}
		return values
	}
	before := hostValues()
	valuesInside := func(sh *runc.Shell) []string {
		cat := ""
		for _, row := range rows {
			cat += " /proc/sys/" + row.file
		}
		return strings.Split(sh.Run("cat"+cat).Out, "\n")
	}

	q.Step("without the fields: in namespaces of its own, the kernel's first values, and a copy of the host's names")
	_, sh, _ := runc.StartWithShell(q, b, "first", func(s *specs.Spec) { s.Hostname, s.Domainname, s.Linux.Sysctl = "", "", nil })
	first := valuesInside(sh)
	assert.Assert(q, cmp.Len(first, len(rows)), "one line for each file")
	assert.Check(q, cmp.DeepEqual(first[:2], before[:2]), "a new uts namespace begins with a copy of the old one's hostname and domain name")
	// IPDEFTTL, MSGMAX and DFLT_MSGMAX of the kernel's source.
	assert.Check(q, cmp.DeepEqual(first[2:], []string{"64", "8192", "10"}), "sysctls in new namespaces: the kernel's first values")
	for i, row := range rows[2:] {
		q.Fact("without the fields: "+row.file, first[2+i])
	}

	q.Step("with them: the values are the container's, and the host's are untouched")
	_, sh, inSet := runc.StartWithShell(q, b, "set", func(s *specs.Spec) {
		for _, row := range rows {
			row.edit(s)
		}
	})
	set := valuesInside(sh)
	assert.Assert(q, cmp.Len(set, len(rows)), "one line for each file")
	for i, row := range rows {
		field := row.covers[0]
		assert.Check(q, first[i] != row.value, "%s has the value %s without the field", row.file, row.value)
		if set[i] == first[i] && field == "domainname" && !runc.KnowsSince(q, "domainname,omitempty", "1.2.0-rc.1") {
			q.Fact(field, "this runtime does not know the field (runc does since 1.2.0), and ignores it without an error")
			continue
		}
		assert.Check(q, cmp.Equal(set[i], row.value), "%s in the container, by %s", row.file, field)
		q.Covers(row.covers...)
		q.Fact(field+": "+row.file, set[i])
	}
	assert.Check(q, cmp.DeepEqual(hostValues(), before), "the host's values after")
	r := sh.Run("echo 98 > /proc/sys/net/ipv4/ip_default_ttl")
	assert.Check(q, cmp.Contains(r.Out, "Read-only file system"), "the container's own write to its sysctl: exit code %d", r.Code)
	q.Fact("write to a sysctl from inside the container: error", r.Failure())

	q.Step("another container joins these namespaces by their paths, and sets the values: they change for both")
	links := linkToNamespaces(q, "set", inSet)
	runc.Variant(q, b, "joining", bundle.NamespacePath(specs.UTSNamespace, links+"/uts"),
		bundle.NamespacePath(specs.IPCNamespace, links+"/ipc"), bundle.NamespacePath(specs.NetworkNamespace, links+"/net"),
		func(s *specs.Spec) { s.Hostname = "cdb-joining" }, sysctl("net.ipv4.ip_default_ttl", "98"), sysctl("kernel.msgmax", "5432"),
	).CreateAndStart()
	want := slices.Clone(set)
	want[0], want[2], want[3] = "cdb-joining", "98", "5432"
	overwritten := valuesInside(sh)
	assert.Check(q, cmp.DeepEqual(overwritten, want), "values in the container whose namespaces another container has joined")
	q.Fact("values of the first container, after a second one has set them", overwritten)
	assert.Check(q, cmp.DeepEqual(hostValues(), before), "the host's values after a container has joined the namespaces of another one")

	q.Control("without an entry for the namespace the values would be the host's: runc refuses")
	for i, row := range rows {
		// A field that the runtime does not know it cannot refuse either.
		if set[i] != row.value {
			continue
		}
		name := "host-" + strings.ReplaceAll(row.file, "/", "-")
		q.Run(name, func(q *lab.Q) {
			noHostname := func(s *specs.Spec) { s.Hostname = "" }
			r := runc.Variant(q, b, name, noHostname, row.edit, bundle.WithoutNamespace(row.ns)).MustRefuse("namespace")
			q.Fact(fmt.Sprintf("create with %s and no %s namespace: error", row.file, row.ns),
				runc.MaskPIDs(runc.LastLogMessage(r)))
		})
	}
	q.Run("no-namespace", func(q *lab.Q) {
		r := runc.Variant(q, b, "no-namespace", sysctl("vm.swappiness", "1")).MustRefuse("vm.swappiness.*namespace")
		q.Fact("create with vm/swappiness, which belongs to no namespace: error", runc.MaskPIDs(runc.LastLogMessage(r)))
	})
	if runc.IsRunc(q) {
		for _, key := range []string{"kernel.hostname", "kernel.msg_next_id"} {
			r := runc.Variant(q, b, key, sysctl(key, "1")).MustRefuse("sysctl.*" + key)
			q.Fact("create with "+key+", which belongs to a namespace, and is not in runc's list: error", runc.LastLogMessage(r))
		}
	}
	assert.Check(q, cmp.DeepEqual(hostValues(), before), "the host's values at the end")

	q.Answer("The hostname, the domain name and the sysctls that belong to a namespace are the container's own, if config.json has an entry " +
		"for that namespace. With a path they change for the whole joined namespace. runc sets only the sysctls of its list, such as net.* and " +
		"kernel.msgmax, and refuses all others.")
}

// sysctl returns an edit that sets a value of linux.sysctl.
func sysctl(key, value string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		if s.Linux.Sysctl == nil {
			s.Linux.Sysctl = map[string]string{}
		}
		s.Linux.Sysctl[key] = value
	}
}

// ownValue is a name or a sysctl that belongs to a namespace.
type ownValue struct {
	covers lab.Fields
	edit   func(*specs.Spec)
	ns     specs.LinuxNamespaceType // to which the value belongs
	file   string                   // below /proc/sys
	value  string
}

// ownNamesAndSysctls has a row for each file of /proc/sys that the question sets: first the names, then the sysctls.
var ownNamesAndSysctls = []ownValue{
	{lab.Fields{"hostname"}, func(s *specs.Spec) { s.Hostname = "cdb-name" },
		specs.UTSNamespace, "kernel/hostname", "cdb-name"},
	{lab.Fields{"domainname"}, func(s *specs.Spec) { s.Domainname = "cdb.example" },
		specs.UTSNamespace, "kernel/domainname", "cdb.example"},
	{lab.Fields{"linux.sysctl"}, sysctl("net.ipv4.ip_default_ttl", "99"),
		specs.NetworkNamespace, "net/ipv4/ip_default_ttl", "99"},
	{lab.Fields{"linux.sysctl"}, sysctl("kernel.msgmax", "4321"), specs.IPCNamespace, "kernel/msgmax", "4321"},
	{lab.Fields{"linux.sysctl"}, sysctl("fs.mqueue.msg_max", "7"), specs.IPCNamespace, "fs/mqueue/msg_max", "7"},
}

// The runtime moves the device from the network namespace in which it is called into the container's, before the program runs.
//
// The device keeps its address, is up again, and has the name that the field gives it. It is moved and not copied: afterwards the
// first namespace does not have it.
//
// Hint: /sys/class/net shows the devices of the namespace in which sysfs was mounted; where is the device afterwards?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#network-devices
// Kernel: https://man7.org/linux/man-pages/man7/network_namespaces.7.html
func TestBundle_HowDoesANetworkDeviceComeIntoTheContainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does a network device come into the container?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	devices := func(sh *runc.Shell) []string { return strings.Fields(sh.Run("ls /sys/class/net").Out) }
	hasDevice := func(sh *runc.Shell, name string) bool { return slices.Contains(devices(sh), name) }

	q.Step("a network namespace that stands for the host's, of a container that may administer it")
	_, holder, inHolder := runc.StartWithShell(q, b, "holder", bundle.WithCapability("CAP_NET_ADMIN"))
	if r := holder.Run("ip link add cdb0 type veth && ip addr add 192.0.2.7/24 dev cdb0 && ip link set cdb0 up"); r.Code != 0 {
		q.Skipf("this kernel has no veth to make a device of: %s; look again after modprobe veth, or ask it in the VM: make lab", r.Out)
	}
	assert.Check(q, cmp.Contains(devices(holder), "cdb0"))
	assert.NilError(q, os.Symlink(fmt.Sprintf("/proc/%d/ns/net", inHolder.PID), q.Dir+"/holder-net"))
	q.Cleanup(func() { _ = os.Remove(q.Dir + "/holder-net") })
	q.LogCommand(`ln -s /proc/$(grep -o '"init_process_pid":[0-9]*' root-holder/cdb-runc-holder/state.json | cut -d: -f2)/ns/net holder-net`)
	// The runtime is called in the network namespace of this container, so that no device of the host is ever touched.
	create := func(c *runc.Container) lab.Result {
		return q.Exec(q.UnderTest("busybox").Path, "nsenter", "-n"+q.Dir+"/holder-net",
			"runc", "--root", c.Root, "create", "--bundle", c.Bundle.Name, c.ID)
	}
	start := func(c *runc.Container) proc.Process {
		pid := c.State().Pid
		c.Start()
		proc.WaitFor(q, proc.Runs(proc.PID(pid), "sh"))
		return proc.Snapshot(q, proc.PID(pid))
	}

	q.Control("without the field, the device stays where it is")
	plain := runc.Variant(q, b, "plain")
	sh := plain.UseShell()
	r := create(plain)
	assert.Assert(q, cmp.Equal(r.Code, 0), "%s", r)
	inPlain := start(plain)
	assert.Check(q, inPlain.NS["net"] != inHolder.NS["net"], "the container has no network namespace of its own")
	assert.Check(q, !hasDevice(sh, "cdb0"), "the device is in a container that did not ask for it")
	assert.Check(q, cmp.Contains(devices(holder), "cdb0"), "the device left its namespace although no container asked for it")
	q.Fact("devices of the container", devices(sh))

	q.Step("linux.netDevices: the device is moved, and renamed")
	device := func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"cdb0": {Name: "cdb7"}} }
	moved := runc.Variant(q, b, "moved", device)
	sh = moved.UseShell()
	r = create(moved)
	if err := missingNetlinkFamily(); err != nil && r.Code != 0 {
		// To give the device its address back, runc opens a netlink socket of each of these families, and needs only one.
		runc.AssertMessage(q, r.Stderr, "protocol not supported")
		q.Fact("linux.netDevices", runc.MaskPIDs(runc.LastLogMessage(r)))
		q.Fact("the kernel has", err)
		// runc fails after it has moved the device, and the container is not created. The device ends with its network namespace.
		assert.Check(q, !hasDevice(holder, "cdb0"), "the device is back where it came from")
		q.Fact("devices left behind", devices(holder))
		q.Answer("On this kernel no network device comes into the container by linux.netDevices: the runtime opens kinds of netlink sockets " +
			"that the kernel lacks, and create fails.")
		return
	}
	assert.Assert(q, cmp.Equal(r.Code, 0), "%s", r)
	start(moved)
	if !hasDevice(sh, "cdb7") && !runc.KnowsSince(q, "netDevices,omitempty", "1.4.0-rc.1") {
		assert.Check(q, cmp.Contains(devices(holder), "cdb0"), "the device is in neither namespace")
		q.Fact("linux.netDevices", "this runtime does not know the field (runc 1.3.6 does not, 1.4.1 does), and ignores it without an error")
		q.Answer("This runtime does not know the field linux.netDevices, so no network device comes into the container: the runtime leaves " +
			"the device where it is.")
		return
	}
	assert.Check(q, cmp.Contains(devices(sh), "cdb7"), "the device is not in the container")
	assert.Check(q, !hasDevice(holder, "cdb0"), "the device is still where it came from")
	address := sh.Run("ip -o -4 addr show dev cdb7").Out
	assert.Check(q, cmp.Contains(address, "192.0.2.7/24"), "the address of the device in the container")
	assert.Check(q, cmp.Equal(sh.Run("ip link show up dev cdb7 | grep -c cdb7").Out, "1"), "the device is up")
	q.Covers("linux.netDevices")
	q.Fact("linux.netDevices", devices(sh))
	q.Fact("devices left behind", devices(holder))

	q.Step("a device that does not exist, and a container without a network namespace of its own, are refused")
	for _, refused := range []struct {
		what      string
		edits     []func(*specs.Spec)
		wantError string
	}{
		{"no-such-device", []func(*specs.Spec){device}, "cdb0|Link not found|no such (network )?(interface|device)"},
		{"no-namespace", []func(*specs.Spec){device, bundle.WithoutNamespace(specs.NetworkNamespace)}, "NET namespace"},
	} {
		c := runc.Variant(q, b, refused.what, refused.edits...)
		r = create(c)
		assert.Check(q, r.Code != 0, "create succeeds:\n%s", r)
		assert.Check(q, cmp.Regexp("(?i)"+refused.wantError, r.Stderr), "the error does not name what is wrong")
		q.Fact("create, "+refused.what+": error", runc.MaskPIDs(runc.LastLogMessage(r)))
	}

	q.Answer("The runtime moves a device that linux.netDevices names from the network namespace in which the runtime is called into the " +
		"container's. The device keeps its address, and is no longer where it was.")
}

// missingNetlinkFamily returns an error that names a netlink family which runc's library opens, and which the kernel does not
// have and cannot load. It returns nil if there is none.
func missingNetlinkFamily() error {
	for name, family := range map[string]int{"NETLINK_XFRM": unix.NETLINK_XFRM, "NETLINK_NETFILTER": unix.NETLINK_NETFILTER} {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
		if err != nil {
			return fmt.Errorf("no %s: %w", name, err)
		}
		_ = unix.Close(fd)
	}
	return nil
}
