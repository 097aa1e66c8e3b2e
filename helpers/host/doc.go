//go:build linux

// Package host is the machine that the lab runs on, as a value: which mounts, cgroups, processes, namespaces, sockets
// and run directories there are. A [Picture] before and one after an experiment tell what the experiment left behind;
// [Sweep] removes what a killed run left.
//
// Everything that the lab makes carries one of two names: it lies under [Dir], or in a cgroup under [Cgroup]. What
// carries neither is the host's own and is never touched.
package host

// Dir holds one directory for each run of the lab, and that one everything which the run makes.
const Dir = "/run/cdb-lab"

// Cgroup is the lab's cgroup, in each hierarchy, relative to the hierarchy's root. Below it lies one cgroup a run.
const Cgroup = "/cdb-lab"

// MarkEnv is the environment variable by which a process that the lab started is known again, wherever its parent
// went. Its value is the directory of the run, or of the question.
const OwnerEnv = "CDB_RUN"
