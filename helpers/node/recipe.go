//go:build linux

package node

import (
	"context"
	"crypto/sha256"
	_ "embed" // the scripts below
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/vm"
)

var (
	//go:embed recipe/prepare.sh
	prepareScript string
	//go:embed recipe/customize.sh
	customizeScript string
	//go:embed recipe/filesystem.sh
	filesystemScript string
)

// kernel is a package that depends on the newest kernel of the suite.
const kernel = "linux-image-cloud-amd64"

var kernelPackage = regexp.MustCompile(`^linux-image-[0-9].*-cloud-amd64$`)

// packages are installed in each node, with what they depend on.
var packages = []string{
	"systemd-sysv", "libpam-systemd", "dbus", "udev", "kmod", "apparmor", "containerd", "runc", "cloud-init",
	kernel, "initramfs-tools", "zstd", "grub-pc-bin", "grub-efi-amd64-bin", "grub-common",
	"e2fsprogs", "login", "passwd", "mount", "procps", "iproute2", "openssh-client", "strace",
}

// optional packages have programs that some questions use. Not each suite has all.
var optional = []string{"crun", "criu", "erofs-utils", "uidmap"}

// label is the label of the root filesystem.
const label = "node-root"

// The sizes of the disk's partitions, in MiB. The file is sparse: free space takes no room. The partition of 1 MiB has GRUB for a BIOS.
const (
	biosAt, biosSize = 1, 1
	espAt, espSize   = 2, 32
	rootAt, rootSize = 34, 4 << 10
	diskSize         = rootAt + rootSize + 1 // the second partition table is at the end
)

// partitions is the input of sfdisk. The types are those of the UEFI specification, of GRUB, and of Linux.
var partitions = fmt.Sprintf(`label: gpt
start=%dMiB, size=%dMiB, type=21686148-6449-6E6F-744E-656564454649, name=bios
start=%dMiB, size=%dMiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
start=%dMiB, size=%dMiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root
`, biosAt, biosSize, espAt, espSize, rootAt, rootSize)

// A recipe is all that decides about the content of an image.
type recipe struct {
	Variant    Variant
	Mmdebstrap []string          // its arguments
	Filesystem string            // the script that makes the root filesystem
	Partitions string            // input of sfdisk
	Env        []string          // of the scripts
	Versions   map[string]string // of the packages, by name
}

// newRecipe asks the archive what it has.
func newRecipe(ctx context.Context, a *archive, v Variant) (*recipe, error) {
	also, err := a.available(ctx, optional)
	if err != nil {
		return nil, err
	}
	include := slices.Concat(packages, also)
	versions, err := a.versions(ctx, include)
	if err != nil {
		return nil, err
	}
	// The package of the kernel, and not the one that only depends on it: the archive of an old suite was seen without the latter.
	for name := range versions {
		if kernelPackage.MatchString(name) {
			include[slices.Index(include, kernel)] = name
			delete(versions, kernel)
			break
		}
	}
	if systemd := major(versions["systemd"]); v.Cgroup != "v2" && systemd >= firstWithoutV1 {
		return nil, &vm.Fault{
			Tried: "make a node with CGROUP=" + v.Cgroup + " from the suite " + v.Suite,
			Seen:  fmt.Sprintf("its systemd is version %d, and systemd has only cgroup v2 since version %d", systemd, firstWithoutV1),
			Do:    "use an older suite: SUITE=bookworm CGROUP=" + v.Cgroup,
		}
	}
	r := &recipe{
		Variant: v, Versions: versions, Filesystem: filesystemScript, Partitions: partitions,
		Env: []string{
			"LC_ALL=C.UTF-8", "NODE_LABEL=" + label, "NODE_KERNEL_WORDS=" + v.kernelWords(),
			fmt.Sprintf("NODE_ROOT_OFFSET=%d", rootAt*mib), fmt.Sprintf("NODE_ROOT_SIZE=%dM", rootSize),
			fmt.Sprintf("NODE_SYSTEMD_CGROUP=%t", v.SystemdCgroup),
		},
		Mmdebstrap: []string{
			"--verbose", "--variant=apt", "--architectures=amd64", "--include=" + strings.Join(include, ","),
			`--aptopt=APT::Install-Recommends "false"`,
			// The image is complete or is not there, so no package has to be on the disk before the next one.
			"--dpkgopt=force-unsafe-io",
			// The text and not a file: in a user namespace, a file of the checkout may not be readable.
			"--essential-hook=" + prepareScript, "--customize-hook=" + customizeScript,
		},
	}
	return r, nil
}

// major returns 252 for "252.39-1~deb12u2".
func major(version string) (n int) {
	_, _ = fmt.Sscanf(version, "%d", &n)
	return n
}

// key returns a digest of the recipe. Two images of the same key are the same, except for times and ids.
func (r *recipe) key() string {
	b, err := json.Marshal(r) // maps are sorted
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:12]
}

// describe names the packages that engineers ask for.
func describe(versions map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		if slices.Contains([]string{"systemd", "containerd", "runc", "apparmor", "cloud-init"}, name) || kernelPackage.MatchString(name) {
			list = append(list, name+" "+versions[name])
		}
	}
	return strings.Join(list, ", ")
}
