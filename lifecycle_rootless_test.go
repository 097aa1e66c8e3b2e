//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// By itself, an ordinary user can create, start, enter, kill and delete a rootless container: one in a new user namespace, whose root is
// this user. Without a delegated cgroup the user cannot limit or pause it. Without /etc/subuid the user cannot map a second id into it.
// The user can never make a device node: runc mounts the host's /dev/null and the like. Nor does the user get rights over the host's
// network.
//
// If no setting forbids it, the kernel lets every user make a user namespace, and lets root of this namespace make the other
// namespaces. Without a helper such as newuidmap, the user can map only its own id. runc keeps its state in $XDG_RUNTIME_DIR/runc. The
// user cannot make a cgroup, so the container stays in the caller's cgroup, and pause, ps, update and limits fail. On cgroup v2, a user
// with a session of systemd has a delegated cgroup: with --systemd-cgroup and the cgroupsPath user.slice:runc:id, limits and pause work.
// Capabilities count only in the user namespace, and for what belongs to it: a mount is allowed there, a device node is not. The host's
// network belongs to the host's user namespace: the container uses it, and its root cannot configure it.
//
// Hint: as another user than root, call runc spec --rootless and runc run; read /proc/PID/{uid_map,setgroups,cgroup,ns}.
// Spec: https://github.com/opencontainers/runc#rootless-containers,
// https://github.com/opencontainers/runc/blob/main/docs/cgroup-v2.md#rootless
// Kernel: https://man7.org/linux/man-pages/man7/user_namespaces.7.html
func TestLifecycle_WhatCanAnOrdinaryUserDoWithRunc(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What can an ordinary user do with runc?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "runc spec --rootless and its state below XDG_RUNTIME_DIR")
	const uid, gid = 64321, 64322 // that no user of the host has
	user := newOrdinaryUser(q, uid, gid)

	q.Step("the user calls runc spec --rootless: config.json maps only the user's id, and has nothing that needs root")
	b := bundle.Busybox(q, "sleep", "3600")
	written := bundle.Read(q, runc.SpecAs(q, uid, gid, "spec", "--rootless"))
	rootless := rootlessAs(written)
	assert.Check(q, cmp.DeepEqual(written.Linux.UIDMappings, []specs.LinuxIDMapping{{ContainerID: 0, HostID: uid, Size: 1}}))
	assert.Check(q, written.Linux.Resources == nil, "linux.resources of runc spec --rootless: %+v", written.Linux.Resources)
	difference, err := bundle.Difference(b.Spec, b.Variant("compared", "cdb-compared", rootless).Spec)
	assert.NilError(q, err)
	q.Fact("runc spec --rootless: differences in config.json", difference)

	q.Step("the user runs the container: root in it is this user. It has a new user namespace, the host's network, and the caller's cgroup")
	dir, id := user.makeBundle(b, "rootless", rootless)
	user.deleteAtEnd(id)
	pidFile := filepath.Join(user.state, "pid")
	ran := user.runc("run", "--detach", "--pid-file", pidFile, "--bundle", dir, id)
	assert.Assert(q, cmp.Equal(ran.Code, 0), "runc run of an ordinary user:\n%s", ran)
	p := proc.Snapshot(q, proc.PID(check.Int(q, file.Read(q, pidFile))))
	proc.WaitFor(q, proc.Runs(p.PID, "sleep"))
	user.assertRootIsUser(id, p)

	q.Step("operations work if they need neither a cgroup nor a second id; the others are refused")
	for _, row := range rootlessOperations(id) {
		r, name := user.runc(row.args...), strings.Join(slices.DeleteFunc(slices.Clone(row.args), func(a string) bool { return a == id }), " ")
		assert.Check(q, cmp.Equal(r.Code != 0, row.refused != ""), "runc %s by an ordinary user is refused:\n%s", name, r)
		if row.refused != "" {
			runc.AssertMessage(q, r.Stderr, row.refused)
		}
		q.Fact("runc "+name+": works", r.Code == 0)
	}

	q.Step("capabilities of the container's root count in its user namespace, and not for what belongs to the host")
	ofRoot := runc.New(q, b)
	ofRoot.CreateAndStart()
	for _, row := range capabilityActs {
		args := []string{"sh", "-c", row.act}
		r := user.runc(append([]string{"exec", "--cap", row.capability, id}, args...)...)
		assert.Check(q, cmp.Equal(r.Code == 0, row.userMay), "%s, with %s, in the container of an ordinary user succeeds:\n%s",
			row.act, row.capability, r)
		control := q.Exec(append([]string{"runc", "--root", ofRoot.Root, "exec", "--cap", row.capability, ofRoot.ID}, args...)...)
		assert.Check(q, cmp.Equal(control.Code, 0), "%s, with %s, in the container of root:\n%s", row.act, row.capability, control)
		q.Fact(row.act+": allowed in the user's container, and in root's", []bool{r.Code == 0, control.Code == 0})
	}

	q.Control("a container of the user with a network namespace of its own: its root may configure the network there")
	ownDir, ownID := user.makeBundle(b, "own-net", rootless, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "ip link set dev lo mtu 1400 && ip link show lo"} // /sys shows the host's network
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
		bundle.WithCapability("CAP_NET_ADMIN")(s)
	})
	configures := user.runc("run", "--bundle", ownDir, ownID)
	assert.Check(q, cmp.Equal(configures.Code, 0), "ip link set, in a network namespace of the user's container:\n%s", configures)
	assert.Check(q, cmp.Contains(configures.Stdout, "mtu 1400"), "lo in the network namespace of the user's container")
	q.Fact("ip link set dev lo mtu 1400, in a network namespace of its own: allowed", configures.Code == 0)

	q.Step("the user creates containers with one setting more: runc or the kernel refuses each. Root creates them, as the control")
	for _, row := range settingsOfRoot(q) {
		dir, id := user.makeBundle(b, row.name, rootless, row.edit)
		r := user.runc("create", "--bundle", dir, id)
		assert.Check(q, r.Code != 0, "create by an ordinary user, %s, succeeds:\n%s", row.name, r)
		runc.AssertMessage(q, r.Stderr, row.message)
		assert.Check(q, !file.Exists(user.stateDir(id)), "create by an ordinary user, %s, left its state", row.name)
		created := runc.Variant(q, b, "root-"+row.name, func(s *specs.Spec) {
			cgroupsPath := s.Linux.CgroupsPath
			if row.mapped {
				rootless(s)
			}
			row.edit(s)
			s.Linux.CgroupsPath = cgroupsPath
		}).Must("create")
		q.Fact("create, "+row.name+": error for the user", runc.StableMessage(r.Stderr))
		q.Fact("create, "+row.name+": exit code for root", created.Code)
	}

	q.TearDown("the user kills and deletes the container: nothing of it is left", func() {
		killed := user.runc("kill", id, "KILL")
		assert.Check(q, cmp.Equal(killed.Code, 0), "runc kill of an ordinary user:\n%s", killed)
		proc.WaitFor(q, proc.Dead(p.Identity))
		deleted := user.runc("delete", id)
		assert.Check(q, cmp.Equal(deleted.Code, 0), "runc delete of an ordinary user:\n%s", deleted)
		assert.Check(q, !file.Exists(user.stateDir(id)), "the state directory still exists after delete")
	})
	q.Answer("By itself, an ordinary user can create, start, enter, kill and delete a container in a new user namespace, whose root is this " +
		"user. Limits and pause need a delegated cgroup, and a second id needs an entry in /etc/subuid. The user can never make a device " +
		"node, and has no rights over the host's network.")
}

