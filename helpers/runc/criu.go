//go:build linux

package runc

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
)

// SkipUnlessCRIU skips a question where there is no CRIU, or where it cannot work with this kernel.
func SkipUnlessCRIU(q *lab.Q) {
	q.Helper()
	criu := q.LookPathOrSkip("criu")
	if supported := q.Exec(criu, "check"); supported.Code != 0 {
		q.Skipf("this CRIU cannot work with this kernel: %s; try another kernel: make lab KERNEL=6.1", check.LastLine(supported.Stderr))
	}
}

// KindsOfCRIU returns which kinds of images of processes are among the names of files that CRIU has written, sorted.
func KindsOfCRIU(names []string) []string {
	kinds := []string{}
	for _, name := range names {
		for _, kind := range []string{"core-", "mm-", "pages-", "pstree"} {
			if strings.HasPrefix(name, kind) {
				kinds = append(kinds, kind)
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(kinds)))
}

// SupportedByCRIU returns an edit: it removes what CRIU restores only with further options, such as mounts of tmpfs or a
// network namespace with its interfaces. It mounts a directory of the question on /dev.
//
// It must not be the host's /dev. To restore a bind mount, runc mounts it with all that is below on the rootfs, in the host's mount
// namespace, and unmounts it again. Where the mounts are shared, as with systemd, that unmounts the host's /dev/pts and /dev/shm as
// well (seen with runc 1.5.2).
func SupportedByCRIU(q *lab.Q) func(*specs.Spec) {
	q.Helper()
	dev := q.Mkdir("dev")
	if err := os.WriteFile(filepath.Join(dev, "null"), nil, 0o666); err != nil { // runc 1.1 looks at the owner of /dev/null
		q.Fatal(err)
	}
	return func(s *specs.Spec) {
		s.Root.Readonly = false
		s.Mounts = []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "bind", Source: dev, Options: []string{"bind"}},
		}
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		for _, ns := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.CgroupNamespace} {
			bundle.WithoutNamespace(ns)(s)
		}
	}
}

// CRIUError returns the first error of CRIU's log, or otherwise if the log has none.
func CRIUError(log, otherwise string) string {
	text, _ := file.TryRead(log)
	for line := range strings.Lines(text) {
		if strings.Contains(line, "Error") {
			return strings.TrimSpace(line)
		}
	}
	return otherwise
}
