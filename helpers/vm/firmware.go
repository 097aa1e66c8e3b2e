//go:build linux

package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// firmware is a UEFI for the guest, in two files: the program, and the variables that a new machine has.
type firmware struct{ code, variables string }

// firmwareDirs have a description of each firmware, as QEMU's docs/interop/firmware.json defines it. The first name wins.
var firmwareDirs = []string{"/etc/qemu/firmware", "/usr/local/share/qemu/firmware", "/usr/share/qemu/firmware"}

// findUEFI returns the first UEFI of this machine that suits the platform, and that starts programs without a signature.
func (p platform) findUEFI() (*firmware, error) {
	for _, path := range firmwareDescriptions() {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if f := p.parseFirmware(b); f != nil {
			return f, nil
		}
	}
	return nil, &Fault{
		Tried: "find a UEFI for the disk image, which boots with one", Seen: "no firmware of " + strings.Join(firmwareDirs, ", ") + " suits",
		Do: "install it: Debian and Ubuntu have it in ovmf, Fedora in edk2-ovmf",
	}
}

// firmwareDescriptions returns the paths of the descriptions, in the order of their names.
func firmwareDescriptions() []string {
	byName := map[string]string{}
	for _, dir := range firmwareDirs {
		for _, e := range entries(dir) {
			if name := e.Name(); strings.HasSuffix(name, ".json") && byName[name] == "" {
				byName[name] = filepath.Join(dir, name)
			}
		}
	}
	var paths []string
	for _, path := range byName {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	return paths
}

// parseFirmware returns the files of a description, or nil if it does not suit.
func (p platform) parseFirmware(b []byte) *firmware {
	type file struct{ Filename, Format string }
	var d struct {
		Interfaces []string `json:"interface-types"`
		Mapping    struct {
			Device     string
			Executable file
			Variables  file `json:"nvram-template"`
		}
		Targets []struct {
			Architecture string
			Machines     []string
		}
		Features []string
	}
	if json.Unmarshal(b, &d) != nil || d.Mapping.Device != "flash" || !slices.Contains(d.Interfaces, "uefi") {
		return nil
	}
	// enrolled-keys: it starts only what is signed. requires-smm: it needs more of the machine than the lab's has.
	if slices.Contains(d.Features, "enrolled-keys") || slices.Contains(d.Features, "requires-smm") {
		return nil
	}
	machine, _, _ := strings.Cut(p.machine, ",")
	for _, target := range d.Targets {
		suits := slices.ContainsFunc(target.Machines, func(pattern string) bool { // pc-q35-*, virt-*
			return strings.HasPrefix(strings.TrimPrefix(pattern, "pc-"), machine)
		})
		if "qemu-system-"+target.Architecture == p.program && suits && d.Mapping.Executable.Format == "raw" {
			return &firmware{d.Mapping.Executable.Filename, d.Mapping.Variables.Filename}
		}
	}
	return nil
}
