//go:build linux

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// The checks of `lab doctor`. Each returns what it has seen, or an error such as a [*Fault] that says what to do. They are the
// steps of a run, without the boot, and they fetch no kernel.

// CheckSettings checks the settings.
func (c *Config) CheckSettings() (string, error) {
	if err := c.check(); err != nil { // it completes the settings
		return "", err
	}
	if c.Disk != "" {
		return fmt.Sprintf("a disk image, %d MiB, accelerator %s", c.Memory, c.Accel), nil
	}
	return fmt.Sprintf("cgroup %s, %d MiB, accelerator %s", c.Cgroup, c.Memory, c.Accel), nil
}

// CheckDisk looks at the disk image that a run would boot, and at the files that the boot needs besides.
func (c *Config) CheckDisk(ctx context.Context, cache *Cache) (string, error) {
	d, err := inspectDisk(ctx, c.Disk, cache.dir)
	if err != nil {
		return "", err
	}
	useUEFI, err := c.useUEFI(d)
	if err != nil {
		return "", err
	}
	by := "a BIOS"
	if useUEFI {
		by = "a UEFI"
		if _, err := platforms[runtime.GOARCH].findUEFI(); err != nil {
			return "", err
		}
	}
	if _, err := seedUserDataOf(c.UserData); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s (%s), booted by %s", d.path, d.format, by), nil
}

// CheckQEMU looks for QEMU.
func CheckQEMU(ctx context.Context) (string, error) {
	q, err := findQEMU(ctx)
	if err != nil {
		return "", err
	}
	return q.path + " " + q.version, nil
}

// CheckKernel looks for the kernel: in the cache, at its path, or at the package manager.
func (c *Cache) CheckKernel(ctx context.Context, want string, log func(string, ...any)) (string, error) {
	k, err := c.presentKernel(want)
	if err == nil {
		if k.dir != "" {
			return "Linux " + k.release + ", the distribution's package", nil
		}
		return "Linux " + k.release + ": " + k.image, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	// It may fetch package lists, as a run does.
	unlock, err := c.lock(ctx, log)
	if err != nil {
		return "", err
	}
	defer unlock()
	a := aptClient{dir: c.path("apt")}
	pkg, err := a.findPackage(ctx, want, log)
	if err != nil {
		return "", err
	}
	name, err := a.fileName(ctx, pkg)
	if err != nil {
		return "", err
	}
	return "the next run fetches the package " + name, nil
}

// presentKernel returns the kernel if it is on this machine. Otherwise the error is os.ErrNotExist.
func (c *Cache) presentKernel(want string) (*kernel, error) {
	switch {
	case want == "" || want == "default":
		want = "default"
	case !kernelVersion.MatchString(want):
		return customKernel(want, os.Getenv("CDB_MODULES"))
	}
	_, k, err := c.choice(want)
	if err != nil {
		return nil, os.ErrNotExist // also if it is damaged: a run fetches it again
	}
	return k, nil
}

// CheckKVM finds out whether KVM works: by a probe boot as a run makes it, if the kernel is on this machine. An error means
// emulation, which is slower.
func (c *Cache) CheckKVM(ctx context.Context, conf Config, log func(string, ...any)) (string, error) {
	if conf.Accel == "tcg" {
		return "not wanted: ACCEL=tcg", nil
	}
	slow := func(problem string) (string, error) {
		do := "use a machine with virtualisation; if it is a virtual machine itself, with nested virtualisation"
		if strings.Contains(problem, "permission denied") {
			do = "sudo usermod -aG kvm $USER, and log in again"
		}
		return "", &Fault{Tried: "use KVM", Seen: problem + ". Emulation is slower, with the same results", Do: do}
	}
	if problem := openKVM(); problem != "" {
		return slow(problem)
	}
	q, err := findQEMU(ctx)
	if err != nil {
		return slow("there is no QEMU to try it with")
	}
	k, err := c.presentKernel(conf.Kernel)
	if err != nil {
		return "/dev/kvm can be opened; the first run tries it with a probe boot", nil
	}
	init, err := c.buildInit(ctx, log)
	if err != nil {
		return "", err
	}
	if problem := c.probeKVM(ctx, q, q.probe(k, init), log); problem != "" {
		return slow(problem)
	}
	return "a probe boot with it succeeded", nil
}
