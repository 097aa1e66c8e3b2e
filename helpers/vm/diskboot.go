//go:build linux

package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/howto"
	"cdblab/helpers/tools"
	"cdblab/helpers/vm/protocol"
)

// How long a disk of the user may take. Under emulation it is slower than the lab's own VM by far: systemd and cloud-init were seen to
// take three minutes. Variables, so that a test can make them shorter.
var (
	diskBootTimeout  = 5 * time.Minute  // until the lab's service answers
	diskLoginTimeout = 2 * time.Minute  // the same, after a login prompt: cloud-init runs scripts after it
	emulationFactor  = time.Duration(5) // for both
)

// startDisk starts QEMU with a disk of the user. Nothing is written to the disk: QEMU keeps the changes in a file without a name.
func (q *qemu) startDisk(conf Config, d *disk, seed *os.File, dir string, ports ...string) (*machine, error) {
	l := newLaunch()
	// Not qemu64: distributions are built for processors with more.
	l.add("-machine", q.machine+",graphics=off", "-cpu", q.cpuModel(conf, "max"), "-device", "virtio-rng-pci",
		// A guest without a network may wait for one for minutes. This one leads nowhere.
		"-nic", "user,restrict=on,model=virtio-net-pci",
		"-smbios", "type=1,serial=ds=nocloud")
	for _, c := range seedCredentials() {
		l.add("-smbios", "type=11,value="+c)
	}
	if useUEFI, err := conf.useUEFI(d); err != nil {
		return nil, err
	} else if useUEFI {
		f, err := q.findUEFI()
		if err != nil {
			return nil, err
		}
		l.add("-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+escapeCommas(f.code),
			"-drive", "if=pflash,unit=1,format=raw,snapshot=on,file="+escapeCommas(f.variables))
	}
	name, err := d.blockDevice()
	if err != nil {
		return nil, err
	}
	l.add("-drive", "if=none,id=disk,snapshot=on,file="+escapeCommas(name), "-device", "virtio-blk-pci,drive=disk,bootindex=0")
	l.addReadOnlyDisk(protocol.SeedDisk, seed)
	// The changes go to this directory, and not to /var/tmp.
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	l.env = []string{"TMPDIR=" + dir}
	return q.launch(conf, l, ports)
}

