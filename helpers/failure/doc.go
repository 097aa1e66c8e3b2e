//go:build linux

// Package failure kills processes and observes what remains.
//
// A [Victim] is a container with a task. Its [Death] states which process is killed, by which signal, and when:
// containerd itself, the shim, the init process, or an exec. After the deaths, [Tabulate] observes every victim, tries
// what a client can still do, and compares all of it with a table in testdata, which has one column for each death:
//
//	after the death of   shim KILL, running   shim TERM, running
//	init                 dead                 dead
//	shim                 dead                 dead
//	bundle               gone                 gone
//	shim's socket        there                gone
//	…
package failure
