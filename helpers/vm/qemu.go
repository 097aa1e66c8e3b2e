//go:build linux

package vm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"cdblab/helpers/vm/wire"
)

// platform is what differs from one architecture to another.
type platform struct {
	program, pkg string
	machine      string
	console      string // the kernel's name of the first serial port
	cpu          string // under emulation
}

var platforms = map[string]platform{
	// Not microvm: under emulation its timer calibration hangs now and then. Not -cpu max: it was slower than qemu64.
	"amd64": {"qemu-system-x86_64", "qemu-system-x86", "q35", "ttyS0", "qemu64"},
	"arm64": {"qemu-system-aarch64", "qemu-system-arm", "virt,gic-version=max", "ttyAMA0", "max"},
}

// oldest is the first major version of QEMU that this is known to work with: 5.0 of 2020.
const oldest = 5

// qemu is the program, looked at once.
type qemu struct {
	platform
	path    string
	version string
}

func findQEMU() (*qemu, error) {
	p, ok := platforms[runtime.GOARCH]
	if !ok {
		return nil, &Fault{Tried: "choose a machine", Seen: "the lab knows none for " + runtime.GOARCH, Do: "run the lab in a disposable machine of your own: make lab-here"}
	}
	install := "install it: make deps, or your distribution's " + p.pkg
	path, err := exec.LookPath(p.program)
	if err != nil {
		return nil, &Fault{Tried: "find " + p.program, Seen: "it is not on PATH", Do: install}
	}
	out, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return nil, &Fault{Tried: path + " --version", Seen: err.Error() + ": " + lastLine(out), Do: install}
	}
	q := &qemu{platform: p, path: path, version: parseVersion(string(out))}
	major, _, _ := strings.Cut(q.version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldest {
		first, _, _ := strings.Cut(string(out), "\n")
		return nil, &Fault{Tried: path + " --version", Seen: fmt.Sprintf("it says %q", first), Do: fmt.Sprintf("the lab needs QEMU %d.0 or later: %s", oldest, install)}
	}
	return q, nil
}

// parseVersion finds 7.2.22 in "QEMU emulator version 7.2.22 (Debian …)".
func parseVersion(out string) string {
	_, after, _ := strings.Cut(out, "version ")
	v, _, _ := strings.Cut(after, "\n")
	v, _, _ = strings.Cut(v, " ")
	return v
}

// machine is one QEMU that runs, and the ends of its channels.
type machine struct {
	cmd      *exec.Cmd
	console  *record
	errors   *bytes.Buffer
	channels map[string]*channel
	exited   chan struct{} // closed when QEMU is gone
	err      error         // how it ended
}

