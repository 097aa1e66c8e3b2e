package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"cdblab/helpers/vm"
)

// keyring has the keys of Debian's suites, also of those that are newer than this machine.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// needs are the programs of a build, and the packages of Debian that have them.
var needs = []struct{ program, pkg string }{
	{"apt-get", "apt"},
	{"mmdebstrap", "mmdebstrap"},
	{"mkfs.ext4", "e2fsprogs"},
	{"sfdisk", "fdisk"},
	{"mformat", "mtools"},
	{"mcopy", "mtools"},
	{"qemu-img", "qemu-utils"},
	{"unshare", "util-linux"},
	{"newuidmap", "uidmap"}, // for user namespaces; root does not need it
	{keyring, "debian-archive-keyring"},
}

// find returns the path of a program or a file. An ordinary user's PATH often lacks the sbin directories, where mkfs.ext4 and sfdisk
// are.
func find(program string) (string, error) {
	if filepath.IsAbs(program) {
		_, err := os.Stat(program)
		return program, err
	}
	found, err := exec.LookPath(program)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if err != nil {
			found, err = exec.LookPath(filepath.Join(dir, program))
		}
	}
	return found, err
}

// checkPrograms returns an error that names all missing programs, and the command that installs them.
func checkPrograms() error {
	if runtime.GOARCH != "amd64" {
		return &vm.Fault{
			Tried: "make the disk image of a node", Seen: "this machine is " + runtime.GOARCH + ", and the image is for amd64 only",
			Do: "make the image on a machine with amd64",
		}
	}
	var programs, packages []string
	for _, n := range needs {
		if _, err := find(n.program); err == nil || n.program == "newuidmap" && os.Geteuid() == 0 {
			continue
		}
		programs = append(programs, n.program)
		if !slices.Contains(packages, n.pkg) {
			packages = append(packages, n.pkg)
		}
	}
	if len(programs) == 0 {
		return nil
	}
	sudo := "sudo "
	if os.Geteuid() == 0 {
		sudo = ""
	}
	return &vm.Fault{
		Tried: "find the programs that make the disk image of a node", Seen: "missing: " + strings.Join(programs, ", "),
		Do: fmt.Sprintf("on Debian and Ubuntu: %sapt-get install --no-install-recommends %s. Elsewhere: make the image on Debian, and copy it",
			sudo, strings.Join(packages, " ")),
	}
}
