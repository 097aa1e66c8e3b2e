//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
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

// A user namespace gives ids another meaning: uid 0 in it is an ordinary user on the host.
//
// uidMappings and gidMappings become /proc/PID/uid_map and gid_map. With them the kernel translates the ids of processes and of
// files between the namespace and the host. Capabilities count for what the namespace owns, such as the hostname of its UTS
// namespace, and for files whose owner and group are mapped. For what belongs to the host, such as a file of the host's root or a block
// device, the process is user 100000.
//
// Hint: look at the same process and the same file from both sides, and read /proc/PID/uid_map.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#user-namespace-mappings
// Kernel: https://man7.org/linux/man-pages/man7/user_namespaces.7.html
func TestBundle_WhatDoesAUserNamespaceChange(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a user namespace change?")
	defer q.Recover()
	if file.Exists("/proc/sys/user/max_user_namespaces") && file.Read(q, "/proc/sys/user/max_user_namespaces") == "0" {
		q.Skip("this kernel allows no user namespace: set user.max_user_namespaces above 0")
	}
	b := bundle.Busybox(q, "sleep", "3600")

	const uid, gid, size, user = 100000, 200000, 1000, 7
	q.Step("two directories of the host: one of the mapped root's, one of the host's root")
	for dir, owner := range map[string][2]int{"mapped": {uid, gid}, "hosts": {0, 0}} {
		makeOwnedDir(q, b, dir, owner[0], owner[1])
	}

	uidMappings := []specs.LinuxIDMapping{
		{ContainerID: 0, HostID: uid, Size: size},
		{ContainerID: 5000, HostID: 300000, Size: 1},
	}
	gidMappings := []specs.LinuxIDMapping{{ContainerID: 0, HostID: gid, Size: size}}
	inUserNamespace := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = uidMappings
		s.Linux.GIDMappings = gidMappings
	}
	_, mappedShell, mapped := runc.StartWithShell(q, b, "mapped-root", bundle.ScratchAtTmp, withDirsOfHost(q.Dir), inUserNamespace)
	_, plainShell, plain := runc.StartWithShell(q, b, "hosts-root", bundle.ScratchAtTmp, withDirsOfHost(q.Dir))
	// A subtest, because the releases before and after this bug also differ in the last step: testdata/released-bugs.toml.
	q.Run("mount-types", func(q *lab.Q) {
		q.Step("the mounts have the types that they have without the namespace")
		assertSameMountTypes(q, mapped, plain)
	})

	q.Step("the mappings are the kernel's: /proc/PID/uid_map and gid_map")
	self := proc.Self(q)
	assert.Check(q, mapped.NS["user"] != self.NS["user"], "linux.namespaces user: it is the host's user namespace")
	assert.Check(q, cmp.Equal(plain.NS["user"], self.NS["user"]), "without: it is another user namespace")
	q.Covers("linux.namespaces[].type")
	q.Fact("linux.namespaces[].type", []any{"user:", mapped.NS["user"], "host:", self.NS["user"]})
	uidMap, gidMap := proc.IDMap(q, mapped.PID, "uid_map"), proc.IDMap(q, mapped.PID, "gid_map")
	assert.Assert(q, len(uidMap) >= len(uidMappings), "uid_map has %d lines: %v", len(uidMap), uidMap)
	for i, m := range uidMappings {
		assertIDMapLine(q, "uid_map", fmt.Sprintf(", line %d", i+1), uidMap[i], uidMapColumns(m))
	}
	assert.Assert(q, cmp.Len(gidMap, 1), "lines of gid_map")
	assertIDMapLine(q, "gid_map", "", gidMap[0], gidMapColumns(gidMappings[0]))

	q.Step("the same process: uid 0 inside, uid %d outside", uid)
	assert.Check(q, cmp.Equal(mappedShell.Run("echo $(id -u) $(id -g)").Out, "0 0"), "process.user, seen inside")
	assert.Check(q, cmp.Equal(proc.IDs(q, mapped.PID, "Uid")[1], fmt.Sprint(uid)), "process.user.uid 0, seen from the host")
	assert.Check(q, cmp.Equal(proc.IDs(q, mapped.PID, "Gid")[1], fmt.Sprint(gid)), "process.user.gid 0, seen from the host")
	q.Fact("Uid and Gid, inside", mappedShell.Run("grep -E '^[UG]id' /proc/self/status | cut -f 3 | xargs echo").Out)
	q.Fact("Uid and Gid, outside", []string{proc.IDs(q, mapped.PID, "Uid")[1], proc.IDs(q, mapped.PID, "Gid")[1]})

	q.Step("the same file: made by root inside, of user %d outside", uid)
	assert.Check(q, cmp.Equal(mappedShell.Run("touch /mapped/new && stat -c '%u:%g' /mapped/new").Out, "0:0"))
	assert.Check(q, cmp.Equal(file.Owner(q, q.Dir+"/mapped/new"), fmt.Sprintf("%d:%d", uid, gid)))
	q.Fact("new file, outside", file.Owner(q, q.Dir+"/mapped/new"))
	// chown takes the namespace's ids, too.
	r := mappedShell.Run(fmt.Sprintf("chown %[1]d:%[1]d /mapped/new && stat -c %%u:%%g /mapped/new", user))
	assert.Check(q, cmp.Equal(r.Out, "7:7"))
	assert.Check(q, cmp.Equal(file.Owner(q, q.Dir+"/mapped/new"), fmt.Sprintf("%d:%d", uid+user, gid+user)))
	q.Fact("after chown 7:7 inside", file.Owner(q, q.Dir+"/mapped/new"))
	mappedShell.Run("touch /mapped/last && chown 5000 /mapped/last")
	assert.Check(q, cmp.Equal(file.Owner(q, q.Dir+"/mapped/last"), fmt.Sprintf("%d:%d", 300000, gid)),
		"the owner by the mapping's second line")

	q.Step("an owner without an id inside is shown as the user nobody")
	overflow := file.Read(q, "/proc/sys/kernel/overflowuid") + ":" + file.Read(q, "/proc/sys/kernel/overflowgid")
	assert.Check(q, cmp.Equal(mappedShell.Run("stat -c %u:%g /hosts/file").Out, overflow),
		"the file of the host's root, seen inside")
	q.Fact("the host's root, inside", mappedShell.Run("stat -c %u:%g /hosts/file").Out)

	q.Step("capabilities: the same bits in both containers, and what they are worth")
	for _, line := range []string{"CapEff", "CapPrm", "CapBnd"} {
		assert.Check(q, cmp.Equal(proc.Bits(q, mapped.PID, line), proc.Bits(q, plain.PID, line)),
			"%s, with and without the namespace", line)
		q.Fact(line, proc.Bits(q, mapped.PID, line))
	}
	tryCommandsOfRoot(q, mappedShell, plainShell)
	assert.Check(q, cmp.Equal(file.Read(q, q.Dir+"/hosts/file"), "before\nafter"),
		"the host's file: only the host's root may have appended to it")

	q.Run("join", func(q *lab.Q) {
		q.Step("another container joins the user namespace by its path: it has the mappings of the namespace, and needs none of its own")
		joinUserNamespace(q, b, mapped, uidMappings)
	})

	q.Control("without the user namespace, root is the host's, and did all of that")
	assert.Check(q, cmp.DeepEqual(proc.IDMap(q, plain.PID, "uid_map")[0], proc.IDMap(q, self.PID, "uid_map")[0]),
		"uid_map is the host's")
	assert.Check(q, cmp.Equal(proc.IDs(q, plain.PID, "Uid")[1], "0"))
	assert.Check(q, cmp.Equal(plainShell.Run("touch /mapped/roots && stat -c %u:%g /mapped/roots").Out, "0:0"))
	assert.Check(q, cmp.Equal(file.Owner(q, q.Dir+"/mapped/roots"), "0:0"))
	q.Fact("new file without the user namespace, outside", file.Owner(q, q.Dir+"/mapped/roots"))
	assert.Check(q, cmp.Equal(plainShell.Run("stat -c %u:%g /hosts/file").Out, "0:0"))

	q.Answer("A user namespace changes what an id means. Root in the container is user %d on the host, and its capabilities count only for "+
		"what the container's namespaces own, and for files whose owner and group are mapped.", uid)
}

