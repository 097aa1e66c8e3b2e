//go:build linux

// Package host describes the machine that the lab runs on: which mounts, cgroups, processes, namespaces, sockets, files and
// devices there are. An [Inventory] before an experiment and one after it show what the experiment left behind. [Sweep]
// removes the leftovers of killed runs.
//
// Everything that the lab makes can be recognised as its [Owner]'s: it lies below [Dir], or in a cgroup below [Cgroup], or it has
// the owner's suffix (see [Owner.ID]). A process has the owner's mark in its environment (see [Owner.Mark]). Everything else
// belongs to the host and is never touched.
//
// Read the files in this order: owner.go, process.go, cgroup.go, directory.go, default_places.go, device.go, controllers.go,
// inventory.go, kill.go, sweep.go, lock.go, run.go, sweep_runs.go. The files vm.go and in_use.go stand alone.
package host

// Dir holds one directory for each run of the lab. A run makes all its files below its directory.
const Dir = "/run/cdb-lab"

// Cgroup is the lab's cgroup in each hierarchy, relative to the hierarchy's root. Each run has one cgroup below it.
const Cgroup = "/cdb-lab"

// OwnerEnv is the environment variable by which a process that the lab started is recognised, also when its parent has
// ended. Its value is [Owner.Mark].
const OwnerEnv = "CDB_RUN"
