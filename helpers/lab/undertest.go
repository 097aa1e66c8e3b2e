//go:build linux

package lab

import (
	"os"
	"os/exec"
	"strings"

	"cdblab/helpers/rootfs"
	"cdblab/helpers/tools"
)

// UnderTest returns a program of this run by the name that the chapter types: runc, containerd, ctr,
// containerd-shim-runc-v2 or busybox.
func (s *Session) UnderTest(name string) tools.Program { return s.tools[name] }

// Pinned reports whether all of runc, containerd, ctr and the shim are those that go.mod pins.
func (s *Session) Pinned() bool {
	for name, t := range s.tools {
		if name != "busybox" && !t.Pinned {
			return false
		}
	}
	return true
}

// RootFS returns the one root filesystem of this run.
func (s *Session) RootFS() *rootfs.FS { return s.rootfs }

// image is the reference of the image that the questions about containerd pull, as the chapter has it.
const image = "docker.io/library/busybox:latest"

// imageEnv names another image.
const imageEnv = "CDB_IMAGE"

// Image returns the reference of the image that questions pull. It is the lab's own, which the lab's registry serves on
// loopback, or the image that CDB_IMAGE names, which is pulled from its real registry.
func (s *Session) Image() (ref string, ours bool) {
	if r := os.Getenv(imageEnv); r != "" {
		return r, false
	}
	return image, true
}

// lookPath finds a program. The names of the chapter (runc, ctr) mean what is under test, not what the host's PATH has.
func (s *Session) lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	if t, ok := s.tools[name]; ok {
		return t.Path, nil
	}
	return exec.LookPath(name)
}

// UnderTest is [Session.UnderTest].
func (q *Q) UnderTest(name string) tools.Program { return q.session.UnderTest(name) }

// Pinned is [Session.Pinned].
func (q *Q) Pinned() bool { return q.session.Pinned() }

// RootFS is [Session.RootFS].
func (q *Q) RootFS() *rootfs.FS { return q.session.RootFS() }

// Image is [Session.Image].
func (q *Q) Image() (ref string, ours bool) { return q.session.Image() }
