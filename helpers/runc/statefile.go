//go:build linux

package runc

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/proc"
)

// StateRecord is what the lab reads of state.json, in which libcontainer records a container.
type StateRecord struct {
	ID         string
	PID        proc.PID   `json:"init_process_pid"`
	Start      proc.Ticks `json:"init_process_start"`
	Created    time.Time
	Namespaces map[string]string `json:"namespace_paths"` // by type, such as NEWNET
	Cgroups    map[string]string `json:"cgroup_paths"`    // by controller; "" on v2
	Config     struct {
		Rootfs string
		Labels []string
	}
}

// StateFile returns the path of state.json.
func (c *Container) StateFile() string { return filepath.Join(c.StateDir(), "state.json") }

// StateRecord reads state.json.
func (c *Container) StateRecord() StateRecord {
	c.q.Helper()
	var record StateRecord
	check.DecodeJSON(c.q, file.Read(c.q, c.StateFile()), &record)
	return record
}

// Listed is a container as `runc list` prints it.
type Listed struct {
	ID      string
	PID     proc.PID
	Status  specs.ContainerState
	Created time.Time
	Owner   string
}

// List returns the containers below the container's root, as `runc list` prints them.
func (c *Container) List() []Listed {
	c.q.Helper()
	var listed []Listed
	check.DecodeJSON(c.q, c.q.Must("runc", "--root", c.Root, "list", "--format", "json").Stdout, &listed)
	return listed
}

// Processes returns the container's processes, sorted, as `runc ps` prints them.
func (c *Container) Processes() []proc.PID {
	c.q.Helper()
	var pids []proc.PID
	check.DecodeJSON(c.q, c.Must("ps", "--format", "json").Stdout, &pids)
	slices.Sort(pids)
	return pids
}
