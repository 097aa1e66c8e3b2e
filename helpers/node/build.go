//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A build makes one image in a directory of its own.
type build struct {
	recipe  *recipe
	sources []string // lines of sources.list
	dir     string
	logFile *os.File
	log     func(string, ...any)
}

const (
	mib       = 1 << 20
	diskFile  = "disk.raw"
	imageFile = "disk.qcow2"
)

// image makes the image, and returns its path.
func (b *build) image(ctx context.Context) (string, error) {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"installing " + strconv.Itoa(len(b.recipe.Versions)) + " packages (some minutes)", b.packages},
		{"making the root filesystem", b.filesystem},
		{"making the partitions and the boot loaders for UEFI and BIOS", b.bootable},
		{"compressing the image", b.compress},
	} {
		b.log("%s", step.what)
		if err := step.do(ctx); err != nil {
			return "", err
		}
	}
	return filepath.Join(b.dir, imageFile), nil
}

// packages makes root.tar.
func (b *build) packages(ctx context.Context) error {
	mode := "--mode=unshare"
	if os.Geteuid() == 0 {
		mode = "--mode=root"
	}
	args := slices.Concat(b.recipe.Mmdebstrap, []string{mode, b.recipe.Variant.Suite, "root.tar", "-"})
	return b.run(ctx, func(c *exec.Cmd) {
		c.Stdin = strings.NewReader(strings.Join(b.sources, "\n") + "\n")
		if os.Geteuid() == 0 {
			// Root has no user namespace here. In a mount namespace, the mounts of mmdebstrap go away with it also if it is killed.
			c.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
			c.Env = append(c.Env, "TMPDIR="+b.dir)
		}
	}, "mmdebstrap", args...)
}

// filesystem makes the root filesystem in disk.raw.
func (b *build) filesystem(ctx context.Context) error {
	disk, err := os.Create(filepath.Join(b.dir, diskFile))
	if err != nil {
		return err
	}
	if err := errors.Join(disk.Truncate(diskSize*mib), disk.Close()); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		return b.run(ctx, nil, "sh", "-c", b.recipe.Filesystem)
	}
	return b.run(ctx, nil, "unshare", "--map-root-user", "--map-auto", "sh", "-c", b.recipe.Filesystem)
}

// bootable adds the partition table, the EFI system partition, and the sectors that a BIOS starts.
func (b *build) bootable(ctx context.Context) error {
	set := func(c *exec.Cmd) { c.Stdin = strings.NewReader(b.recipe.Partitions) }
	if err := b.run(ctx, set, "sfdisk", "--quiet", "--no-tell-kernel", "--wipe=never", "--wipe-partitions=never", diskFile); err != nil {
		return err
	}
	esp := diskFile + "@@" + strconv.Itoa(espAt) + "M"
	for _, argv := range [][]string{
		{"mformat", "-i", esp, "-T", strconv.Itoa(espSize * mib / sectorSize), "-v", "ESP", "::"},
		{"mmd", "-i", esp, "::/EFI", "::/EFI/BOOT"},
		{"mcopy", "-i", esp, "bootx64.efi", "::/EFI/BOOT/BOOTX64.EFI"},
	} {
		if err := b.run(ctx, nil, argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	boot, err := os.ReadFile(filepath.Join(b.dir, "boot.img"))
	if err != nil {
		return err
	}
	core, err := os.ReadFile(filepath.Join(b.dir, "core.img"))
	if err != nil {
		return err
	}
	if len(core) > biosSize*mib {
		return fmt.Errorf("core.img has %d bytes, expected at most %d, the size of its partition", len(core), biosSize*mib)
	}
	code, core, err := bootSectors(boot, core, biosAt*mib/sectorSize)
	if err != nil {
		return err
	}
	disk, err := os.OpenFile(filepath.Join(b.dir, diskFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = disk.WriteAt(code, 0)
	if err == nil {
		_, err = disk.WriteAt(core, biosAt*mib)
	}
	return errors.Join(err, disk.Close())
}

// compress makes the image. Programs that read it decompress zstd much faster than the default, also under emulation.
func (b *build) compress(ctx context.Context) error {
	return b.run(ctx, nil, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", diskFile, imageFile)
}
