//go:build linux

package host

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// SignsOfUse lists what shows that the machine is not there for the lab alone: containers of others, the programs that manage
// them, a desktop, virtual machines of Xen. Each is one line for the user.
func SignsOfUse() []string { return signsOfUse("/", os.Getpid()) }

// containerCgroup matches a cgroup in which a container manager puts its containers: a directory of that name, or a systemd unit.
var containerCgroup = regexp.MustCompile(`/(docker|kubepods|libpod|crio|cri-containerd|containerd|lxc|lxc\.payload)([/:.-][^/]*)*(/|$)`)

// managerCgroup matches the systemd unit of a container manager itself, in which there is no container.
var managerCgroup = regexp.MustCompile(`/(docker|containerd|crio|lxc|podman)\.(service|socket)$`)

// managers and desktops are programs that are signs by themselves. The kernel cuts a name after 15 characters. kubelite is the kubelet
// of MicroK8s.
var (
	managers = []string{"dockerd", "kubelet", "crio", "k3s-server", "k3s-agent", "kubelite", "systemd-nspawn"}
	desktops = []string{
		"Xorg", "Xwayland", "gnome-shell", "kwin_wayland", "kwin_x11", "sway", "weston", "Hyprland", "labwc", "cosmic-comp", "mutter",
	}
)

// visible is what signsOfUse reads of a process.
type visible struct {
	pid, parent int
	comm        string
	cgroups     []string // lines of /proc/PID/cgroup
	lab         bool     // it belongs to a run of the lab, in progress or not
}

// signsOfUse looks below root, which is "/" except in a test. It reads /proc and /sys only. self is the pid of this process.
func signsOfUse(root string, self int) []string {
	all := visibleProcesses(root)
	own := all[self].cgroups
	signs := map[string][]string{}
	for _, pid := range slices.Sorted(maps.Keys(all)) {
		p := all[pid]
		name := fmt.Sprintf("pid %d (%s)", p.pid, p.comm)
		switch parent := all[p.parent].comm; {
		case p.lab:
		case slices.Contains(managers, p.comm):
			signs["a container manager"] = append(signs["a container manager"], name)
		case slices.Contains(desktops, p.comm):
			signs["a desktop"] = append(signs["a desktop"], name)
		case inContainer(p.cgroups, own), strings.HasPrefix(parent, "containerd-shim"), parent == "conmon":
			signs["containers"] = append(signs["containers"], name)
		}
	}
	if data, err := os.ReadFile(filepath.Join(root, "proc/xen/capabilities")); err == nil && strings.Contains(string(data), "control_d") {
		signs["the control domain of Xen"] = []string{"/proc/xen/capabilities"}
	}
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(signs)) {
		seen := signs[kind]
		more := ""
		if n := len(seen); n > 3 {
			seen, more = seen[:3], fmt.Sprintf(" and %d more", n-3)
		}
		out = append(out, kind+": "+strings.Join(seen, ", ")+more)
	}
	return out
}

// inContainer reports whether a process is in a container. The container in which this process runs, if it is in one, is no
// sign: own are the cgroups of this process.
func inContainer(cgroups, own []string) bool {
	return slices.ContainsFunc(cgroups, func(line string) bool {
		return containerCgroup.MatchString(line) && !managerCgroup.MatchString(line) &&
			!slices.ContainsFunc(own, func(o string) bool { return containerCgroup.MatchString(o) && pathBegins(line, o) })
	})
}

func visibleProcesses(root string) map[int]visible {
	all := map[int]visible{}
	dirs, _ := filepath.Glob(filepath.Join(root, "proc/[0-9]*"))
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		p, err := parseStat(string(stat))
		if err != nil || p.State == "Z" {
			continue
		}
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		v := visible{pid: pid, parent: int(p.Parent), comm: p.Comm, cgroups: strings.Split(strings.TrimSpace(string(cgroup)), "\n")}
		v.lab = strings.Contains("\x00"+string(environ), "\x00"+OwnerEnv+"="+Dir+"/") ||
			slices.ContainsFunc(v.cgroups, func(line string) bool {
				f := strings.SplitN(line, ":", 3)
				return len(f) == 3 && strings.HasPrefix(f[2], Cgroup)
			})
		all[pid] = v
	}
	return all
}
