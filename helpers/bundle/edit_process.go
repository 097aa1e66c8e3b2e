//go:build linux

package bundle

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Scheduler is an edit of process.scheduler.
func Scheduler(edit func(*specs.Scheduler)) func(*specs.Spec) {
	return func(s *specs.Spec) {
		if s.Process.Scheduler == nil {
			s.Process.Scheduler = &specs.Scheduler{}
		}
		edit(s.Process.Scheduler)
	}
}

// IOPriority is an edit of process.ioPriority.
func IOPriority(edit func(*specs.LinuxIOPriority)) func(*specs.Spec) {
	return func(s *specs.Spec) {
		if s.Process.IOPriority == nil {
			s.Process.IOPriority = &specs.LinuxIOPriority{}
		}
		edit(s.Process.IOPriority)
	}
}

// WithCapability is an edit that adds capabilities to the sets of which the program's effective set is made: bounding, permitted
// and effective.
func WithCapability(names ...string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		sets := s.Process.Capabilities
		for _, set := range []*[]string{&sets.Bounding, &sets.Permitted, &sets.Effective} {
			*set = append(*set, names...)
		}
	}
}