// makeOwnedDir makes a directory of the question with a file in it, both with the owner, and the mount point for it in the rootfs.
func makeOwnedDir(q *lab.Q, b *bundle.Bundle, dir string, uid, gid int) {
	q.Helper()
	path := q.Mkdir(dir)
	assert.NilError(q, os.WriteFile(path+"/file", []byte("before\n"), 0o644))
	for _, p := range []string{path, path + "/file"} {
		assert.NilError(q, os.Chown(p, uid, gid))
	}
	// The mount point: a mapped root may not make it in a rootfs that the host's root owns.
	assert.NilError(q, os.Mkdir(b.Rootfs(dir), 0o755))
	q.LogCommand("mkdir bundle/rootfs/%[1]s && echo before > %[1]s/file && chown -R %[2]d:%[3]d %[1]s", dir, uid, gid)
}

// withDirsOfHost mounts the directories mapped and hosts below the directory of the question, and gives root the capabilities that
// commandsOfRoot need.
func withDirsOfHost(questionDir string) func(*specs.Spec) {
	capabilities := []string{"CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_MKNOD", "CAP_SETUID",
		"CAP_SETGID", "CAP_KILL"}
	isCgroup := func(m specs.Mount) bool { return m.Type == "cgroup" }
	return func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: capabilities, Permitted: capabilities,
			Effective: capabilities}
		// Before the mounts of runc spec that have no source on the host. In a user namespace runc 1.1.3 took the source of a bind mount
		// for the cgroup mount after it.
		for _, dir := range []string{"mapped", "hosts"} {
			bind := specs.Mount{Destination: "/" + dir, Type: "bind", Source: questionDir + "/" + dir, Options: []string{"rbind", "rw"}}
			s.Mounts = slices.Insert(s.Mounts, slices.IndexFunc(s.Mounts, isCgroup), bind)
		}
	}
}

