//go:build linux

package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// disk is a disk image of the user, as far as it can be known without booting it.
type disk struct {
	path   string // absolute
	format string // qcow2, raw, vmdk …: QEMU's name
	uefi   bool   // it has a boot loader for UEFI
	bios   bool   // it has a boot loader for a BIOS
}

// headSize is how much of a disk is read: the partition table, and the volume descriptor of an ISO image.
const headSize = 64 << 10

const sectorSize = 512

// inspectDisk looks at a disk image. The Fault says why it can't be booted here. Copies of parts of it are made in the directory tmp:
// in a cache's directory, a later run removes what a killed one has left.
func inspectDisk(ctx context.Context, path, tmp string) (*disk, error) {
	refuse := func(seen, do string) (*disk, error) {
		return nil, &Fault{Tried: "read the disk image " + path, Seen: seen, Do: do}
	}
	const decrypt = "decrypt a copy of it: qemu-img convert, with the key as a secret object"
	const other = "name a disk image that a machine boots from: DISK=node.qcow2"
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(abs)
	switch {
	case err != nil:
		return refuse(err.Error(), other)
	case info.IsDir():
		return refuse("it is a directory", other)
	case !info.Mode().IsRegular() && info.Mode().Type() != os.ModeDevice:
		return refuse("it is neither a file nor a block device", other)
	case info.Mode().IsRegular() && info.Size() == 0:
		return refuse("it is empty", other)
	}
	img, err := findQEMUImg()
	if err != nil {
		return nil, err
	}
	d := &disk{path: abs}
	encrypted, err := d.readFormat(ctx, img)
	if err != nil {
		return refuse(err.Error(), "check that the file is complete, and that you can read it: qemu-img check "+path)
	}
	if encrypted {
		return refuse("it is encrypted, and the lab has no key", decrypt)
	}
	head, err := d.head(ctx, img, tmp)
	if err != nil {
		return refuse(err.Error(), "check the image: qemu-img check "+path)
	}
	defer head.Close()
	b := make([]byte, headSize)
	n, _ := head.ReadAt(b, 0)
	b = b[:n]
	arch, esp := d.readPartitions(head, b)
	loaders := d.bootLoaders(ctx, img, tmp, esp)
	switch {
	case isLUKS(b):
		return refuse("it is encrypted, and the lab has no key", decrypt)
	case isISO(b):
		return refuse("it is an ISO image: an installer or a live system, which is no node image",
			"install it into a disk once (qemu-img create, and a VM with this ISO), and name that disk")
	case arch != "" && arch != runtime.GOARCH:
		return refuse(fmt.Sprintf("its partitions are those of a machine for %s, and this machine is for %s", arch, runtime.GOARCH),
			"run the lab on a machine for "+arch)
	case !d.bios && len(loaders) > 0 && !slices.Contains(loaders, bootLoaders[runtime.GOARCH]):
		return refuse(fmt.Sprintf("its boot loader for UEFI is EFI/BOOT/%s, and this machine, which is for %s, starts only EFI/BOOT/%s",
			strings.Join(loaders, " and "), runtime.GOARCH, bootLoaders[runtime.GOARCH]),
			"run the lab on a machine of the image's architecture, or name an image for "+runtime.GOARCH)
	case !d.uefi && !d.bios:
		return refuse("it has neither a boot loader for a BIOS nor a partition for UEFI", other)
	}
	return d, nil
}

// readFormat asks qemu-img which format the image has, and reports whether it is encrypted.
func (d *disk) readFormat(ctx context.Context, img string) (encrypted bool, err error) {
	// -U: the image may be in use, and is only read.
	out, err := runHelper(ctx, quickLimit, nil, img, "info", "-U", "--output=json", d.path)
	if err != nil {
		return false, fmt.Errorf("qemu-img info: %w", err)
	}
	var info struct {
		Format    string
		Encrypted bool
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return false, fmt.Errorf("qemu-img info: %w", err)
	}
	d.format = info.Format
	return info.Encrypted || info.Format == "luks", nil
}

