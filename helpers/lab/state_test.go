//go:build linux

package lab

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/host"
)

func TestProcessCommands_ShowTheLastProcessInAContainer(t *testing.T) {
	container := host.Process{PID: 20, Cgroup: "4:pids:/cdb-lab/1/q1/cdb-runc"}
	shim := host.Process{PID: 30, Cgroup: "4:pids:/user.slice"}
	assert.Equal(t, len(processCommands(nil)), 0)
	commands := strings.Join(processCommands([]host.Process{container, shim}), "\n")
	assert.Assert(t, strings.Contains(commands, "ls -l /proc/20/ns /proc/20/fd"), commands)
	assert.Assert(t, strings.Contains(commands, "nsenter -t 20 "), commands)
	// A process that is in no container has nothing to enter.
	commands = strings.Join(processCommands([]host.Process{shim}), "\n")
	assert.Assert(t, strings.Contains(commands, "/proc/30/status") && !strings.Contains(commands, "nsenter"), commands)
}

func TestCgroups_AreShownOnceAndByTheirInnermostDirectory(t *testing.T) {
	v1 := []host.Change{
		{Kind: "cgroup", Name: "memory:/cdb-lab/1", Description: "/c/memory/cdb-lab/1"},
		{Kind: "cgroup", Name: "pids:/cdb-lab/1", Description: "/c/pids/cdb-lab/1"},
		{Kind: "cgroup", Name: "pids:/cdb-lab/1/q1", Description: "/c/pids/cdb-lab/1/q1"},
		{Kind: "cgroup", Name: "unified:/cdb-lab/1", Description: "/c/unified/cdb-lab/1"},
		{Kind: "mount", Name: "/m"},
	}
	assert.DeepEqual(t, cgroupsOf(v1), []string{"/cdb-lab/1   (in 3 hierarchies)", "/cdb-lab/1/q1"})
	assert.DeepEqual(t, cgroupCommands(v1), []string{"ls /c/pids/cdb-lab/1/q1; cat /c/pids/cdb-lab/1/q1/cgroup.procs"})
	v2 := []host.Change{
		{Kind: "cgroup", Name: "unified:/cdb-lab", Description: "/c/cdb-lab"},
		{Kind: "cgroup", Name: "unified:/cdb-lab/1", Description: "/c/cdb-lab/1"},
	}
	assert.DeepEqual(t, cgroupCommands(v2), []string{"ls /c/cdb-lab/1; cat /c/cdb-lab/1/cgroup.procs"})
	assert.Equal(t, len(cgroupCommands(nil)), 0)
}

// A process of a container must not control the reader's terminal by its name.
func TestPrintable_HasNoControlCharacters(t *testing.T) {
	assert.Equal(t, printable("a\x1b[2Jb"), "a?[2Jb")
	assert.Equal(t, printable(strings.Repeat("ä", 91)), strings.Repeat("ä", 90)+"…")
}