// escapeCommas returns a value for an option of QEMU, in which a comma ends a value.
func escapeCommas(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// blockDevice returns the image as QEMU names it.
func (d *disk) blockDevice() (string, error) {
	driver := "file"
	if info, err := os.Stat(d.path); err == nil && info.Mode().Type() == os.ModeDevice {
		driver = "host_device"
	}
	b, err := json.Marshal(map[string]any{"driver": d.format, "file": map[string]any{"driver": driver, "filename": d.path}})
	return "json:" + string(b), err
}

// useUEFI reports whether the disk is booted by a UEFI. If it boots both ways, the BIOS is faster.
func (c *Config) useUEFI(d *disk) (bool, error) {
	switch {
	case c.Firmware == "" || c.Firmware == "auto":
		return !d.bios, nil
	case c.Firmware == "uefi" && !d.uefi:
		return false, &Fault{Tried: "boot " + d.path + " by a UEFI", Seen: "it has no partition for UEFI", Do: "leave out FIRMWARE=uefi"}
	case c.Firmware == "bios" && !d.bios:
		return false, &Fault{Tried: "boot " + d.path + " by a BIOS", Seen: "it has no boot loader for a BIOS", Do: "leave out FIRMWARE=bios"}
	}
	return c.Firmware == "uefi", nil
}

// A deadEnd is what a guest shows on its console when it waits for a person, or for ever.
type deadEnd struct {
	shown *regexp.Regexp
	seen  string
	do    string
}

const lookAtConsole = "boot the image by hand and mend it, or watch the whole boot with CDB_VM_CONSOLE=1"

var deadEnds = []deadEnd{
	{regexp.MustCompile(`Kernel panic - not syncing`), "the guest's kernel panicked", lookAtConsole},
	{regexp.MustCompile(`(?i)enter passphrase for|please unlock disk|passphrase for disk`),
		"the guest asks for the passphrase of an encrypted disk", "the lab has no key: name an image that is not encrypted"},
	{regexp.MustCompile(`You are in (emergency|rescue) mode|for maintenance\b|Cannot open access to console`),
		"the guest is in emergency mode: it could not finish its boot", lookAtConsole},
	{regexp.MustCompile(`\(initramfs\) *$|Entering emergency mode|dracut:/#`), "the guest's initramfs did not find its root file system",
		"the image may lack the driver virtio_blk in its initramfs. Otherwise: " + lookAtConsole},
	{regexp.MustCompile(`No bootable device|not a bootable disk|No bootable option or device|grub rescue> *$|grub> *$`),
		"the firmware or the boot loader found nothing to boot",
		"check that the image is complete and for " + runtime.GOARCH + ": this machine boots no other architecture. Then try the other firmware: " +
			"FIRMWARE=uefi or FIRMWARE=bios"},
}

var loginPrompt = regexp.MustCompile(`(?m)\blogin: *$`)

// bootWatch tells from the console whether the boot of a disk has come to an end without the lab's service.
type bootWatch struct {
	limit, loginLimit time.Duration
	start, login      time.Time
}

func newBootWatch(accel string) *bootWatch {
	w := &bootWatch{limit: diskBootTimeout, loginLimit: diskLoginTimeout, start: time.Now()}
	if accel != "kvm" {
		w.limit *= emulationFactor
		w.loginLimit *= emulationFactor
	}
	return w
}

const howToStart = "The image must have systemd 256 or later, or cloud-init with the data source NoCloud. " +
	"Without both, add a service to it: " +
	"one that mounts the disk with the label " + protocol.SeedLabel + " at " + protocol.SeedDir +
	" and runs sh " + protocol.SeedDir + "/" + protocol.SeedScript

// check returns what was seen and what to do, or "" if the boot goes on.
func (w *bootWatch) check(console string) (seen, do string) {
	for _, d := range deadEnds {
		if d.shown.MatchString(console) {
			return d.seen, d.do
		}
	}
	if w.login.IsZero() && loginPrompt.MatchString(console) {
		w.login = time.Now()
	}
	switch {
	case !w.login.IsZero() && time.Since(w.login) > w.loginLimit:
		return fmt.Sprintf("the guest shows a login prompt, and did not start the lab's service within %v after it", w.loginLimit), howToStart
	case !w.login.IsZero(): // the scripts of cloud-init have their time, however late the prompt was
	case time.Since(w.start) > w.limit && strings.TrimSpace(console) == "":
		return fmt.Sprintf("the guest showed nothing on its serial port and did not start the lab's service within %v", w.limit),
			"let the image's kernel show its messages there (console=" + platforms[runtime.GOARCH].console + " on its command line). " +
				howToStart
	case time.Since(w.start) > w.limit:
		return fmt.Sprintf("the guest did not start the lab's service within %v", w.limit), howToStart
	}
	return "", ""
}

// diskProgram returns what runs in a guest that boots a disk of the user: the tarball's program, which asks about the programs that
// the guest has. args are those of the test binary; hostDir is where its artifacts belong on this machine.
func diskProgram(conf Config, args []string, terminal bool) *guestProgram {
	p := &guestProgram{dir: "/", terminal: terminal}
	if terminal {
		p.args = []string{"/bin/sh", "-l"}
		return p
	}
	p.args = []string{protocol.SeedDir + "/" + protocol.SeedTree + "/cdblab", "ask"}
	if conf.Pinned {
		p.args = append(p.args, "-pinned")
	}
	p.args = append(p.args, "--")
	p.timeout = testTimeout(args)
	p.mkdir = []string{protocol.OutDir}
	for _, a := range args[1:] {
		if out, ok := strings.CutPrefix(a, "-test.outputdir="); ok {
			a = "-test.outputdir=" + protocol.OutDir
			p.results, p.hostDir = []string{protocol.OutDir}, out
		}
		p.args = append(p.args, a)
	}
	return p
}

// startDisk starts a VM with a disk of the user, and returns the job for it. It completes the settings.
func (c *Command) startDisk(ctx context.Context, q *qemu, conf *Config, program *guestProgram, _ *Result) (*machine, *protocol.Job, error) {
	d, err := inspectDisk(ctx, conf.Disk, c.Cache.dir)
	if err != nil {
		return nil, nil, err
	}
	probe := func(ctx context.Context) error { return firmwareBoot(ctx, q, probeTimeout) }
	if conf.Accel, err = c.Cache.chooseAccelerator(ctx, q, conf.Accel, probe, c.Log); err != nil {
		return nil, nil, err
	}
	conf.setDefaultCPUs()
	// The guest must stop waiting for the end of its boot before this machine stops waiting for the guest. cloud-init may start the
	// service some time after the login prompt.
	wait := newBootWatch(conf.Accel).loginLimit * 3 / 4
	seed, err := c.Cache.seedImage(conf.Tarball, conf.UserData, wait)
	if err != nil {
		return nil, nil, err
	}
	defer seed.Close()
	if err := c.Cache.checkSpace("boot a snapshot of "+conf.Disk, snapshotSpace); err != nil {
		return nil, nil, err
	}
	program.boot = newBootWatch(conf.Accel)
	job := newJob(program, *conf, nil, sameFile(c.Stdout, c.Stderr))
	job.Env = slices.DeleteFunc(job.Env, isOfThisMachine)
	job.Space = []protocol.Space{{Dir: "/run", Free: guestSpace}, {Dir: "/tmp", Free: guestSpace}}
	c.Log("booting a snapshot of %s: nothing is written to it", conf.Disk)
	m, err := q.startDisk(*conf, d, seed, c.Cache.dir, guestPorts...)
	return m, job, err
}

// guestSpace is what the questions need on each file system that they use, in bytes.
const guestSpace = 64 << 20

// isOfThisMachine reports whether a variable says what is on this machine, and not on a disk of the user.
func isOfThisMachine(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	ours := []string{
		"CDB_DISK", "CDB_FIRMWARE", "CDB_USER_DATA", "CDB_TARBALL", "CDB_DISK_PINNED", howto.Env, tools.PinnedEnv, tools.ReleasesEnv,
	}
	return slices.Contains(ours, name) ||
		slices.ContainsFunc(tools.All, func(t tools.Tool) bool { return t.Env == name })
}