// assertSameMountTypes asserts that the mounts of a container in a user namespace have the types that they have without it.
func assertSameMountTypes(q *lab.Q, mapped, plain proc.Process) {
	q.Helper()
	paths := []string{"/proc", "/dev", "/sys", "/sys/fs/cgroup", "/mapped", "/hosts"}
	for _, path := range check.MountPoints(plain) {
		if strings.HasPrefix(path, "/sys/fs/cgroup/") { // v1: a hierarchy
			paths = append(paths, path)
		}
	}
	types := map[string][]string{}
	for _, p := range []proc.Process{mapped, plain} {
		mounts := check.Mounts(q, p)
		for _, path := range paths {
			types[path] = append(types[path], check.TopMount(q, mounts, path).FSType)
		}
	}
	for path, both := range types {
		// Where a user namespace may not mount a new cgroup2, runc binds the host's, with the same type.
		assert.Check(q, cmp.Equal(both[0], both[1]), "type of the mount at %s in a user namespace, and without", path)
	}
	q.Fact("types of mounts, in a user namespace and without", types)
}

// idMapColumn is a number in a line of uid_map or gid_map, and the field of config.json from which it comes.
type idMapColumn struct {
	covers lab.Fields
	want   uint32
}

// uidMapColumns returns what a line of uid_map has for the mapping.
func uidMapColumns(m specs.LinuxIDMapping) []idMapColumn {
	return []idMapColumn{
		{lab.Fields{"linux.uidMappings[].containerID"}, m.ContainerID},
		{lab.Fields{"linux.uidMappings[].hostID"}, m.HostID},
		{lab.Fields{"linux.uidMappings[].size"}, m.Size},
	}
}

// gidMapColumns returns what a line of gid_map has for the mapping.
func gidMapColumns(m specs.LinuxIDMapping) []idMapColumn {
	return []idMapColumn{
		{lab.Fields{"linux.gidMappings[].containerID"}, m.ContainerID},
		{lab.Fields{"linux.gidMappings[].hostID"}, m.HostID},
		{lab.Fields{"linux.gidMappings[].size"}, m.Size},
	}
}

// assertIDMapLine asserts that a line of /proc/PID/uid_map or gid_map has the numbers of the mapping. Where the file has several lines,
// line says which one it is: ", line 1".
func assertIDMapLine(q *lab.Q, mapFile, line string, got []string, columns []idMapColumn) {
	q.Helper()
	for i, column := range columns {
		field := column.covers[0]
		assert.Check(q, cmp.Equal(got[i], fmt.Sprint(column.want)), "%s: %s%s, column %d", field, mapFile, line, i+1)
		q.Covers(column.covers...)
		q.Fact(field+line, mapFile+": "+got[i])
	}
}

// commandOfRoot is a command that succeeds for the host's root.
type commandOfRoot struct {
	command, needs string // needs says what the command takes
	refused        string // the error in the user namespace, a regular expression; "" where the command succeeds
}