// ordinaryUser is the user id and the group id with which the question calls runc. They are numbers without an account on the host.
type ordinaryUser struct {
	q        *lab.Q
	uid, gid uint32
	state    string // the user's XDG_RUNTIME_DIR
}

// newOrdinaryUser makes the user's XDG_RUNTIME_DIR. The question is skipped if the kernel lets the user make no user namespace.
func newOrdinaryUser(q *lab.Q, uid, gid uint32) ordinaryUser {
	q.Helper()
	// Two capabilities of the new namespace are needed, for the map and for the mount namespace: AppArmor's
	// kernel.apparmor_restrict_unprivileged_userns=1 allows the namespace, and takes its capabilities away.
	if probe := q.ExecAs(uid, gid, "busybox", "unshare", "-U", "-r", "-m", "true"); probe.Code != 0 {
		q.Skipf("this kernel lets no ordinary user make a user namespace with capabilities: %s. Ask the question in the VM, by make lab, or set "+
			"kernel.unprivileged_userns_clone = 1, user.max_user_namespaces above 0, and "+
			"kernel.apparmor_restrict_unprivileged_userns = 0, as far as the kernel has them", check.LastLine(probe.Stderr))
	}
	user := ordinaryUser{q: q, uid: uid, gid: gid, state: q.Mkdir("xdg")}
	assert.NilError(q, os.Chown(user.state, int(uid), int(gid)))
	q.LogCommand("chown %d:%d xdg", uid, gid)
	q.Export("XDG_RUNTIME_DIR", user.state)
	return user
}

