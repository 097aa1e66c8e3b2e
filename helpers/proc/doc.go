//go:build linux

// Package proc reads a process as the kernel shows it below /proc (proc(5)), as plain values that can be compared. It never
// calls runc or containerd.
//
// Read the files in this order: process.go, list.go, time.go, status.go, memory.go, syscall.go, socket.go, poll.go, orphan.go.
package proc
