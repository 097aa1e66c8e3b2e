//go:build linux && cgo

package libct

import (
	"os"

	_ "github.com/opencontainers/cgroups/devices" // without it libcontainer cannot set device rules, and makes no container
	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // its C code runs before Go does
)

// Before main, and so before anything that a test binary does of its own, as runc's own init.go.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init() // does not return: it becomes the container's program
	}
}
