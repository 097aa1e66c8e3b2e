//go:build linux

// Package libct makes the program that imports it one that libcontainer can use: libcontainer starts the first process of
// a container as /proc/self/exe with the argument "init", and that program has to know what is meant. It needs cgo: the
// namespaces are entered in C, before there are threads.
package libct
