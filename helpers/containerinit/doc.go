//go:build linux

// Package containerinit lets the program that imports it create containers with libcontainer.
//
// libcontainer starts the first process of a container by executing the calling program again, as /proc/self/exe with the
// argument "init". runc handles this argument in its main function. A test binary has no such main function, so this
// package handles the argument before main. It needs cgo: the process enters its namespaces in C, before Go starts
// threads.
package containerinit
