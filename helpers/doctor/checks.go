//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/howto"
	"cdblab/helpers/lab"
	"cdblab/helpers/tools"
	"cdblab/helpers/vm"
)

// Both returns what every run needs. module is the root directory of the module cdblab.
func Both(module string) Group {
	checks := []Check{
		{"Go", checkGo, Missing},
		{"libraries", func(ctx context.Context) (string, error) { return checkLibraries(ctx, module) }, Missing},
	}
	for _, t := range tools.All {
		level := Warning
		if t.Need == tools.Required {
			level = Missing
		}
		checks = append(checks, Check{t.Name, func(context.Context) (string, error) {
			p, err := t.Find(module)
			switch {
			case err != nil && t.Build != nil && t.Pinned():
				return "make lab and make lab-here build it first", nil
			case err == nil && !p.Pinned:
				p.Path += " (" + t.Env + ")"
			}
			return p.Path, err
		}, level})
	}
	return Group{"For every run", append(checks,
		Check{"disk", func(context.Context) (string, error) { return checkDisk(module) }, Missing},
		Check{"memory", func(context.Context) (string, error) { return checkMemory(1536) }, Warning},
		Check{"clock", func(context.Context) (string, error) { return checkClock(module) }, Warning},
	)}
}

// InVM returns what a run in the VM needs besides. cacheErr says why the cache cannot be used. A disk image has its own kernel.
func InVM(conf vm.Config, cache *vm.Cache, cacheErr error, log func(string, ...any)) Group {
	boots := []Check{
		{"kernel", func(ctx context.Context) (string, error) { return cache.CheckKernel(ctx, conf.Kernel, log) }, Missing},
		{"KVM", func(ctx context.Context) (string, error) { return cache.CheckKVM(ctx, conf, log) }, Warning},
	}
	if conf.Disk != "" {
		boots = []Check{
			{"disk image", func(ctx context.Context) (string, error) { return conf.CheckDisk(ctx, cache) }, Missing},
			{"room for its changes", func(context.Context) (string, error) { return cache.CheckDiskSpace() }, Missing},
		}
	}
	return Group{"In the VM (make lab)", slices.Concat([]Check{
		{"settings", func(context.Context) (string, error) { return conf.CheckSettings() }, Missing},
		{"CDB_ variables", func(context.Context) (string, error) { return lab.CheckSettings() }, Missing},
		{"cache", func(context.Context) (string, error) { return ".lab/vm can be written to", cacheErr }, Missing},
		{"QEMU", vm.CheckQEMU, Missing},
	}, boots, []Check{
		{"memory for it", func(context.Context) (string, error) { return checkMemory(conf.Memory) }, Missing},
	})}
}

// Here returns what a run on this machine needs besides.
func Here() Group {
	checks := []Check{{"root", checkRoot, Missing}}
	for _, p := range lab.Preconditions() {
		checks = append(checks, Check{p.Name, func(context.Context) (string, error) { return p.Check() }, Missing})
	}
	return Group{"On this machine (make lab-here)", append(checks,
		Check{"controllers", checkControllers, Warning},
		Check{"programs in /run", checkExec, Warning},
		Check{"earlier runs", checkEarlierRuns, Warning},
		Check{"security modules", checkSecurityModules, Warning},
	)}
}

func checkGo(ctx context.Context) (string, error) {
	path, err := exec.LookPath(goCommand())
	if err != nil {
		return "", fmt.Errorf("%w\ninstall it: https://go.dev/doc/install", err)
	}
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return "", fmt.Errorf("%s version: %w\ninstall another one: https://go.dev/doc/install", path, err)
	}
	return path + ": " + strings.TrimSpace(string(out)), nil
}

func goCommand() string {
	if name := os.Getenv("GO"); name != "" {
		return name
	}
	return "go"
}

// checkLibraries asks the script of `make deps` what the build of the questions and of runc lacks.
func checkLibraries(ctx context.Context, module string) (string, error) {
	c := exec.CommandContext(ctx, "scripts/deps.sh", "check")
	c.Dir = module
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("scripts/deps.sh check: %w: %s\nrun make deps", err, strings.TrimSpace(string(out)))
	}
	var missing []string
	for name := range strings.FieldsSeq(string(out)) {
		switch name {
		case "compiler":
			missing = append(missing, "a C compiler (cc)")
		case "seccomp":
			missing = append(missing, "a static libseccomp with its headers, and a static C library")
		case "pkg-config":
			missing = append(missing, "pkg-config")
		}
	}
	if len(missing) > 0 {
		return "", errors.New("missing: " + strings.Join(missing, "; ") + "\nmake deps")
	}
	return "a C compiler, a static libseccomp", nil
}

