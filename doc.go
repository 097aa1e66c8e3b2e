// Package cdblab is an executable lab for a book's chapter "runc and containerd experiments". Each question of the
// chapter is a test: it builds real containers with runc or containerd, asserts what the kernel shows (namespace inodes, cgroup
// paths, the presence of a shim, the files of a bundle, the order of events), and removes everything again.
//
// # The chapter
//
//   - Bundle (bundle_test.go): what an OCI bundle is: built by hand, and made by containerd.
//     Topics: spec, rootfs, namespaces, mounts, process, seccomp, apparmor, limits, userns, refused,
//     edit_after_create, containerd, libcontainer.
//   - Lifecycle (lifecycle_test.go): what runc does with a bundle, from create to delete.
//     Topics: states, isolation, kill, delete, run, exec, pause, hooks, failed_create, refused, libcontainer, update,
//     state_json, features, terminal, checkpoint, rootless, systemd.
//   - Task (task_test.go): what containerd adds, and which process holds what, also when something dies.
//     Topics: container_created, parents, socket, runc, containerd_dies, shim_dies, process_dies, containerd_down,
//     upgrade, node_config, stopped, files, pull, platforms, snapshotter, garbage, namespaces, shared_shim,
//     slow_runtime, cgroup, exec, terminal, delete_order, client, apparmor, checkpoint, cost, systemd.
//   - Events (events_test.go): what containerd reports by itself, and what an operator has to ask for.
//     Topics: without_task, listeners, replay, twice, slow_listener, exec, execs, oom, failure, logs, strace,
//     metrics, output, last_bytes, input.
//
// A section's first question, the chapter's own, is in the file of its name (bundle_test.go). Its further questions are in a
// file for each topic (bundle_mounts_test.go). `make syllabus` lists the questions in the chapter's order. The doc comment of
// each is its answer, with a hint where to look and a link to the specification.
//
// # How to read a question
//
// A question acts, observes and concludes, in steps. Most facts are read from the kernel or the file system. What the program
// under test reports is compared with them. Some facts are reports: the events of a daemon, the message of an error. Most facts
// have a control: the same act without the cause, and the effect is gone.
//
// `go test -v` reads as lab notes, whose commands can be pasted. In `go test -json` questions, steps, commands, facts,
// controls and answers are attr events. A fact has the number of the step in which it was observed. Values on which no two
// runs agree (pids, inodes, times, paths of the run) are replaced by names there, so that two runs can be compared.
//
// # The packages
//
// These are what a question is made of. Each package imports only packages of the lines below its own, or of its own line.
//
//	*_test.go                                     the questions, by section and topic
//	helpers/failure                               kills containerd, a shim or a program, and observes what remains
//	helpers/runc, ctrd                            type the commands of runc, and of ctr for a containerd of the lab's own
//	helpers/systemd, apparmor                     transient units of systemd and AppArmor profiles for a question
//	helpers/bundle, image, strace                 an OCI bundle; the image and its registry; traces of system calls
//	helpers/lab, check                            the session, the question, its notes and cleanup; shared assertions
//	helpers/host, tools, seccomp                  what on the host is the lab's, and its removal; programs under test; filters
//	helpers/signals, prompt                       which signals this program inherited; stops it until the reader goes on
//	helpers/syllabus, howto                       reads the list of questions out of the source; the commands in messages
//	helpers/cgroup, rootfs                        hierarchies and groups; the busybox root file system
//	helpers/proc, file, pipe, retry, schema       what the kernel shows of processes, files and pipes; small helpers
//	helpers/slowness                              how slow this machine is, and so how long its deadlines are
//	helpers/containerinit                         lets libcontainer re-execute the test binary as `init`
//
// These run the questions, and read and judge what they observed. They import those above, and each other.
//
//	helpers/results                               reads the stream of a run; stores and loads what it observed
//	helpers/display, notebook, compare            show a run while it goes on; its page; what differs between runs
//	helpers/fleet                                 groups the nodes of a fleet by what the lab has observed on them
//	helpers/dist                                  the tarball: writes it, and finds what it has on another machine
//	helpers/node                                  makes the disk image of a node from Debian's packages: make disk
//	helpers/release                               builds any release of runc and containerd by its number
//	helpers/released                              the table of released bugs, and what the lab does with each
//	helpers/mutants                               faults in the source of a program under test, and which questions notice them
//	helpers/sabotage                              the table of lies of a program under test, and which question catches each
//	helpers/trial                                 asks the questions of a broken program, and judges what they noticed
//	helpers/confine                               runs a command as root in namespaces and cgroups of its own
//	helpers/doctor                                what a run needs
//	cmd/lab, helpers/vm                           the program lab with its commands; the throw-away VM
//	cmd/lab-init, helpers/vm/protocol             process 1 in the VM, and what it and the host say to each other
//	selftest                                      tests of the lab itself: saboteurs, killed runs, neighbours, bad input
//
// Where to add what:
//
//   - A question: in the file of its topic. A new topic is a new file, and a word in helpers/syllabus.
//   - A field of config.json: to the question that follows it, with q.Covers at the assertion.
//   - Another runtime or containerd to test: nothing, CDB_RUNC and the like name it. If it keeps state in a default place of its
//     own, as crun does in /run/crun, that goes to DefaultPlaces in helpers/host.
//   - An earlier release that a question compares with: to the table Earlier in helpers/tools/earlier.go.
//   - A program that questions use, or a further one under test: to the table in helpers/tools. The lab, the VM and `make deps`
//     read it.
//   - A picture in the notebook: to the table in helpers/notebook/picture.go. The question records what it shows as a map or a slice.
//   - A kernel: nothing, if the distribution packages it (KERNEL=6.12). A module that the guest needs: in helpers/vm/modules.go.
//   - A promise that a runtime might break: to testdata/sabotage.toml.
//
// CONTRIBUTING.md has the habits.
//
// # Where the rootfs comes from
//
// There is one: static busybox, a link for each applet, and the directories that mounts need (helpers/rootfs). It is the
// rootfs of the hand-built bundle and the one layer of the image, which a registry on loopback serves as
// docker.io/library/busybox:latest. So the two bundles can be compared file by file, and no experiment needs a network.
// Busybox is one file that every distribution packages, and it has every program that the chapter types. It is static,
// because a rootfs of one file has no dynamic linker and no libc, and because finding these would be a lesson about linking
// and not about containers.
//
// # Where the facts are made
//
// `make lab` boots a throw-away VM with the distribution's stock cloud kernel and runs the test binary in it, through
// `go test -exec`: no root, no KVM, no network. In a disposable VM of one's own, `sudo go test -tags vmlab .` runs the same
// binary natively. The tag keeps what needs root out of ordinary runs. Without it the package only lists the questions.
//
// # What is under test
//
// go.mod pins runc, containerd, its shim and ctr as tools, at the versions whose libraries the tests import, and `make tools`
// builds them. CDB_RUNC, CDB_CONTAINERD, CDB_CTR, CDB_SHIM and CDB_BUSYBOX name other programs, CDB_IMAGE another image.
// Each run begins with what it tests: versions, digests, kernel, cgroup mode.
//
// # How the lab's containerd and the host's do not meet
//
// A containerd with a root, a state directory and an address of its own still shares four places with the host's containerd:
//
//   - The shims' sockets are in /run/containerd/s, unless socket_dir names another directory.
//   - The runtime's state is in /run/containerd/runc, unless the container's runtime options have a Root (ctr --runc-root).
//   - The FIFOs of tasks are in /run/containerd/fifo, unless the client that starts the task names a directory (ctr --fifo-dir).
//   - The daemon listens, and shims report, on the default sockets, if a configuration of version 4 (since containerd 2.3) names the
//     address only in [grpc]: that table is ignored then. The flag --address names both sockets with each version.
//
// The lab sets all of these (helpers/ctrd). A question that kills, restarts or configures the daemon has one of its own. The
// other questions share one daemon, in which each has a containerd namespace. The namespace is emptied and removed when the
// question ends.
//
// An older containerd cannot move the first two. The lab asks the programs (for the default configuration, for the options)
// and does not go by a version number. What such a containerd puts into the default place is removed at the end.
//
// # What stays on the host
//
// Nothing. Everything that a run makes lies below /run/cdb-lab/<run> and, in each cgroup hierarchy, below /cdb-lab. Each
// question compares the host before and after, and a leftover fails it by name. A run that was killed is swept by its janitor, a
// process that it leaves behind for this purpose, by the next run, or by `make sweep`.
//
// # What runtime.md and runtime-linux.md demand
//
//   - Scope of a Container: The entity using a runtime to create a container MUST be able to use the operations defined in this specification against that same container.
//     TestLifecycle_WhichTransitionsAreRefused
//   - State: This MUST be unique across all containers on this host.
//     Known deviation: an id is unique below one --root; below another one there is a second container of the id.
//     TestLifecycle_WhichTransitionsAreRefused
//   - State: Additional values MAY be defined by the runtime, however, they MUST be used to represent new runtime states not defined above.
//     TestLifecycle_WhichStatesDoesAContainerPassThrough
//   - State: When serialized in JSON, the format MUST adhere to the JSON Schema schema/state-schema.json.
//     Known deviation: it does in creating, created, running and stopped; the schema has no status paused.
//     TestLifecycle_WhichStatesDoesAContainerPassThrough
//   - Lifecycle: The container's runtime environment MUST be created according to the configuration in config.json.
//     TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart
//   - Lifecycle: If the runtime is unable to create the environment specified in the config.json, it MUST generate an error.
//     TestLifecycle_WhatIsLeftWhenCreateFails
//   - Lifecycle: While the resources requested in the config.json MUST be created, the user-specified program (from process) MUST NOT be run at this time.
//     TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart
//   - Lifecycle: Any updates to config.json after this step MUST NOT affect the container.
//     TestBundle_DoesEditingConfigJSONAfterCreateChangeTheContainer
//   - Lifecycle: The prestart hooks MUST be invoked by the runtime.
//     TestLifecycle_WhenAndWhereDoHooksRun
//   - Lifecycle: If any prestart hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.
//     TestLifecycle_WhatHappensWhenAHookFails
//   - Lifecycle: The createRuntime hooks MUST be invoked by the runtime.
//     TestLifecycle_WhenAndWhereDoHooksRun
//   - Lifecycle: If any createRuntime hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.
//     TestLifecycle_WhatHappensWhenAHookFails
//   - Lifecycle: The createContainer hooks MUST be invoked by the runtime.
//     TestLifecycle_WhenAndWhereDoHooksRun
//   - Lifecycle: If any createContainer hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.
//     TestLifecycle_WhatHappensWhenAHookFails
//   - Lifecycle: The startContainer hooks MUST be invoked by the runtime.
//     TestLifecycle_WhenAndWhereDoHooksRun
//   - Lifecycle: If any startContainer hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.
//     Known deviation: start has returned 0 by then: the container is stopped, no command reports an error, and poststop hooks run only at delete.
//     TestLifecycle_WhatHappensWhenAHookFails
//   - Lifecycle: The runtime MUST run the user-specified program, as specified by process.
//     TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart
//   - Lifecycle: The poststart hooks MUST be invoked by the runtime.
//     Known deviation: they are, but during create, before the program runs.
//     TestLifecycle_WhenAndWhereDoHooksRun
//   - Lifecycle: If any poststart hook fails, the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12.
//     TestLifecycle_WhatHappensWhenAHookFails
//   - Lifecycle: The container MUST be destroyed by undoing the steps performed during create phase (step 2).
//     Known deviation: the cgroup that create has made above the container's stays.
//     TestLifecycle_WhatDoesDeleteRemove
//   - Lifecycle: The poststop hooks MUST be invoked by the runtime.
//     TestLifecycle_WhenAndWhereDoHooksRun
//   - Lifecycle: If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue as if the hook had succeeded.
//     Known deviation: the next poststop hook does not run, and delete may fail; the container is gone all the same.
//     TestLifecycle_WhatHappensWhenAHookFails
//   - Errors: Unless otherwise stated, generating an error MUST leave the state of the environment as if the operation were never attempted - modulo any possible trivial ancillary changes such as logging.
//     Known deviation: the cgroup that create has made above the container's stays.
//     TestLifecycle_WhatIsLeftWhenCreateFails
//   - Warnings: Unless otherwise stated, logging a warning does not change the flow of the operation; it MUST continue as if the warning had not been logged.
//     Known deviation: the next poststop hook does not run, although the failure of the first one should only be logged as a warning.
//     TestLifecycle_WhatHappensWhenAHookFails
//   - Operations: Unless otherwise stated, runtimes MUST support the following operations.
//     TestLifecycle_WhichTransitionsAreRefused
//   - Query State: This operation MUST generate an error if it is not provided the ID of a container.
//     TestLifecycle_WhichStatesDoesAContainerPassThrough
//   - Query State: Attempting to query a container that does not exist MUST generate an error.
//     TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart
//     TestLifecycle_WhichTransitionsAreRefused
//   - Query State: This operation MUST return the state of a container as specified in the State section.
//     TestLifecycle_WhichStatesDoesAContainerPassThrough
//   - Create: This operation MUST generate an error if it is not provided a path to the bundle and the container ID to associate with the container.
//     Known deviation: create without an id fails; without a path to the bundle it takes the current directory.
//     TestLifecycle_WhichTransitionsAreRefused
//   - Create: If the ID provided is not unique across all containers within the scope of the runtime, or is not valid in any other way, the implementation MUST generate an error and a new container MUST NOT be created.
//     TestBundle_WhichIDsMayAContainerHave
//     TestLifecycle_WhichTransitionsAreRefused
//   - Create: This operation MUST create a new container.
//     TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart
//   - Create: All of the properties configured in config.json except for process MUST be applied.
//     Known deviation: create accepts limits that it cannot apply, such as memory.swappiness on cgroup v2, and they have no effect.
//     TestBundle_WhereDoesEachLimitGo
//     TestBundle_HowDoesAnOciFieldBecomeLibcontainersConfiguration
//   - Create: process.args MUST NOT be applied until triggered by the start operation.
//     TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart
//   - Create: If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new container MUST NOT be created.
//     Known deviation: values that cannot be applied are left out, such as mappings without a user namespace.
//     TestBundle_WhatDoesRuncRefuse
//     TestBundle_WhatDoesRuncAcceptThoughTheSpecificationForbidsIt
//     TestLifecycle_WhatIsLeftWhenCreateFails
//   - Start: This operation MUST generate an error if it is not provided the container ID.
//     TestLifecycle_WhichTransitionsAreRefused
//   - Start: Attempting to start a container that is not created MUST have no effect on the container and MUST generate an error.
//     TestLifecycle_WhichTransitionsAreRefused
//   - Start: This operation MUST run the user-specified program as specified by process.
//     TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart
//   - Start: This operation MUST generate an error if process was not set.
//     TestBundle_WhatDoesRuncNeedBeforeItCanCreateAContainer
//   - Kill: This operation MUST generate an error if it is not provided the container ID.
//     TestLifecycle_WhatDoesKillDo
//   - Kill: Attempting to send a signal to a container that is neither created nor running MUST have no effect on the container and MUST generate an error.
//     Known deviation: a signal to a stopped container is refused, but a paused container gets it and handles it after resume.
//     TestLifecycle_WhatDoesKillDo
//   - Kill: This operation MUST send the specified signal to the container process.
//     TestLifecycle_WhatDoesKillDo
//   - Delete: This operation MUST generate an error if it is not provided the container ID.
//     TestLifecycle_WhatDoesDeleteRemove
//   - Delete: Attempting to delete a container that is not stopped MUST have no effect on the container and MUST generate an error.
//     Known deviation: a created container is killed and deleted; a running one is refused.
//     TestLifecycle_WhatDoesDeleteRemove
//   - Delete: Deleting a container MUST delete the resources that were created during the create step.
//     Known deviation: the cgroup that create has made above the container's stays.
//     TestLifecycle_WhatDoesDeleteRemove
//   - Delete: Note that resources associated with the container, but not created by this container, MUST NOT be deleted.
//     Known deviation: bundle and other cgroups are kept, but an empty cgroup that was at the container's path before goes with it.
//     TestLifecycle_WhatDoesDeleteRemove
//   - File descriptors: By default, only the stdin, stdout and stderr file descriptors are kept open for the application by the runtime.
//     TestBundle_WhichMountsDoesTheContainerSee
//   - Dev symbolic links: While creating the container (step 2 in the lifecycle), runtimes MUST create the following symlinks if the source file exists after processing mounts:
//     Known deviation: runc makes no links in a /dev that is a bind mount.
//     TestBundle_WhichMountsDoesTheContainerSee
//
// # What of config.json no question follows
//
// Every other field that the specification has for Linux is followed from config.json to the kernel by a question.
//
//   - linux.intelRdt.*: needs a processor with resource control (Intel RDT, AMD QoS), which no emulated one has
//   - linux.mountLabel: needs a kernel with SELinux and a policy
//   - linux.personality.flags: the specification defines no flag yet, and runc ignores the field
//   - linux.resources.blockIO.leafWeight: belongs to the CFQ scheduler, which Linux 5.0 has removed
//   - linux.resources.blockIO.weightDevice[].*: needs a disk with the BFQ scheduler, whose weight for all disks is followed
//   - linux.resources.cpu.realtimePeriod: needs CONFIG_RT_GROUP_SCHED, v1, and time that the cgroups above have been given
//   - linux.resources.cpu.realtimeRuntime: as realtimePeriod
//   - linux.resources.memory.kernel: deprecated; the kernel has no such limit since 5.16, and runc ignores it
//   - linux.resources.memory.kernelTCP: of v1 alone, deprecated; runc ignores it
//   - linux.resources.memory.useHierarchy: of v1 alone, and always so since Linux 5.11; runc ignores it
//   - linux.resources.rdma: needs a network card with RDMA
//   - ociVersion: tells the runtime how to read config.json; the kernel never sees it
//   - process.selinuxLabel: needs a kernel with SELinux and a policy
package cdblab
