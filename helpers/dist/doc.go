// Package dist makes the tarball with which the lab runs on a machine that has no Go, no compiler, no package manager and no
// network, and finds the files of a tarball that was unpacked.
//
// The tarball is reproducible: two builds of one commit have the same bytes. So an engineer can verify a tarball by building it.
package dist
