// Package guesttest holds the tests that run inside the VM when the VM itself is tested (make test-vm).
package guesttest
