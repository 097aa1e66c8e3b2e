//go:build linux && cgo

package libct

import (
	"os"
	"runtime"

	_ "github.com/opencontainers/cgroups/devices" // without it libcontainer cannot set device rules, and makes no container
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // its C code runs before Go does
)

// Before main, and so before anything that a test binary does of its own, as runc's own init.go.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init() // does not return: it becomes the container's program
	}
	// libcontainer enters namespaces with a thread, and lets Go end the thread with its goroutine. The first thread cannot
	// be ended, and /proc/self is its: keep it for main, so that no other goroutine runs on it.
	runtime.LockOSThread()
}
