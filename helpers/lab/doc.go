//go:build linux

// Package lab is the form of a question: what is asked, the steps, the commands, the facts that the kernel showed, the
// control, the answer; and what stands around a run of questions: who may run them and where, what is under test, and
// that nothing stays behind.
package lab