// DiskFiles returns the paths of the files of which a disk image consists: the image, the files below it (a qcow2 image may have a
// backing file), and the parts of a vmdk image. The error is a [*Fault].
func DiskFiles(ctx context.Context, path string) ([]string, error) {
	img, err := findQEMUImg()
	if err != nil {
		return nil, err
	}
	// QEMU takes what comes before a colon for a protocol: node:12.qcow2
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	var chain []struct {
		Filename       string
		FormatSpecific struct {
			Data json.RawMessage // an object for most formats
		} `json:"format-specific"`
	}
	out, err := runHelper(ctx, quickLimit, nil, img, "info", "-U", "--backing-chain", "--output=json", path)
	if err == nil {
		err = json.Unmarshal(out, &chain)
	}
	if err != nil {
		return nil, &Fault{Tried: "list the files of the disk image " + path, Seen: fmt.Sprintf("qemu-img info: %v", err),
			Do: "check that the files are complete, and that you can read them: qemu-img check " + path}
	}
	var files []string
	for _, image := range chain {
		files = append(files, image.Filename)
		var vmdk struct{ Extents []struct{ Filename string } }
		_ = json.Unmarshal(image.FormatSpecific.Data, &vmdk) // no other format has extents
		for _, extent := range vmdk.Extents {
			files = append(files, extent.Filename)
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// findQEMUImg returns the path of qemu-img.
func findQEMUImg() (string, error) {
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		return "", &Fault{Tried: "find qemu-img", Seen: "it is not on PATH",
			Do: "install it: Debian and Fedora have it in qemu-utils and qemu-img"}
	}
	return img, nil
}

// head returns the first bytes of the disk, as the guest sees them, in a file of the size of the disk that is empty after them. A
// partition table names the end of its disk.
func (d *disk) head(ctx context.Context, img, tmp string) (*os.File, error) {
	dir, err := os.MkdirTemp(tmp, ".disk-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "head")
	args := []string{
		"dd", "-U", "-f", d.format, "-O", "raw", "bs=64k", "count=1", "if=" + d.path, "of=" + path,
	}
	if _, err := runHelper(ctx, quickLimit, nil, img, args...); err != nil {
		return nil, fmt.Errorf("qemu-img dd: %w", err)
	}
	return os.Open(path)
}

// Types of partitions: https://uapi-group.org/specifications/specs/discoverable_partitions_specification/
const (
	typeBIOSBoot  = "21686148-6449-6E6F-744E-656564454649" // for the boot loader of a BIOS
	typeRootAMD64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
	typeRootARM64 = "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"
)

// readPartitions finds out how the disk boots, and returns the architecture if the partition table has it. esp is the partition for UEFI,
// or nil.
func (d *disk) readPartitions(f *os.File, head []byte) (arch string, esp *gpt.Partition) {
	// A master boot record without a boot loader has zeros there.
	d.bios = len(head) >= 512 && head[510] == 0x55 && head[511] == 0xaa &&
		slices.ContainsFunc(head[:440], func(b byte) bool { return b != 0 })
	table, err := partition.Read(file.New(f, true), sectorSize, sectorSize)
	if err != nil {
		return "", nil // no partition table: a BIOS may boot it nevertheless
	}
	parts, ok := table.(*gpt.Table)
	if !ok {
		return "", nil // a master boot record
	}
	biosPartition := false
	for _, p := range parts.Partitions {
		switch strings.ToUpper(string(p.Type)) {
		case string(gpt.EFISystemPartition):
			d.uefi, esp = true, p
		case typeBIOSBoot:
			biosPartition = true
		case typeRootAMD64:
			arch = "amd64"
		case typeRootARM64:
			arch = "arm64"
		}
	}
	// A GPT's master boot record may have code that only says that the disk boots by UEFI.
	d.bios = d.bios && (biosPartition || !d.uefi)
	return arch, esp
}

func isLUKS(head []byte) bool { return bytes.HasPrefix(head, []byte("LUKS\xba\xbe")) }

// isISO reports whether the disk is an ISO 9660 image, which can have a partition table as well.
func isISO(head []byte) bool { return len(head) > 32774 && string(head[32769:32774]) == "CD001" }
