// Package cdblab is an executable lab for a book's chapter "runc and containerd experiments". Each question of the
// chapter is a test: it builds real state with runc or containerd, asserts what the kernel shows of it (namespace
// inodes, cgroup paths, the presence of a shim, the files of a bundle, the order of events), and tears it down.
//
// # The chapter
//
//   - Bundle (bundle_test.go): what an OCI bundle is, by hand and from containerd.
//   - Lifecycle (lifecycle_test.go): what runc does with it, from create to delete.
//   - Task (task_test.go): what containerd adds, and who holds what.
//   - Events (events_test.go): what one is told, and what one has to ask.
//
// `make syllabus` lists the questions. The doc comment of each is its answer, with a hint where to look and the
// specification that says so.
//
// # How to read a question
//
// A question acts, observes and concludes, in steps. A fact is read from the kernel or the file system; what the tool
// under test says of itself is only ever compared with that. Most facts have a control: the same act without the cause,
// and the effect is gone. `go test -v` reads as lab notes, whose commands can be pasted; in `go test -json` questions,
// steps, commands, facts, controls and answers are attr events, in which what no two runs agree on (pids, inodes, times,
// paths of the run) stands by name, so that two runs can be compared.
//
// # Where the rootfs comes from
//
// There is one: static busybox, a link for each applet, and the directories that mounts need (helpers/rootfs). It is the
// rootfs of the hand-built bundle and the one layer of the image, which a registry on loopback serves as
// docker.io/library/busybox:latest, so the two bundles can be compared file by file and no experiment needs a network.
// Busybox, because it is one file that every distribution packages and has every program that the chapter types; static,
// because in a rootfs of one file there is no dynamic linker and no libc to find, and because that would be a lesson
// about linking and not about containers.
//
// # Where the facts are made
//
// `make lab` boots a throw-away VM with the distribution's stock cloud kernel and runs the test binary in it, through
// `go test -exec`: no root, no KVM, no network. In a disposable VM of one's own, `sudo go test -tags vmlab .` runs the same
// binary natively. The tag keeps what needs root out of ordinary runs; without it the package only lists the questions.
//
// # What is under test
//
// go.mod pins runc, containerd, its shim and ctr as tools, at the versions whose libraries the tests import; `make tools`
// builds them. CDB_RUNC, CDB_CONTAINERD, CDB_CTR, CDB_SHIM and CDB_BUSYBOX name other ones, CDB_IMAGE another image.
// Each run begins with what it tests: versions, digests, kernel, cgroup mode.
//
// # What stays on the host
//
// Nothing. All that a run makes lies below /run/cdb-lab/<run> and, in each cgroup hierarchy, below /cdb-lab. Each question
// compares the host before and after; what is left fails it by name. A run that was killed is swept by the janitor that
// it left behind, by the next run, or by `make sweep`.
//
// # What runtime.md demands
//
// # What of config.json no question follows
//
// Every other field that the specification has for Linux is followed from config.json to the kernel by a question.
//
//   - linux.intelRdt.*: needs a processor with resource control (Intel RDT, AMD QoS), which no emulated one has
package cdblab
