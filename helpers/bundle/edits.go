//go:build linux

package bundle

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Resources is an edit of linux.resources; the rules for devices stay.
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

// ScratchAtTmp is an edit: an empty file system at /tmp that can be written to.
func ScratchAtTmp(s *specs.Spec) {
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs",
		Options: []string{"mode=1777"}})
}

// WritableRootfs is an edit: the program may write to its rootfs.
func WritableRootfs(s *specs.Spec) { s.Root.Readonly = false }
