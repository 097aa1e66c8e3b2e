//go:build linux

package runc

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/proc"
)

// AssertEnvironment asserts that the environment of the container's process is what config.json says: namespaces, cgroup, root
// file system, mounts, and the paths that are masked or read-only. It returns how many things of each kind it has compared.
func (c *Container) AssertEnvironment(p proc.Process) map[string]int {
	q, spec := c.q, c.Bundle.Spec
	q.Helper()
	var namespaces []string
	for _, ns := range bundle.NamespaceTypes(spec) {
		namespaces = append(namespaces, proc.NamespaceName(ns))
	}
	slices.Sort(namespaces)
	own := p.OwnNamespaces(proc.Self(q).Identity)
	assert.Check(q, cmp.DeepEqual(own, namespaces), "namespaces that the process does not share with the host")
	check.OnlyProcessInCgroup(q, p.Identity, spec.Linux.CgroupsPath)

	inRoot := func(path string) string { return fmt.Sprintf("/proc/%d/root%s", p.PID, path) }
	inside, err := os.Stat(inRoot("/"))
	assert.NilError(q, err)
	outside, err := os.Stat(c.Bundle.Rootfs())
	assert.NilError(q, err)
	assert.Check(q, os.SameFile(inside, outside), "the / of the process is another directory than root.path")
	mounts := check.Mounts(q, p)
	isReadonly := func(path string) bool {
		return slices.Contains(strings.Split(check.TopMount(q, mounts, path).Options, ","), "ro")
	}
	assert.Check(q, cmp.Equal(isReadonly("/"), spec.Root.Readonly), "root.readonly, and whether / is mounted read-only")

	for _, m := range spec.Mounts {
		want := m.Type
		switch {
		case m.Type == "bind":
			continue // it has the type of its source
		case m.Type == "cgroup" && cgroup.Version(q) == "v2":
			want = "cgroup2"
		case m.Type == "cgroup":
			want = "tmpfs" // with a directory for each hierarchy
		}
		assert.Check(q, cmp.Equal(check.TopMount(q, mounts, m.Destination).FSType, want), "type of the mount on %s", m.Destination)
	}
	// Of the paths that config.json names, the kernel may not have all. The runtime mounts something on each of the others.
	covered := func(field string, paths []string) (out []string) {
		for _, path := range paths {
			if !file.Exists(inRoot(path)) {
				continue
			}
			isMount := slices.Contains(check.MountPoints(p), path)
			assert.Check(q, isMount, "%s of config.json names %s, and nothing is mounted on it: the program sees the kernel's own", field, path)
			if isMount {
				out = append(out, path)
			}
		}
		return out
	}
	masked, readonly := covered("linux.maskedPaths", spec.Linux.MaskedPaths), covered("linux.readonlyPaths", spec.Linux.ReadonlyPaths)
	for _, path := range masked {
		hides := check.TopMount(q, mounts, path).FSType
		assert.Check(q, hides != "proc" && hides != "sysfs", "the masked path %s still shows the file of %s", path, hides)
	}
	for _, path := range readonly {
		assert.Check(q, isReadonly(path), "%s is not read-only: %s", path, check.TopMount(q, mounts, path).Options)
	}
	return map[string]int{
		"namespaces": len(namespaces), "mounts": len(spec.Mounts), "masked paths": len(masked), "read-only paths": len(readonly),
	}
}
