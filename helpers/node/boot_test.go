//go:build linux && vmtest

package node

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// image is the image that the tests boot. make test-disk names it.
var image = flag.String("image", "", "the `image` that is booted, with its record beside it")

// Debian's firmware for UEFI: the code, and the variables as they are in a new machine.
const firmwareCode, firmwareVariables = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"

// bootLimit is how long a boot may take. On a busy machine without KVM half an hour was seen.
const bootLimit = 90 * time.Minute

// report is cloud-init's configuration of the machine. It prints what is true in the node on the serial port, one value a line.
const report = `#cloud-config
runcmd:
- |
  exec >/dev/ttyS0 2>&1
  say() { echo "node-test $1=$2"; }
  say pid1 "$(cat /proc/1/comm)"
  say hierarchy "$(stat -fc %T /sys/fs/cgroup)"
  say unified "$(test -d /sys/fs/cgroup/unified && echo yes || echo no)"
  say apparmor "$(cat /sys/module/apparmor/parameters/enabled)"
  say containerd "$(systemctl is-active containerd.service)"
  say systemd-cgroup "$(containerd config dump | grep -c 'SystemdCgroup = true')"
  say uefi "$(test -d /sys/firmware/efi && echo yes || echo no)"
  say root "$(passwd -S root | cut -d ' ' -f 2)"
  say free "$(df --output=avail -BM / | tail -n 1)"
  say failed "$(systemctl --failed --plain --no-legend | tr '\n' ';')"
  say kernel "$(uname -r)"
  say boot "$(cut -d ' ' -f 1 /proc/uptime)"
  say end ""
`

func TestBoot(t *testing.T) {
	if *image == "" {
		t.Skip("no image: make test-disk names one")
	}
	record, err := read(*image)
	assert.NilError(t, err)
	seed := seedDisk(t, report)
	t.Run("UEFI", func(t *testing.T) {
		variables := filepath.Join(t.TempDir(), "variables.fd")
		content, err := os.ReadFile(firmwareVariables)
		assert.NilError(t, err, "Debian: apt-get install ovmf")
		assert.NilError(t, os.WriteFile(variables, content, 0o644))
		checkNode(t, record.Variant, "yes", boot(t, seed,
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+firmwareCode, "-drive", "if=pflash,format=raw,unit=1,file="+variables))
	})
	t.Run("BIOS", func(t *testing.T) { checkNode(t, record.Variant, "no", boot(t, seed)) })
}

// checkNode checks what the node printed.
func checkNode(t *testing.T, v Variant, uefi string, seen map[string]string) {
	t.Helper()
	for name, value := range seen {
		t.Logf("%s: %s", name, value)
	}
	hierarchy := map[string]string{"v1": "tmpfs", "hybrid": "tmpfs", "v2": "cgroup2fs"}[v.Cgroup]
	unified := map[bool]string{false: "no", true: "yes"}[v.Cgroup == "hybrid"]
	driver := map[bool]string{false: "0", true: "1"}[v.SystemdCgroup]
	for name, want := range map[string]string{
		"pid1": "systemd", "hierarchy": hierarchy, "unified": unified, "apparmor": "Y", "containerd": "active", "systemd-cgroup": driver,
		"uefi": uefi, "root": "L", "failed": "",
	} {
		assert.Check(t, seen[name] == want, "%s is %q, expected %q", name, seen[name], want)
	}
	free, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(seen["free"]), "M"))
	assert.Check(t, err == nil && free >= 2000, "free space is %q, expected at least 2000M", seen["free"])
}

// seedDisk returns a disk from which cloud-init's datasource NoCloud reads the configuration.
func seedDisk(t *testing.T, userData string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"user-data": userData, "meta-data": "instance-id: node-test\n"} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	disk := filepath.Join(dir, "seed.img")
	for _, argv := range [][]string{
		{"mformat", "-C", "-i", disk, "-f", "1440", "-v", "CIDATA", "::"},
		{"mcopy", "-i", disk, filepath.Join(dir, "user-data"), filepath.Join(dir, "meta-data"), "::"},
	} {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		assert.NilError(t, err, "%s: %s", argv[0], out)
	}
	return disk
}

// boot boots the image, waits for the login prompt and the end of the report, and returns the report. Nothing is written to the image.
func boot(t *testing.T, seed string, firmware ...string) map[string]string {
	t.Helper()
	console := filepath.Join(t.TempDir(), "console")
	args := append([]string{
		"-machine", "q35,accel=kvm:tcg", "-m", "1024", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "file:" + console, "-drive", "if=virtio,format=qcow2,snapshot=on,file=" + *image,
		"-drive", "if=virtio,format=raw,readonly=on,file=" + seed,
	}, firmware...)
	qemu := exec.Command("qemu-system-x86_64", args...)
	qemu.Stdout, qemu.Stderr = os.Stdout, os.Stderr
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	assert.NilError(t, qemu.Start())
	ended := make(chan error, 1)
	go func() { ended <- qemu.Wait() }()
	var text string
	t.Cleanup(func() {
		_ = qemu.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the end of the console:\n%s", text[max(0, len(text)-4000):])
		}
	})
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		content, err := os.ReadFile(console)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return poll.Error(err)
		}
		text = strings.ReplaceAll(string(content), "\r", "")
		if strings.Contains(text, "node-test end=\n") && strings.Contains(text, "node login:") {
			return poll.Success()
		}
		select {
		case err := <-ended:
			ended <- err
			return poll.Error(fmt.Errorf("QEMU ended: %v", err))
		default:
		}
		return poll.Continue("the console has %d bytes, and not both a login prompt and the end of cloud-init's report", len(text))
	}, poll.WithDelay(time.Second), poll.WithTimeout(bootLimit))
	t.Logf("login prompt and report after %.0f s", time.Since(begin).Seconds())
	seen := map[string]string{}
	for line := range strings.Lines(text) {
		if _, word, ok := strings.Cut(strings.TrimSpace(line), "node-test "); ok {
			name, value, _ := strings.Cut(word, "=")
			seen[name] = value
		}
	}
	return seen
}
