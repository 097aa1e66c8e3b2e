//go:build linux && vmtest

// Package guesttest runs inside the VM: it is the machine's own acceptance test. See ../vm_test.go, which starts it.
package guesttest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

func TestHello(t *testing.T) {
	wd, _ := os.Getwd()
	t.Log(wd, os.Args)
	for _, c := range []string{"uname -a", "mount", "env", "ls -l /dev / /lab", "ps", "cat /proc/cgroups", "ip addr", "dmesg | tail -5; free -m; date; runc --version; strace -V"} {
		out, err := exec.Command("sh", "-c", c).CombinedOutput()
		fmt.Printf("$ %s\n%s %v\n", c, out, err)
	}
}
