//go:build linux

package vm

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// bootLoaders are the files in EFI/BOOT that a UEFI starts from a disk that it does not know yet:
// https://uefi.org/specs/UEFI/2.10/03_Boot_Manager.html#removable-media-boot-behavior
var bootLoaders = map[string]string{"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}

// bootLoaders returns the names of the boot loaders in EFI/BOOT of the partition for UEFI, sorted. None are returned if there is no such
// partition, or if it cannot be read: then the boot shows what the disk is.
//
// A copy of the partition is made in the directory tmp.
//
// Most distributions give the root partition of each architecture the same type. So only the name of this file tells it.
func (d *disk) bootLoaders(ctx context.Context, img, tmp string, esp *gpt.Partition) []string {
	if esp == nil {
		return nil
	}
	dir, err := os.MkdirTemp(tmp, ".esp-*")
	if err != nil {
		return nil
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "esp")
	name, err := d.partition(esp)
	if err != nil {
		return nil
	}
	// Free space takes no room in the file: qemu-img writes no zeros.
	if _, err := runHelper(ctx, quickLimit, nil, img, "convert", "-U", "-O", "raw", name, path); err != nil {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	return efiBoot(file.New(f, true))
}

// partition returns a part of the image as QEMU names it.
func (d *disk) partition(p *gpt.Partition) (string, error) {
	image, err := d.blockDevice()
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(map[string]any{
		"driver": "raw", "offset": int64(p.Start) * sectorSize, "size": int64(p.End-p.Start+1) * sectorSize,
		"file": json.RawMessage(strings.TrimPrefix(image, "json:")),
	})
	return "json:" + string(b), err
}

// efiBoot returns the names of the boot loaders in EFI/BOOT of a FAT file system.
func efiBoot(b backend.Storage) (names []string) {
	// The file system of a user may be damaged, and the library does not expect it.
	defer func() {
		if recover() != nil {
			names = nil
		}
	}()
	sector := make([]byte, sectorSize)
	if _, err := b.ReadAt(sector, 0); err != nil {
		return nil
	}
	info, err := b.Stat()
	if err != nil {
		return nil
	}
	var fat fs.ReadDirFS
	switch {
	case string(sector[82:87]) == "FAT32":
		fat, err = fat32.Read(b, info.Size(), 0, sectorSize)
	case string(sector[54:59]) == "FAT16":
		fat, err = fat16.Read(b, info.Size(), 0, sectorSize)
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	entries, err := fat.ReadDir("EFI/BOOT")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if strings.HasPrefix(name, "BOOT") && strings.HasSuffix(name, ".EFI") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