// deleteAtEnd deletes the user's container at the end of the question, if it is still there.
func (u ordinaryUser) deleteAtEnd(id string) {
	u.q.Cleanup(func() {
		if file.Exists(u.stateDir(id)) {
			u.runc("delete", "--force", id)
		}
	})
}

// runc calls runc as the user.
func (u ordinaryUser) runc(args ...string) lab.Result {
	u.q.Helper()
	return u.q.ExecAs(u.uid, u.gid, append([]string{"runc"}, args...)...)
}

// stateDir returns the directory in which runc keeps the state of the user's container.
func (u ordinaryUser) stateDir(id string) string { return filepath.Join(u.state, "runc", id) }

// rootlessAs returns an edit that gives config.json what `runc spec --rootless` has written below linux and mounts.
func rootlessAs(written *specs.Spec) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux, s.Mounts = new(*written.Linux), slices.Clone(written.Mounts)
		s.Linux.UIDMappings, s.Linux.Namespaces = slices.Clone(s.Linux.UIDMappings), slices.Clone(s.Linux.Namespaces)
		s.Linux.CgroupsPath = ""
	}
}

// makeBundle makes a bundle for a container of the user. It returns its directory and the id of the container.
func (u ordinaryUser) makeBundle(b *bundle.Bundle, name string, edits ...func(*specs.Spec)) (dir, id string) {
	u.q.Helper()
	id = u.q.ID("cdb-" + name)
	return b.Variant(name, id, edits...).Name, id
}

// assertRootIsUser asserts that the container's process is root inside, and the user on the host. It has a user namespace of its own, but
// neither a network namespace nor a cgroup of its own. The directory of its state belongs to the user.
func (u ordinaryUser) assertRootIsUser(id string, p proc.Process) {
	q, uid, gid := u.q, u.uid, u.gid
	self, callers := proc.Self(q), strings.TrimSpace(q.ExecAs(uid, gid, "busybox", "cat", "/proc/self/cgroup").Stdout)
	kernel := map[string]string{"setgroups": proc.File(q, p.PID, "setgroups"), "Uid": proc.Status(q, p.PID, "Uid"),
		"uid_map": strings.Join(strings.Fields(proc.File(q, p.PID, "uid_map")), " "),
		"gid_map": strings.Join(strings.Fields(proc.File(q, p.PID, "gid_map")), " ")}
	assert.Check(q, cmp.DeepEqual(kernel, map[string]string{"uid_map": fmt.Sprintf("0 %d 1", uid), "gid_map": fmt.Sprintf("0 %d 1", gid),
		"setgroups": "deny", "Uid": fmt.Sprintf("%[1]d %[1]d %[1]d %[1]d", uid)}), "what /proc/PID shows of the container's process")
	inside := strings.TrimSpace(u.runc("exec", id, "id", "-u").Stdout)
	assert.Check(q, cmp.Equal(inside, "0"), "user in the container")
	own := p.OwnNamespaces(self.Identity)
	isRootless := slices.Contains(own, "user") && slices.Contains(own, "pid") && !slices.Contains(own, "net")
	assert.Check(q, isRootless, "namespaces of its own: %v", own)
	assert.Check(q, cmp.Equal(proc.File(q, p.PID, "cgroup"), callers), "cgroups of the container's process, and of a caller of runc")
	assert.Check(q, cmp.Contains(callers, q.UserCgroup(uid)), "cgroups of a caller of runc") // by it a sweep finds them after a SIGKILL
	owner := file.Owner(q, u.stateDir(id))
	assert.Check(q, cmp.Equal(owner, fmt.Sprintf("%d:%d", uid, gid)), "owner of the state directory")
	q.Fact("/proc/PID of the container's process", kernel)
	q.Fact("user in the container", inside)
	q.Fact("namespaces of its own", own)
	q.Fact("owner of $XDG_RUNTIME_DIR/runc/<id>", owner)
}

// idNotMapped is a pattern of the errors about an id that the user namespace does not map. runc 1.5 gives the output to the user before
// it looks at the map: chown of an id that is not mapped is EINVAL.
const idNotMapped = "unmapped|chown /dev/std|setuid"

