package compare

import (
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/host"
	"cdblab/helpers/results"
)

func TestBehind_NamesOnlyWhatTheQuestionDependsOn(t *testing.T) {
	stack := func(runc, containerd, system string) *results.Run {
		return &results.Run{Stack: &results.Stack{
			Programs: []results.Program{
				{Name: "runc", Version: "runc version " + runc, Digest: runc, Package: "runc " + runc + "-1"},
				{Name: "containerd", Version: "containerd " + containerd, Digest: containerd},
			},
			Node: []results.Property{{Name: "system", Value: system}, {Name: "/etc/containerd/config.toml version", Value: system}},
		}}
	}
	of := func(a, b *results.Run, test string) string {
		return (&Comparison{A: Side{"A", a}, B: Side{"B", b}}).Behind(Question{Test: test})
	}
	old := stack("1.1.5", "1.6.20", "Debian 12")
	assert.Equal(t, of(old, stack("1.3.3", "1.6.20", "Debian 12"), "TestLifecycle_X"),
		"What lies behind it is runc: 1.1.5 (package runc 1.1.5-1) → 1.3.3 (package runc 1.3.3-1)")
	assert.Equal(t, of(old, stack("1.1.5", "1.7.24", "Debian 13"), "TestLifecycle_X"),
		"What lies behind it is system: Debian 12 → Debian 13")
	assert.Equal(t, of(old, stack("1.1.5", "1.7.24", "Debian 13"), "TestTask_X"),
		"What can lie behind it: containerd, system")
	assert.Equal(t, of(old, stack("1.1.5", "1.7.24", "Debian 12"), "TestBundle_HowDoesContainerdsBundleDiffer"),
		"What lies behind it is containerd: 1.6.20 → 1.7.24")
	key := host.ContainerdConfig + " plugins.X.SystemdCgroup"
	systemd, cgroupfs := stack("1.1.5", "1.6.20", "Debian 12"), stack("1.1.5", "1.6.20", "Debian 12")
	systemd.Stack.Node = append(systemd.Stack.Node, results.Property{Name: key, Value: "true"})
	cgroupfs.Stack.Node = append(cgroupfs.Stack.Node, results.Property{Name: key, Value: "false"})
	assert.Equal(t, of(systemd, cgroupfs, "TestTask_WhatDoesConfigTOMLDecideForAPod"), "What lies behind it is "+key+": true → false")
	assert.Equal(t, of(old, old, "TestTask_X"),
		"Nothing that the lab records of the two machines is different. Run both again: a fact that changes by chance is a mistake of the lab.")

	other := stack("1.1.5", "1.6.20", "Debian 12")
	old.Stack.Chapter, other.Stack.Chapter = "sha256:1", "sha256:2"
	assert.Equal(t, of(old, other, "TestTask_X"), "What lies behind it is the lab: its version of the question in A → that in B")
	warnings := (&Comparison{A: Side{"A", old}, B: Side{"B", other}}).Warnings()
	assert.Equal(t, len(warnings), 1)
	assert.Check(t, cmp.Contains(warnings[0], "another version of the lab asked them"))
}
