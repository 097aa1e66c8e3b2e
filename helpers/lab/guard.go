//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/howto"
)

// minFreeBytes is the free space that a run needs below host.Dir. The chapter's five own questions were seen to need a third
// of it.
const minFreeBytes = 64 << 20

// Precondition is what a machine must fulfil before a run may change it. Check changes nothing. It returns what it has seen, or
// an error that says why the lab must not, or cannot, run here.
type Precondition struct {
	Name  string
	Check func() (seen string, err error)
}

// Preconditions returns what a machine must fulfil, besides that the run needs root. `lab doctor` shows them all, and a run
// ends with the first one that fails.
func Preconditions() []Precondition {
	return []Precondition{
		{"settings", CheckSettings},
		{"virtual machine", checkVirtual},
		{"other use", checkUse},
		{"/dev/null", checkNullDevice},
		{"cgroups", checkCgroups},
		{"room in /run", checkSpace},
	}
}

// guard returns an error that says why the lab must not, or cannot, run here, or nil if it may. It changes nothing.
func guard() error {
	if os.Geteuid() != 0 && howto.InTarball() {
		return fmt.Errorf("the lab makes namespaces, mounts and cgroups, and needs root; you are uid %d\n"+
			"  As root:   %s", os.Geteuid(), howto.RunHere())
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("the lab makes namespaces, mounts and cgroups, and needs root; you are uid %d\n"+
			"  The helpers' own tests need none:            go test ./...\n"+
			"  On this machine, if it is a disposable VM:   sudo go test -tags vmlab ./...\n"+
			"  The same, with tools built and go found:     make lab-here", os.Geteuid())
	}
	for _, p := range Preconditions() {
		if _, err := p.Check(); err != nil {
			return err
		}
	}
	return nil
}

func checkVirtual() (string, error) {
	evidence, virtual := host.Virtual()
	switch {
	case virtual:
		return evidence, nil
	case os.Getenv(disposableEnv) == "yes":
		return "not recognised as one; " + disposableEnv + "=yes", nil
	}
	return "", fmt.Errorf("this does not look like a virtual machine, and the lab changes the machine that it runs on\n"+
		"  If it may be thrown away, say so:   %s", howto.With(disposableEnv+"=yes", howto.RunHere()))
}

func checkUse() (string, error) {
	signs := host.SignsOfUse()
	switch {
	case len(signs) == 0:
		return "no containers of others, no container manager, no desktop", nil
	case os.Getenv(disposableEnv) == "yes":
		return strings.Join(signs, "; ") + "; " + disposableEnv + "=yes", nil
	}
	return "", fmt.Errorf("this machine looks as if it is used for something else than the lab\n    %s\n"+
		"  The lab makes mounts, cgroups, network devices and namespaces, and removes them. It ends only processes of its own.\n"+
		"  But it runs programs under test as root, and a broken one can do anything.\n"+
		"  In a throw-away VM, which touches nothing here:   make lab, in a checkout of the lab\n"+
		"  If this machine may be thrown away, say so:       %s",
		strings.Join(signs, "\n    "), howto.With(disposableEnv+"=yes", howto.RunHere()))
}

func checkNullDevice() (string, error) { return "char 1:3", host.CheckNullDevice() }

func checkCgroups() (string, error) {
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return "", err
	}
	mode := cgroup.ModeOf(hierarchies)
	if mode == "" {
		return "", errors.New("no cgroup hierarchy is mounted below /sys/fs/cgroup, and no container can be made\n" +
			"  Mount one:   mount -t cgroup2 none /sys/fs/cgroup")
	}
	return string(mode), nil
}

// checkSpace returns an error if the file system of the lab's directory is almost full.
func checkSpace() (string, error) {
	dir := host.Dir
	if _, err := os.Stat(dir); err != nil {
		dir = "/run"
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("read the free space of %s: %w", dir, err)
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < minFreeBytes {
		return "", fmt.Errorf("%s has %d MB free, and the lab needs %d MB for bundles, image and snapshots\n"+
			"  Make room, or give the lab a file system of its own:   mount -t tmpfs -o mode=755 tmpfs %s",
			dir, free>>20, uint64(minFreeBytes)>>20, host.Dir)
	}
	return fmt.Sprintf("%d MB free", free>>20), nil
}