// rootlessOperation is a call of runc by the user.
type rootlessOperation struct {
	args    []string
	refused string // pattern of the error; empty if the operation works
}

// rootlessOperations lists operations on the user's container of this id.
func rootlessOperations(id string) []rootlessOperation {
	return []rootlessOperation{
		{[]string{"state", id}, ""}, {[]string{"list"}, ""}, {[]string{"exec", id, "true"}, ""},
		{[]string{"ps", id}, "no such file|cgroup"}, {[]string{"pause", id}, "cgroup|freez"},
		{[]string{"update", "--pids-limit", "5", id}, "cgroup"}, {[]string{"exec", "--user", "1", id, "true"}, idNotMapped},
	}
}

// capabilityActs are commands that need a capability. With it, root of the host's user namespace may run each of them.
var capabilityActs = []struct {
	capability, act string
	userMay         bool // whether the root of the user's container may run it, too
}{
	{"CAP_SYS_ADMIN", "mount -t tmpfs tmpfs /dev/shm", true},
	{"CAP_MKNOD", "mknod /dev/null2 c 1 3", false},
	{"CAP_NET_ADMIN", "ip link set dev lo mtu 1400", false},
	{"CAP_CHOWN", "touch /dev/file && chown 1 /dev/file", false},
}

// settingOfRoot is a setting of config.json with which root can create a container, and an ordinary user cannot.
type settingOfRoot struct {
	name, message string // message is a pattern of the error for the user
	edit          func(*specs.Spec)
	mapped        bool // root also needs a user namespace, to have the same
}

// settingsOfRoot lists the settings that runc or the kernel refuses for an ordinary user.
func settingsOfRoot(q *lab.Q) []settingOfRoot {
	return []settingOfRoot{
		{"no-user-namespace", "user namespace", func(s *specs.Spec) {
			bundle.WithoutNamespace(specs.UserNamespace)(s)
			s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
		}, false},
		// newuidmap, if the machine has it, allows none, because /etc/subuid has no ids for this user.
		{"two-ids", "uid.?map|mapping|final child", func(s *specs.Spec) { s.Linux.UIDMappings[0].Size = 2 }, true},
		// runc gives exec.fifo to the user that is root in the container, before it writes the map: chown to the host's root is EPERM.
		{"root-of-the-host", "permi(tted|ssion)|map", func(s *specs.Spec) { s.Linux.UIDMappings[0].HostID = 0 }, true},
		{"another-user", idNotMapped, func(s *specs.Spec) { s.Process.User.UID = 1 }, false},
		{"more-groups", "additional groups", func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{1} }, false},
		{"sysfs", "sysfs", func(s *specs.Spec) {
			s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/sys") })
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}})
		}, false},
		{"pids-limit", "cgroup", bundle.Resources(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: new(int64(10))} }), false},
		{"cgroup", "cgroup|permission denied", func(s *specs.Spec) { s.Linux.CgroupsPath = filepath.Join(q.Cgroup, "of-user") }, false},
	}
}

