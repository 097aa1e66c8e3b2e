//go:build linux && cgo

package containerinit

import (
	"os"
	"runtime"

	_ "github.com/opencontainers/cgroups/devices" // without it libcontainer cannot set device rules, and creates no container
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // its C code runs before Go starts
)

// init runs before main, and so before anything that a test binary does by itself. runc's own init.go does the same.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init() // does not return: it executes the container's program
	}
	// libcontainer enters namespaces in a thread, and lets Go end the thread with its goroutine. The first thread of a
	// process cannot be ended, and /proc/self describes the first thread. Keep it for main, so that no other goroutine runs
	// on it.
	runtime.LockOSThread()
}
