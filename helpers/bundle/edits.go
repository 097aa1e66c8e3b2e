//go:build linux

package bundle

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Args returns an edit that sets the program and its arguments.
func Args(args ...string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = args }
}

// WithoutNamespace returns an edit that removes a namespace: the container stays in the host's namespace of that type.
func WithoutNamespace(ns specs.LinuxNamespaceType) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == ns })
	}
}

// Resources returns an edit that applies edits to linux.resources. It makes no empty resources in place of existing ones, so the
// device rules stay.
func Resources(edits ...func(*specs.LinuxResources)) func(*specs.Spec) {
	return func(s *specs.Spec) {
		if s.Linux.Resources == nil {
			s.Linux.Resources = &specs.LinuxResources{}
		}
		for _, edit := range edits {
			edit(s.Linux.Resources)
		}
	}
}

// ScratchAtTmp is an edit that mounts an empty, writable file system at /tmp.
func ScratchAtTmp(s *specs.Spec) {
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs",
		Options: []string{"mode=1777"}})
}

// WritableRootfs is an edit that lets the program write to its rootfs.
func WritableRootfs(s *specs.Spec) { s.Root.Readonly = false }

// NamespacePath returns an edit by which the container joins the namespace that a path names.
func NamespacePath(ns specs.LinuxNamespaceType, path string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		WithoutNamespace(ns)(s)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: ns, Path: path})
	}
}