// With newuidmap and newgidmap, an ordinary user can also map the ids of the host that /etc/subuid and /etc/subgid give to the user. It can
// map no other id.
//
// The kernel lets a process without privileges write a map of one line, with its own id. For anything else the writer needs CAP_SETUID or
// CAP_SETGID. The two programs have them, by their set-user-ID bit or by a file capability, and compare the map with the files. runc looks
// for them on PATH, and calls them only if the kernel refuses to write the map. Root of the container can then become another mapped user,
// and give files to this user. On the host, such processes and files have subordinate ids. The kernel lets an ordinary user write a map of
// groups only where setgroups(2) is denied. newgidmap is no ordinary user, so setgroups stays allowed.
//
// The question mounts passwd, group, subuid and subgid of its own over /etc, in a mount namespace for runc, and uses copies of the two
// programs.
//
// Hint: compare /proc/PID/uid_map of a rootless container with the lines of /etc/subuid.
// Spec: https://github.com/opencontainers/runc#rootless-containers
// Kernel: https://man7.org/linux/man-pages/man7/user_namespaces.7.html, https://man7.org/linux/man-pages/man1/newuidmap.1.html,
// https://man7.org/linux/man-pages/man5/subuid.5.html
func TestLifecycle_WhichIDsCanAnOrdinaryUserMap(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which ids can an ordinary user map?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "newuidmap, and the state of runc below XDG_RUNTIME_DIR")
	const uid, gid, firstUID, firstGID, ids = 64341, 64342, 210000, 310000, 1000 // ids that the host need not know
	tools := copyMappingTools(q, "tools", 0o4755)
	user := newOrdinaryUser(q, uid, gid)
	b := bundle.Busybox(q, "sleep", "3600")
	rootless := rootlessAs(bundle.Read(q, runc.SpecAs(q, uid, gid, "spec", "--rootless")))
	withMaps := func(hostUID, users, groups uint32) func(*specs.Spec) {
		return func(s *specs.Spec) {
			rootless(s)
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uid, Size: 1}, {ContainerID: 1, HostID: hostUID, Size: users}}
			s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: gid, Size: 1}, {ContainerID: 1, HostID: firstGID, Size: groups}}
		}
	}
	account := subordinateIDs{name: "cdb-user", uid: uid, gid: gid, firstUID: firstUID, firstGID: firstGID, ids: ids}

	q.Step("the user runs a container with %d more ids, which /etc/subuid and /etc/subgid give to the user: the maps have two lines", ids)
	etc := account.writeEtc(q, "etc", account.name)
	dir, id := user.makeBundle(b, "mapped", withMaps(firstUID, ids, ids))
	user.deleteAtEnd(id)
	pidFile := filepath.Join(user.state, "pid")
	ran := account.run(q, etc, tools, "--detach", "--pid-file", pidFile, "--bundle", dir, id)
	assert.Assert(q, cmp.Equal(ran.Code, 0), "runc run of an ordinary user with subordinate ids:\n%s", ran)
	p := proc.Snapshot(q, proc.PID(check.Int(q, file.Read(q, pidFile))))
	proc.WaitFor(q, proc.Runs(p.PID, "sleep"))
	for _, row := range []struct {
		name         string
		own, further uint32
	}{{"uid_map", uid, firstUID}, {"gid_map", gid, firstGID}} {
		got := proc.IDMap(q, p.PID, row.name)
		want := [][]string{{"0", fmt.Sprint(row.own), "1"}, {"1", fmt.Sprint(row.further), fmt.Sprint(ids)}}
		assert.Check(q, cmp.DeepEqual(got, want), "%s of the container's process", row.name)
		q.Fact("container's process: "+row.name, got)
	}
	setgroups := proc.File(q, p.PID, "setgroups")
	assert.Check(q, cmp.Equal(setgroups, "allow"), "setgroups of the container's process, whose map newgidmap has written")
	q.Fact("container's process: setgroups", setgroups)

	q.Step("run a program as 5:5 in the container, and give a file to 5:5: on the host both have the ids %d:%d. Id 1 is the first subordinate id",
		firstUID+4, firstGID+4)
	execPIDFile := filepath.Join(user.state, "exec-pid")
	executed := user.runc("exec", "--detach", "--pid-file", execPIDFile, "--user", "5:5", id, "sleep", "3601")
	assert.Assert(q, cmp.Equal(executed.Code, 0), "exec --user 5:5 in the user's container:\n%s", executed)
	other := proc.PID(check.Int(q, file.Read(q, execPIDFile)))
	ofProgram := []string{proc.Status(q, other, "Uid"), proc.Status(q, other, "Gid")}
	fourTimes := func(id uint32) string { return strings.TrimSpace(strings.Repeat(fmt.Sprint(id)+" ", 4)) }
	assert.Check(q, cmp.DeepEqual(ofProgram, []string{fourTimes(firstUID + 4), fourTimes(firstGID + 4)}), "ids of the program on the host")
	q.Fact("exec --user 5:5: ids on the host", ofProgram)
	given := user.runc("exec", "--cap", "CAP_CHOWN", id, "sh", "-c", "touch /dev/file && chown 5:5 /dev/file")
	assert.Assert(q, cmp.Equal(given.Code, 0), "chown in the user's container:\n%s", given)
	owner := file.Owner(q, fmt.Sprintf("/proc/%d/root/dev/file", p.PID))
	assert.Check(q, cmp.Equal(owner, fmt.Sprintf("%d:%d", firstUID+4, firstGID+4)), "owner on the host of a file of 5:5 of the container")
	q.Fact("chown 5:5 in the container: owner on the host", owner)

	for _, row := range []struct {
		name, step string
		etc, tools string
		edit       func(*specs.Spec)
	}{
		{"no-entry", "the files give the ids to another user", account.writeEtc(q, "etc-of-another", "another"), tools,
			withMaps(firstUID, ids, ids)},
		{"one-user-more", "the map of users has one id more than /etc/subuid gives", etc, tools, withMaps(firstUID, ids+1, ids)},
		{"one-group-more", "the map of groups has one id more than /etc/subgid gives", etc, tools, withMaps(firstUID, ids, ids+1)},
		{"root-of-the-host", "the map has the host's root", etc, tools, withMaps(0, 1, ids)},
		{"no-privilege", "newuidmap and newgidmap have no privileges", etc, copyMappingTools(q, "plain-tools", 0o755),
			withMaps(firstUID, ids, ids)},
	} {
		q.Control("%s: run fails", row.step)
		dir, id := user.makeBundle(b, row.name, row.edit)
		user.deleteAtEnd(id)
		r := account.run(q, row.etc, row.tools, "--detach", "--bundle", dir, id)
		assert.Check(q, r.Code != 0, "runc run of an ordinary user must fail where %s:\n%s", row.step, r)
		runc.AssertMessage(q, r.Stderr, "[ug]id.?map|mapping|final child")
		assert.Check(q, !file.Exists(user.stateDir(id)), "run of an ordinary user, where %s, left its state", row.step)
		q.Fact("run, "+row.name+": error", runc.StableMessage(r.Stderr))
	}

	q.TearDown("the user kills and deletes the container", func() {
		for _, args := range [][]string{{"kill", id, "KILL"}, {"delete", id}} {
			r := user.runc(args...)
			assert.Check(q, cmp.Equal(r.Code, 0), "runc %s of an ordinary user:\n%s", args[0], r)
			proc.WaitFor(q, proc.Dead(p.Identity))
		}
		assert.Check(q, !file.Exists(user.stateDir(id)), "the state directory still exists after delete")
	})
	q.Answer("An ordinary user can map its own id, and with newuidmap and newgidmap those subordinate ids that /etc/subuid and /etc/subgid " +
		"give to this user. The two programs have the privilege that the kernel demands, and refuse any other id.")
}

