//go:build linux

// Package proc reads a process as the kernel shows it below /proc (proc(5)), as plain values that can be compared. It never
// calls runc or containerd.
package proc
