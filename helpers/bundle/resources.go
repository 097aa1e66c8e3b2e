//go:build linux

package bundle

import "github.com/opencontainers/runtime-spec/specs-go"

// Memory returns the section linux.resources.memory. It makes the section if there is none.
func Memory(r *specs.LinuxResources) *specs.LinuxMemory {
	if r.Memory == nil {
		r.Memory = &specs.LinuxMemory{}
	}
	return r.Memory
}

// CPU returns the section linux.resources.cpu. It makes the section if there is none.
func CPU(r *specs.LinuxResources) *specs.LinuxCPU {
	if r.CPU == nil {
		r.CPU = &specs.LinuxCPU{}
	}
	return r.CPU
}

// Network returns the section linux.resources.network. It makes the section if there is none.
func Network(r *specs.LinuxResources) *specs.LinuxNetwork {
	if r.Network == nil {
		r.Network = &specs.LinuxNetwork{}
	}
	return r.Network
}

// BlockIO returns the section linux.resources.blockIO. It makes the section if there is none.
func BlockIO(r *specs.LinuxResources) *specs.LinuxBlockIO {
	if r.BlockIO == nil {
		r.BlockIO = &specs.LinuxBlockIO{}
	}
	return r.BlockIO
}