var commandsOfRoot = []commandOfRoot{
	{"hostname mine", "CAP_SYS_ADMIN over the uts namespace, which is the container's", ""},
	{"mount -t tmpfs tmpfs /tmp", "CAP_SYS_ADMIN over the mount namespace, and a file system that a user namespace may mount " +
		"(FS_USERNS_MOUNT)", ""},
	{"chown 8 /mapped/file", "CAP_CHOWN, and both ids mapped", ""},
	{"chown 2000 /mapped/file", "an id that is mapped", "Invalid argument"},
	{"echo after >> /hosts/file", "CAP_DAC_OVERRIDE over a file whose owner is mapped", "Permission denied"},
	{"chmod 600 /hosts/file", "CAP_FOWNER over a file whose owner is mapped", "Operation not permitted"},
	{"mknod /tmp/null c 1 3", "CAP_MKNOD over the host", "Operation not permitted"},
	{"mount -t devtmpfs none /tmp",
		"CAP_SYS_ADMIN over the host: a user namespace may not mount devtmpfs, which lacks FS_USERNS_MOUNT",
		"(?i)permission denied|not permitted"},
}

// tryCommandsOfRoot runs commandsOfRoot in the user namespace, where the kernel refuses some, and in that of the host, where they succeed.
func tryCommandsOfRoot(q *lab.Q, mappedShell, plainShell *runc.Shell) {
	q.Helper()
	for _, row := range commandsOfRoot {
		r := mappedShell.Run(row.command)
		assert.Check(q, cmp.Equal(r.Code == 0, row.refused == ""), "in the user namespace: %q, which takes %s: %s", row.command,
			row.needs, r.Out)
		assert.Check(q, cmp.Regexp(row.refused, r.Out), "in the user namespace: error of %q, which takes %s", row.command, row.needs)
		result := fmt.Sprintf("exit code %d", r.Code)
		if r.Code != 0 {
			result = check.LastLine(r.Out)
		}
		q.Fact(row.command, result+", it takes "+row.needs)
		r = plainShell.Run(row.command)
		assert.Check(q, cmp.Equal(r.Code, 0), "in the host's user namespace: %q: %s", row.command, r.Out)
	}
}

// joinUserNamespace runs a container that joins the user namespace of the process by its path.
func joinUserNamespace(q *lab.Q, b *bundle.Bundle, mapped proc.Process, uidMappings []specs.LinuxIDMapping) {
	q.Helper()
	// Through a link, so that config.json reads the same in each run.
	assert.NilError(q, os.Symlink(fmt.Sprintf("/proc/%d/ns/user", mapped.PID), q.Dir+"/userns"))
	q.Cleanup(func() { _ = os.Remove(q.Dir + "/userns") })
	q.LogCommand(`ln -s /proc/$(grep -o '"init_process_pid":[0-9]*' root-mapped-root/cdb-runc-mapped-root/state.json |` +
		` cut -d: -f2)/ns/user userns`)
	joins := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: q.Dir + "/userns"})
	}
	_, joinedShell, joined := runc.StartWithShell(q, b, "joined", joins)
	assert.Check(q, cmp.Equal(joined.NS["user"], mapped.NS["user"]), "linux.namespaces user with a path: it is another user namespace")
	assert.Check(q, cmp.DeepEqual(proc.IDMap(q, joined.PID, "uid_map"), proc.IDMap(q, mapped.PID, "uid_map")),
		"uid_map of the process that joined")
	joinedUID, outsideUID := joinedShell.Run("id -u").Out, proc.IDs(q, joined.PID, "Uid")[1]
	assert.Check(q, cmp.Equal(joinedUID, "0"), "uid of the process that joined, seen inside")
	assert.Check(q, cmp.Equal(outsideUID, fmt.Sprint(uidMappings[0].HostID)), "uid of the process that joined, seen from the host")
	q.Covers("linux.namespaces[].path")
	q.Fact("uid of the process that joined, inside and outside", []string{joinedUID, outsideUID})
	refused := runc.Variant(q, b, "other-mappings", joins, func(s *specs.Spec) {
		s.Linux.UIDMappings, s.Linux.GIDMappings = uidMappings[1:], uidMappings[1:]
	}).MustRefuse("mapping")
	q.Fact("create with a path and with other mappings: error", runc.MaskPIDs(runc.LastLogMessage(refused)))
}
