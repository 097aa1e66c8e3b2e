//go:build linux

package lab

import (
	"os"

	"cdblab/helpers/tools"
)

// Tool is a program under test, as it was found.
type Tool = tools.Program

// underTest has the tools of this run by name.
var underTest = map[string]Tool{}

// UnderTest returns a tool of this run by its name (runc, containerd, ctr, containerd-shim-runc-v2, busybox).
func UnderTest(name string) Tool { return underTest[name] }

// Pinned reports whether all of runc, containerd, ctr and the shim are those that go.mod pins.
func Pinned() bool {
	for name, t := range underTest {
		if name != "busybox" && !t.Pinned {
			return false
		}
	}
	return true
}

// Image is the reference of the image that the task questions pull.
const Image = "docker.io/library/busybox:latest"

// ImageRef returns [Image], or the image that CDB_IMAGE names, which is then pulled from its real registry.
func ImageRef() (ref string, ours bool) {
	if r := os.Getenv("CDB_IMAGE"); r != "" {
		return r, false
	}
	return Image, true
}
