package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// mountCgroups mounts the cgroup hierarchies like systemd does in that mode. It returns the v1 controllers that this kernel
// cannot mount, because it has them for v2 only.
//
// https://systemd.io/CGROUP_DELEGATION/#three-different-tree-setups-
func mountCgroups(mode string) (missing []string, err error) {
	switch mode {
	case "v2":
		if err := mountCgroup("cgroup2", cgroupRoot, "nsdelegate,memory_recursiveprot"); err != nil {
			return nil, err
		}
		return nil, enableControllers(cgroupRoot)
	case "v1", "hybrid":
	default:
		return nil, fmt.Errorf("unknown cgroup mode %q", mode)
	}
	if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return nil, fmt.Errorf("mount %s: %w", cgroupRoot, err)
	}
	// systemd mounts these two pairs together. A symbolic link leads from each name of a pair to the pair.
	pairs := [][]string{{"cpu", "cpuacct"}, {"net_cls", "net_prio"}}
	controllers, err := v1Controllers()
	if err != nil {
		return nil, err
	}
	for len(controllers) > 0 {
		group := controllers[:1]
		for _, t := range pairs {
			if slices.Contains(t, group[0]) {
				group = slices.DeleteFunc(slices.Clone(t), func(c string) bool { return !slices.Contains(controllers, c) })
			}
		}
		name := strings.Join(group, ",")
		if err := mountCgroup("cgroup", cgroupRoot+"/"+name, name); err != nil {
			_ = os.Remove(cgroupRoot + "/" + name)
			missing = append(missing, group...)
		} else if len(group) > 1 {
			for _, c := range group {
				_ = os.Symlink(name, cgroupRoot+"/"+c)
			}
		}
		controllers = slices.DeleteFunc(controllers, func(c string) bool { return slices.Contains(group, c) })
	}
	if err := mountCgroup("cgroup", cgroupRoot+"/systemd", "none,name=systemd"); err != nil {
		return nil, err
	}
	if mode == "hybrid" {
		if err := mountCgroup("cgroup2", cgroupRoot+"/unified", "nsdelegate"); err != nil {
			return nil, err
		}
	}
	// Read-only, as on a normal system: otherwise a program could create a directory beside the controllers by mistake.
	return missing, unix.Mount("", cgroupRoot, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

func mountCgroup(kind, at, options string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RELATIME
	if err := unix.Mount(kind, at, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s at %s with %s: %w", kind, at, options, err)
	}
	return nil
}

// v1Controllers returns the enabled controllers, in the kernel's order.
func v1Controllers() ([]string, error) {
	f, err := os.Open("/proc/cgroups")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for s := bufio.NewScanner(f); s.Scan(); {
		field := strings.Fields(s.Text())
		if len(field) == 4 && !strings.HasPrefix(field[0], "#") && field[3] == "1" {
			names = append(names, field[0])
		}
	}
	return names, nil
}

// enableControllers enables every controller for the children of the root, as systemd does for its slices.
func enableControllers(root string) error {
	b, err := os.ReadFile(root + "/cgroup.controllers")
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(b)) {
		// One by one: if one controller cannot be enabled, the others still must be.
		_ = os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+c), 0)
	}
	return nil
}
