//go:build linux

package ctrd

import (
	"fmt"
	"path/filepath"
	"strings"

	"cdblab/helpers/check"
)

// Overlay is the directories that an overlay mount is made of.
type Overlay struct {
	Lower       []string // the uppermost first
	Upper, Work string
}

// ParseOverlay reads the directories of an overlay from mount options. The options are those of a mount command or those
// that the kernel shows.
func ParseOverlay(options []string) (Overlay, error) {
	var o Overlay
	for _, option := range options {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "lowerdir":
			o.Lower = strings.Split(value, ":")
		case "upperdir":
			o.Upper = value
		case "workdir":
			o.Work = value
		}
	}
	if o.Lower == nil || o.Upper == "" || o.Work == "" {
		return o, fmt.Errorf("expected lowerdir, upperdir and workdir of an overlay in the mount options %q", options)
	}
	return o, nil
}

// SnapshotOverlay returns the overlay as which ctr would mount a snapshot. Nothing is mounted.
func (d *Daemon) SnapshotOverlay(key string) Overlay {
	d.q.Helper()
	mountCommand := d.Ctr("snapshots", "mounts", "/mnt", key).Stdout
	o, err := ParseOverlay(strings.FieldsFunc(mountCommand, func(r rune) bool { return strings.ContainsRune(", \n", r) }))
	if err != nil {
		d.q.Fatalf("snapshot %s: %v", key, err)
	}
	return o
}

// RootOverlay returns the overlay that the kernel has mounted as the root filesystem of a task.
func (d *Daemon) RootOverlay(id string) Overlay {
	d.q.Helper()
	rootfs := filepath.Join(d.Bundle(id), "rootfs")
	d.q.LogCommand("grep %s /proc/self/mountinfo", rootfs)
	m := check.MountAt(d.q, rootfs)
	if m == nil {
		d.q.Fatalf("nothing is mounted at %s", rootfs)
	}
	if m.FSType != "overlay" {
		d.q.Fatalf("the filesystem at %s is %s, want overlay", rootfs, m.FSType)
	}
	o, err := ParseOverlay(strings.Split(m.VFSOptions, ","))
	if err != nil {
		d.q.Fatalf("mount at %s: %v", rootfs, err)
	}
	return o
}