const (
	minDisk   = 500  // MB
	firstDisk = 3000 // MB that the first run takes, with Go's caches
)

// freeSpace is a variable, so that a test can have a disk that is full.
var freeSpace = vm.FreeSpace

func checkDisk(module string) (string, error) {
	free, err := freeSpace(module)
	if err != nil {
		return "", err
	}
	free >>= 20
	seen := fmt.Sprintf("%d MB free for .lab", free)
	switch _, err := os.Stat(filepath.Join(module, ".lab/bin/runc")); {
	case free < minDisk:
		return "", fmt.Errorf("%s, and a run needs %d MB\n"+
			"rm -rf .lab/vm .lab/releases .lab/dist: all that is there is fetched or built again\n"+
			"make sweep: the results of old runs are removed", seen, minDisk)
	case free < firstDisk && err != nil:
		return "", warning{fmt.Errorf("%s; the first run takes %d MB, with Go's caches\nmake room", seen, firstDisk)}
	}
	return seen, nil
}

// checkMemory returns an error if less than want MiB are available.
func checkMemory(want int) (string, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return "", err
	}
	info, err := proc.Meminfo()
	if err != nil || info.MemAvailable == nil {
		return "", fmt.Errorf("read /proc/meminfo: %w", err)
	}
	available := int(*info.MemAvailable >> 10)
	if available < want {
		return "", fmt.Errorf("%d MiB available, and %d MiB are needed (the compiler takes most)\n"+
			"end other programs, or add swap space", available, want)
	}
	return fmt.Sprintf("%d MiB available", available), nil
}

// checkClock compares the clock with the time at which the checkout was written.
func checkClock(module string) (string, error) {
	info, err := os.Stat(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	if now := time.Now(); now.Before(info.ModTime()) {
		return "", fmt.Errorf("the clock shows %s, and go.mod was written at %s: certificates and go's cache go by the clock\n"+
			"set it: date -s …, or start the time service",
			now.Format(time.DateTime), info.ModTime().Format(time.DateTime))
	}
	return time.Now().Format(time.DateTime), nil
}

func checkRoot(context.Context) (string, error) {
	if os.Geteuid() == 0 {
		return "you are root", nil
	}
	if howto.InTarball() {
		return "", fmt.Errorf("you are uid %d\n%s", os.Geteuid(), howto.RunHere())
	}
	path, err := exec.LookPath("sudo")
	if err != nil {
		return "", fmt.Errorf("you are uid %d, and there is no sudo\nrun it as root, or run make lab, which needs no root", os.Geteuid())
	}
	return "make lab-here uses " + path, nil
}

// checkControllers looks for the controllers without which questions about limits are skipped, or record less.
func checkControllers(context.Context) (string, error) {
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return "", err
	}
	var found, missing []string
	for _, c := range []string{"cpu", "cpuset", "memory", "pids"} {
		if cgroup.With(hierarchies, c) != nil {
			found = append(found, c)
		} else {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("no controller %s: questions about it are skipped\n"+
			"make lab, whose VM has it; or enable it on the kernel's command line (cgroup_enable=memory), and boot again",
			strings.Join(missing, ", "))
	}
	return strings.Join(found, " "), nil
}

func checkExec(context.Context) (string, error) {
	forbids, err := host.ForbidsExec("/run")
	if err != nil {
		return "", err
	}
	if forbids {
		return "forbidden (noexec): each run mounts a tmpfs of its own", nil
	}
	return "may be executed", nil
}

func checkEarlierRuns(context.Context) (string, error) {
	if os.Geteuid() != 0 {
		return "only root can see whether one left something: " + howto.Sweep(), nil
	}
	killed, kept, err := host.LeftRuns()
	if err != nil {
		return "", err
	}
	var seen []string
	if len(killed) > 0 {
		seen = append(seen, "killed and not swept: "+strings.Join(killed, " "))
	}
	if len(kept) > 0 {
		seen = append(seen, "kept: "+strings.Join(kept, " "))
	}
	if len(seen) > 0 {
		return "", errors.New(strings.Join(seen, "; ") + "\n" + howto.Sweep())
	}
	return "nothing is left of them", nil
}

// checkSecurityModules looks for modules that may forbid what a container does. The lab was not tried with SELinux.
func checkSecurityModules(context.Context) (string, error) {
	if data, err := os.ReadFile("/sys/fs/selinux/enforce"); err == nil && strings.TrimSpace(string(data)) == "1" {
		return "", errors.New("SELinux is enforcing, and the lab was not tried with it\nsudo setenforce 0, in a machine that may be thrown away")
	}
	data, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return "none is known to interfere", nil
	}
	return string(data), nil
}
