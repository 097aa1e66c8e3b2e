//go:build linux

package host

import (
	"os"
	"strings"
)

// Virtual reports whether this machine is a virtual one, and by which evidence: the processor's hypervisor bit (x86), the
// device tree's hypervisor node (arm64), Xen's sysfs entry, or a firmware (DMI) that names a hypervisor. A virtual machine
// without any of these is not recognised. Its user confirms with CDB_DISPOSABLE=yes that it may be used.
func Virtual() (evidence string, ok bool) {
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil && hypervisorFlag(string(data)) {
		return "hypervisor flag in /proc/cpuinfo", true
	}
	for _, f := range []string{"/proc/device-tree/hypervisor/compatible", "/sys/hypervisor/type"} {
		if data, err := os.ReadFile(f); err == nil {
			return f + ": " + strings.Trim(string(data), "\x00\n"), true
		}
	}
	for _, f := range []string{"sys_vendor", "product_name", "bios_vendor", "board_vendor"} {
		data, err := os.ReadFile("/sys/class/dmi/id/" + f)
		if err == nil && hypervisorFirmware(string(data)) {
			return f + " " + strings.TrimSpace(string(data)), true
		}
	}
	return "", false
}

// hypervisorFlag reports whether the processor has the flag "hypervisor", which a hypervisor sets for its guests.
func hypervisorFlag(cpuinfo string) bool {
	for line := range strings.SplitSeq(cpuinfo, "\n") {
		if key, flags, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "flags" {
			return strings.Contains(flags+" ", " hypervisor ")
		}
	}
	return false
}

// hypervisorFirmware reports whether a DMI text has the name of a common hypervisor. A cloud's bare metal has the same vendor
// as the cloud's virtual machines, so a cloud's name alone is not enough.
func hypervisorFirmware(dmi string) bool {
	for _, word := range []string{
		"QEMU", "KVM", "VMware", "VirtualBox", "innotek", "Xen", "Bochs", "Parallels", "BHYVE",
		"Google Compute Engine", "Apple Virtualization", "Virtual Machine", "OpenStack",
	} {
		if strings.Contains(dmi, word) {
			return true
		}
	}
	return false
}