// start boots. Root and work may be nil, for a boot that only proves that it can.
func (q *qemu) start(c *Config, accel string, k *Kernel, initrd *os.File, root, work *os.File, init string, ports ...string) (m *machine, err error) {
	cpu := q.cpu
	if accel == "kvm" {
		cpu = "host"
	}
	m = &machine{console: new(record), errors: new(bytes.Buffer), channels: map[string]*channel{}, exited: make(chan struct{})}
	if os.Getenv("CDB_VM_CONSOLE") != "" {
		m.console.copy = os.Stderr
	}
	var files []*os.File
	// A file that QEMU gets as an open one: nothing to leave behind, whoever is killed.
	give := func(f *os.File) string {
		files = append(files, f)
		return strconv.Itoa(2 + len(files))
	}
	open := func(name string) (string, error) {
		ch, err := newChannel(name)
		if err != nil {
			return "", err
		}
		m.channels[name] = ch
		return give(ch.theirs), nil
	}
	defer func() {
		for _, ch := range m.channels {
			ch.theirs.Close() // QEMU has its own by now, and only then does the end of QEMU end the channel
			if err != nil {
				ch.Close()
			}
		}
	}()
	console, err := open("console")
	if err != nil {
		return nil, err
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-nic", "none",
		// A guest that panics resets (panic=-1), and a reset ends QEMU.
		"-no-reboot",
		"-machine", q.machine, "-accel", accel, "-cpu", cpu, "-smp", strconv.Itoa(c.CPUs), "-m", strconv.Itoa(c.Memory),
		"-kernel", k.Image, "-initrd", "/dev/fd/" + give(initrd), "-append", q.commandLine(accel, init),
		"-chardev", "socket,id=console,fd=" + console, "-serial", "chardev:console",
	}
	if len(ports) > 0 {
		args = append(args, "-device", "virtio-serial-pci")
	}
	for i, name := range ports {
		fd, err := open(name)
		if err != nil {
			return nil, err
		}
		id := "port" + strconv.Itoa(i)
		args = append(args, "-chardev", "socket,id="+id+",fd="+fd, "-device", "virtserialport,chardev="+id+",name="+name)
	}
	for _, d := range []struct {
		serial string
		file   *os.File
	}{{wire.RootDisk, root}, {wire.WorkDisk, work}} {
		if d.file != nil {
			args = append(args, "-drive", "if=none,format=raw,readonly=on,id="+d.serial+",file=/dev/fd/"+give(d.file),
				"-device", "virtio-blk-pci,drive="+d.serial+",serial="+d.serial)
		}
	}
	m.cmd = exec.Command(q.path, args...)
	m.cmd.ExtraFiles = files
	m.cmd.Stderr = m.errors
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // the guest does not outlive the wrapper, however that dies
		Setpgid:   true,            // Ctrl-C is for the wrapper, which then ends QEMU
	}
	started := make(chan error)
	go func() {
		// The signal comes when the thread dies that started the child, so that thread has to live as long as the
		// child: it waits for it.
		runtime.LockOSThread()
		err := m.cmd.Start()
		started <- err
		if err == nil {
			m.err = m.cmd.Wait()
			close(m.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, &Fault{Tried: "start " + q.path, Seen: err.Error(), Do: "see that it runs: " + q.path + " --version"}
	}
	newStream(m.channels["console"], m.console)
	return m, nil
}

func (q *qemu) commandLine(accel, init string) string {
	line := "console=" + q.console + " quiet panic=-1 "
	if accel == "tcg" {
		// An emulated processor does not speculate, and what the kernel does against that costs a tenth of the time.
		line += "mitigations=off "
	}
	line += os.Getenv("CDB_VM_APPEND")
	if init != "" {
		line += " -- " + init
	}
	return line
}

// kill pulls the plug and waits until QEMU is gone.
func (m *machine) kill() {
	_ = m.cmd.Process.Kill()
	<-m.exited
	for _, ch := range m.channels {
		ch.Close()
	}
}

// fault explains how a machine ended that had not said its last word.
func (m *machine) fault(tried, seen, do string) *Fault {
	console := m.console.String()
	if said := strings.TrimSpace(m.errors.String()); said != "" {
		seen += "; QEMU says: " + said
	}
	switch {
	case strings.Contains(console, "Out of memory"), strings.Contains(console, "System is deadlocked on memory"):
		seen, do = "the guest ran out of memory", "give it more: MEM=1024"
	case strings.Contains(console, "Kernel panic"):
		_, why, _ := strings.Cut(console, "Kernel panic")
		why, _, _ = strings.Cut(why, "\n")
		seen = "the guest's kernel panicked" + strings.TrimRight(why, "\r")
	}
	return &Fault{Tried: tried, Seen: seen, Do: do, Console: tail(console, 25)}
}

// state is how QEMU ended, or that it runs.
func (m *machine) state() string {
	select {
	case <-m.exited:
	default:
		return "QEMU still runs"
	}
	var exit *exec.ExitError
	if errors.As(m.err, &exit) {
		return "QEMU ended: " + exit.Error()
	}
	return "QEMU ended by itself"
}