// copyMappingTools copies newuidmap and newgidmap into a new directory, where they belong to root and have this mode. It returns the
// directory. The lab's own copies may lack the set-user-ID bit, and the file system of the lab may ignore it.
func copyMappingTools(q *lab.Q, dir string, mode os.FileMode) string {
	q.Helper()
	var paths []string
	for _, name := range []string{"newuidmap", "newgidmap"} {
		paths = append(paths, q.LookPathOrSkip(name))
	}
	at := q.MountTmpfs(q.Mkdir(dir))
	for _, path := range paths {
		q.Must("cp", path, at)
		q.Must("chmod", fmt.Sprintf("%o", mode), filepath.Join(at, filepath.Base(path)))
	}
	return at
}

// subordinateIDs is an account of the user, with the ids that it may map in addition to its own.
type subordinateIDs struct {
	name               string
	uid, gid           uint32
	firstUID, firstGID uint32
	ids                int
}

// writeEtc makes a directory with the files of /etc that newuidmap reads. The owner has the subordinate ids. It returns the directory.
func (a subordinateIDs) writeEtc(q *lab.Q, dir, owner string) string {
	q.Helper()
	etc := q.Mkdir(dir)
	for _, row := range []struct{ name, line string }{
		{"passwd", fmt.Sprintf("%s:x:%d:%d::/:/bin/sh", a.name, a.uid, a.gid)},
		{"group", fmt.Sprintf("%s:x:%d:", a.name, a.gid)},
		{"subuid", fmt.Sprintf("%s:%d:%d", owner, a.firstUID, a.ids)},
		{"subgid", fmt.Sprintf("%s:%d:%d", owner, a.firstGID, a.ids)},
	} {
		q.WriteLine(filepath.Join(etc, row.name), row.line)
	}
	return etc
}

// run calls runc run as the user, in a mount namespace that has the directory etc as /etc. The tools are the first directory on PATH. The
// user may not be able to reach runc by its path, so the user gets it as a descriptor.
func (a subordinateIDs) run(q *lab.Q, etc, tools string, args ...string) lab.Result {
	q.Helper()
	const script = `exec 7< "$1"; busybox mount -o bind "$2" /etc; PATH=$3:$PATH; export PATH; user=$4; shift 4
exec busybox su -c 'exec /proc/self/fd/7 run "$@"' -- "$user" runc "$@"`
	argv := []string{"busybox", "unshare", "-m", "sh", "-ec", script, "sh", q.UnderTest("runc").Path, etc, tools, a.name}
	return q.ExecFor(a.uid, a.gid, append(argv, args...)...)
}
