//go:build linux

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// fakeProcess is a process of a fake /proc.
type fakeProcess struct {
	pid, parent int
	comm        string
	cgroup      string
	environ     string
}

// fakeRoot makes a directory that has a /proc with these processes. Each machine has an init and this process, pid 50.
func fakeRoot(t *testing.T, processes ...fakeProcess) string {
	t.Helper()
	root := t.TempDir()
	machine := []fakeProcess{
		{1, 0, "systemd", "/init.scope", ""},
		{40, 1, "containerd", "/system.slice/containerd.service", ""},
		{45, 1, "cloud-init", "/system.slice/cloud-init.service", ""},
	}
	for _, p := range append(machine, processes...) {
		dir := filepath.Join(root, "proc", fmt.Sprint(p.pid))
		assert.NilError(t, os.MkdirAll(dir, 0o755))
		stat := fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0", p.pid, p.comm, p.parent)
		for name, text := range map[string]string{"stat": stat, "cgroup": "0::" + p.cgroup + "\n", "environ": p.environ} {
			assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
	}
	return root
}

func TestSignsOfUse_AreSeenOnMachinesThatAreUsed(t *testing.T) {
	self := fakeProcess{50, 1, "lab.test", "/user.slice/user-0.slice/session-1.scope", ""}
	for name, c := range map[string]struct {
		process fakeProcess
		want    string
	}{
		"docker, cgroupfs":   {fakeProcess{60, 59, "nginx", "/docker/0123abcd", ""}, "containers: pid 60 (nginx)"},
		"docker, systemd":    {fakeProcess{60, 59, "nginx", "/system.slice/docker-0123abcd.scope", ""}, "containers: pid 60 (nginx)"},
		"kubernetes":         {fakeProcess{60, 59, "app", "/kubepods.slice/cri-containerd-01.scope", ""}, "containers: pid 60 (app)"},
		"podman":             {fakeProcess{60, 59, "app", "/machine.slice/libpod-01.scope/container", ""}, "containers: pid 60 (app)"},
		"dockerd":            {fakeProcess{60, 1, "dockerd", "/system.slice/docker.service", ""}, "a container manager: pid 60 (dockerd)"},
		"kubelet":            {fakeProcess{60, 1, "kubelet", "/system.slice/kubelet.service", ""}, "a container manager: pid 60 (kubelet)"},
		"microk8s":           {fakeProcess{60, 1, "kubelite", "/x.service", ""}, "a container manager: pid 60 (kubelite)"},
		"systemd-nspawn":     {fakeProcess{60, 1, "systemd-nspawn", "/x.service", ""}, "a container manager: pid 60 (systemd-nspawn)"},
		"desktop":            {fakeProcess{60, 1, "gnome-shell", "/user.slice/session-2.scope", ""}, "a desktop: pid 60 (gnome-shell)"},
		"another lab inside": {fakeProcess{60, 59, "sleep", "/docker/0123abcd/cdb-lab/1/q2", ""}, "containers: pid 60 (sleep)"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.DeepEqual(t, signsOfUse(fakeRoot(t, self, c.process), 50), []string{c.want})
		})
	}
	shim := fakeRoot(t, self, fakeProcess{59, 1, "containerd-shim", "/system.slice/containerd.service", ""},
		fakeProcess{60, 59, "sleep", "/default/own", ""})
	assert.DeepEqual(t, signsOfUse(shim, 50), []string{"containers: pid 60 (sleep)"})

	xen := fakeRoot(t, self)
	assert.NilError(t, os.Mkdir(filepath.Join(xen, "proc", "xen"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(xen, "proc", "xen", "capabilities"), []byte("control_d\n"), 0o644))
	assert.DeepEqual(t, signsOfUse(xen, 50), []string{"the control domain of Xen: /proc/xen/capabilities"})

	var many []fakeProcess
	for pid := range 5 {
		many = append(many, fakeProcess{60 + pid, 1, "app", "/docker/01", ""})
	}
	assert.DeepEqual(t, signsOfUse(fakeRoot(t, append(many, self)...), 50),
		[]string{"containers: pid 60 (app), pid 61 (app), pid 62 (app) and 2 more"})
}

func TestSignsOfUse_AreNotSeenOnAFreshMachine(t *testing.T) {
	self := fakeProcess{50, 1, "lab.test", "/user.slice/user-0.slice/session-1.scope", ""}
	for name, processes := range map[string][]fakeProcess{
		"a cloud's machine":          {self},
		"a containerd without tasks": {self, {60, 1, "containerd", "/system.slice/containerd.service", ""}},
		"another run of the lab": {
			self, {59, 1, "containerd-shim", "/", "A=b\x00CDB_RUN=/run/cdb-lab/1/q2:0123"},
			{60, 59, "runc", "/", "CDB_RUN=/run/cdb-lab/1/q2:0123\x00"}, {61, 59, "sleep", "/cdb-lab-1-q2/cdb-task", ""},
		},
		"this process is in a container": {
			{50, 1, "lab.test", "/docker/0123abcd", ""}, {60, 50, "sleep", "/docker/0123abcd", ""}, {61, 1, "sh", "/docker/0123abcd/below", ""},
		},
		"a virtual machine of the lab": {self, {60, 1, "qemu-system-x86", "/user.slice", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Check(t, cmp.Len(signsOfUse(fakeRoot(t, processes...), 50), 0))
		})
	}
}
