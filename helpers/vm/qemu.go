//go:build linux

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/slowness"
	"cdblab/helpers/vm/protocol"
)

// platform holds the settings that depend on the architecture.
type platform struct {
	program, pkg string
	machine      string
	console      string // the kernel's name of the first serial port
	cpu          string // under emulation
	boot         string // words for the kernel's command line, under emulation
	noBIOS       bool   // QEMU has no firmware of its own for the machine
}

var platforms = map[string]platform{
	// Not microvm: under emulation its timer calibration hangs sometimes. Not -cpu max: it was slower than qemu64.
	"amd64": {"qemu-system-x86_64", "qemu-system-x86", "q35", "ttyS0", "qemu64", emulatedX86, false},
	"arm64": {"qemu-system-aarch64", "qemu-system-arm", "virt,gic-version=max", "ttyAMA0", "max", "", true},
}

// On a busy host the emulated timer may be late. Then the kernel takes it for broken, and panics: "IO-APIC + timer doesn't
// work!" (seen with Linux 6.1 beside two busy processes). Under KVM the kernel itself leaves that check out.
const emulatedX86 = "no_timer_check "

// minQEMUMajor is the oldest major version of QEMU that is known to work: 5.0, of 2020.
const minQEMUMajor = 5

// qemu is the QEMU of this machine.
type qemu struct {
	platform
	path    string
	version string
}

func findQEMU(ctx context.Context) (*qemu, error) {
	p, ok := platforms[runtime.GOARCH]
	if !ok {
		return nil, &Fault{Tried: "choose a machine type", Seen: "the lab has none for " + runtime.GOARCH, Do: "run the lab in your own disposable machine: make lab-here"}
	}
	install := "install it: make deps, or your distribution's " + p.pkg
	path, err := exec.LookPath(p.program)
	if err != nil {
		return nil, &Fault{Tried: "find " + p.program, Seen: "it is not on PATH", Do: install}
	}
	out, err := runHelper(ctx, quickLimit, nil, path, "--version")
	if err != nil {
		return nil, &Fault{Tried: path + " --version", Seen: err.Error(), Do: install}
	}
	q := &qemu{platform: p, path: path, version: parseVersion(string(out))}
	major, _, _ := strings.Cut(q.version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < minQEMUMajor {
		first, _, _ := strings.Cut(string(out), "\n")
		return nil, &Fault{Tried: path + " --version", Seen: fmt.Sprintf("it prints %q", first), Do: fmt.Sprintf("the lab needs QEMU %d.0 or later: %s", minQEMUMajor, install)}
	}
	return q, nil
}

// parseVersion returns 7.2.22 for "QEMU emulator version 7.2.22 (Debian …)".
func parseVersion(out string) string {
	_, after, _ := strings.Cut(out, "version ")
	v, _, _ := strings.Cut(after, "\n")
	v, _, _ = strings.Cut(v, " ")
	return v
}

// machine is a running QEMU, and our ends of the guest's serial ports.
type machine struct {
	cmd     *exec.Cmd
	console *tailBuffer
	stderr  *tailBuffer            // bounded, and read while QEMU still writes
	ports   map[string]*connection // by the port's name; "console" is the console
	exited  chan struct{}          // closed when QEMU has ended
	err     error                  // how QEMU ended
	mu      sync.Mutex             // held while the process group is killed, or QEMU is reaped
	reaped  bool                   // QEMU's process group may be another one's by now

	emulated bool
	memory   int // MiB

	available, spare int // MiB of memory that the guest had left: at its last heartbeat, and at least; 0 before the first
}

// machineDisks are the images that a machine boots from.
type machineDisks struct {
	initrd *os.File
	tools  *os.File // nil for a minimalBoot
	work   *os.File // nil for a minimalBoot
}

// start starts QEMU with a kernel. init is an argument for the guest's pid 1; ports are the names of the virtio serial ports.
func (q *qemu) start(conf Config, k *kernel, disks machineDisks, init string, ports ...string) (*machine, error) {
	l := newLaunch()
	l.add(
		"-nic", "none",
		// A guest that panics resets (panic=-1), and a reset ends QEMU.
		"-no-reboot",
		"-machine", q.machine, "-cpu", q.cpuModel(conf, q.cpu),
		"-kernel", k.image, "-initrd", l.pass(disks.initrd), "-append", q.kernelCommandLine(conf.Accel, init),
	)
	for _, d := range []struct {
		serial string
		file   *os.File
	}{{protocol.ToolsDisk, disks.tools}, {protocol.WorkDisk, disks.work}} {
		if d.file != nil {
			l.addReadOnlyDisk(d.serial, d.file)
		}
	}
	return q.launch(conf, l, ports)
}

// cpuModel returns the model of the guest's processor. Under KVM it is that of the host.
func (q *qemu) cpuModel(conf Config, emulated string) string {
	if conf.Accel == "kvm" {
		return "host"
	}
	return emulated
}

// launch is a command line for QEMU, and the files that it names. QEMU gets each file as an open one. So nothing is left behind,
// whichever process is killed.
type launch struct {
	args  []string
	files []*os.File
	env   []string
}

// newLaunch returns a command line without arguments. The first file is the guest's console.
func newLaunch() *launch { return &launch{files: []*os.File{nil}} }

func (l *launch) add(args ...string) { l.args = append(l.args, args...) }

// pass returns the name that an open file has in QEMU.
func (l *launch) pass(f *os.File) string {
	l.files = append(l.files, f)
	return "/dev/fd/" + strconv.Itoa(2+len(l.files))
}

func (l *launch) addReadOnlyDisk(serial string, f *os.File) {
	l.add("-drive", "if=none,format=raw,readonly=on,id="+serial+",file="+l.pass(f),
		"-device", "virtio-blk-pci,drive="+serial+",serial="+serial)
}

// launch starts QEMU, with a console on the first serial port.
func (q *qemu) launch(conf Config, l *launch, ports []string) (m *machine, err error) {
	m = &machine{
		console: new(tailBuffer), stderr: new(tailBuffer), ports: map[string]*connection{}, exited: make(chan struct{}),
		emulated: conf.Accel == "tcg", memory: conf.Memory,
	}
	if os.Getenv("CDB_VM_CONSOLE") == "1" {
		m.console.copy = os.Stderr
	}
	connect := func(name string) (*os.File, error) {
		conn, err := newConnection(name)
		if err != nil {
			return nil, err
		}
		m.ports[name] = conn
		return conn.qemuEnd, nil
	}
	defer func() {
		for _, conn := range m.ports {
			conn.qemuEnd.Close() // QEMU has its own copy by now. With ours closed, the end of QEMU ends the connection.
			if err != nil {
				conn.Close()
			}
		}
	}()
	if l.files[0], err = connect("console"); err != nil {
		return nil, err
	}
	l.add(
		"-nodefaults", "-no-user-config", "-display", "none",
		"-accel", conf.Accel, "-smp", strconv.Itoa(conf.CPUs), "-m", strconv.Itoa(conf.Memory),
		"-chardev", "socket,id=console,fd=3", "-serial", "chardev:console",
	)
	if len(ports) > 0 {
		l.add("-device", "virtio-serial-pci")
	}
	for i, name := range ports {
		end, err := connect(name)
		if err != nil {
			return nil, err
		}
		id, fd := "port"+strconv.Itoa(i), strings.TrimPrefix(l.pass(end), "/dev/fd/")
		l.add("-chardev", "socket,id="+id+",fd="+fd, "-device", "virtserialport,chardev="+id+",name="+name)
	}
	m.cmd = exec.Command(q.path, l.args...)
	m.cmd.ExtraFiles = l.files
	if l.env != nil {
		m.cmd.Env = append(os.Environ(), l.env...)
	}
	m.cmd.Stderr = m.stderr
	m.cmd.WaitDelay = time.Second // a process that left the group may hold stderr open
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, // the guest does not outlive the wrapper, however the wrapper dies
		Setpgid:   true,            // Ctrl-C goes to the wrapper only, which then ends QEMU
	}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the child ends. So this thread has to live as long as
		// the child: it waits for the child.
		runtime.LockOSThread()
		err := m.cmd.Start()
		started <- err
		if err == nil {
			m.waitAndReap()
			close(m.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, &Fault{Tried: "start " + q.path, Seen: err.Error(), Do: "check that it runs: " + q.path + " --version"}
	}
	startCopy(m.ports["console"], m.console)
	return m, nil
}

// kernelCommandLine returns the kernel's command line.
func (q *qemu) kernelCommandLine(accel, init string) string {
	line := fmt.Sprintf("console=%s quiet panic=-1 %s=%d ", q.console, protocol.SlownessEnv, slowness.Factor())
	if accel == "tcg" {
		// An emulated processor does not speculate, and the kernel's mitigations cost a tenth of the time.
		line += "mitigations=off " + q.boot
	}
	line += os.Getenv("CDB_VM_APPEND")
	if init != "" {
		line += " -- " + init
	}
	return line
}

// waitAndReap waits until QEMU has ended, and ends what is left of its process group: a QEMU that is a script may have
// started other processes, which hold our files open.
func (m *machine) waitAndReap() {
	for {
		// WNOWAIT leaves the zombie: as long as it is there, no other process group can have its number.
		if err := unix.Waitid(unix.P_PID, m.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			break
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killGroup()
	m.err = m.cmd.Wait()
	m.reaped = true
}

// killGroup kills QEMU's process group. The caller holds m.mu, and QEMU is not reaped.
func (m *machine) killGroup() { _ = syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL) }

// kill kills QEMU and the processes that it started, and waits until it has ended.
func (m *machine) kill() {
	m.mu.Lock()
	if !m.reaped {
		m.killGroup()
	}
	m.mu.Unlock()
	<-m.exited
	for _, conn := range m.ports {
		conn.Close()
	}
}

// silence returns how long the guest may be silent. A host that is busy, or that is itself a VM, may stop an emulated guest for a
// minute; the tests of a guest that hangs have their own -timeout.
func (m *machine) silence() time.Duration {
	if m.emulated {
		return 3 * silenceTimeout
	}
	return silenceTimeout
}

// heartbeat notes how much memory the guest has left.
func (m *machine) heartbeat(available int) {
	if m.available = available; m.spare == 0 || available < m.spare {
		m.spare = available
	}
}

// again is what to do if nothing is known about the reason.
const again = "run it again"

// fault returns a Fault for a machine that failed before it reported how the command ended. The console and QEMU's stderr
// may show a better reason than seen.
func (m *machine) fault(tried, seen, do string) *Fault {
	console := m.console.String()
	if stderr := strings.TrimSpace(m.stderr.String()); stderr != "" {
		seen += "; QEMU reports: " + stderr
	}
	switch {
	case strings.Contains(console, "Out of memory"), strings.Contains(console, "System is deadlocked on memory"):
		seen, do = "the guest ran out of memory", moreMemory(m.memory)
	case strings.Contains(console, "Kernel panic"):
		_, why, _ := strings.Cut(console, "Kernel panic")
		why, _, _ = strings.Cut(why, "\n")
		seen = "the guest's kernel panicked" + strings.TrimRight(why, "\r")
	}
	if m.spare > 0 {
		seen += fmt.Sprintf(" (at its last sign of life it had %d MB of memory left, and never less than %d before)", m.available, m.spare)
	}
	if 0 < m.spare && m.spare < lowMemory && (do == "" || strings.HasPrefix(do, again)) { // any other remedy is for a known reason
		do = moreMemory(m.memory)
	}
	return &Fault{Tried: tried, Seen: seen, Do: do, Console: lastLines(console, 25)}
}

// moreMemory says what to do about a guest for which so many MiB were too few.
func moreMemory(memory int) string { return fmt.Sprintf("give it more memory: MEM=%d", 2*memory) }

// exitState returns how QEMU ended, or that it still runs.
func (m *machine) exitState() string {
	select {
	case <-m.exited:
	default:
		return "QEMU still runs"
	}
	if exit, ok := errors.AsType[*exec.ExitError](m.err); ok {
		return "QEMU ended: " + exit.Error()
	}
	return "QEMU ended by itself"
}

// lastLines returns the last n lines of the console, without the control characters that clear the screen of a serial
// console.
func lastLines(console string, n int) string {
	console = strings.Map(func(r rune) rune {
		if isControlCharacter(r) {
			return -1
		}
		return r
	}, console)
	lines := strings.Split(strings.TrimSpace(console), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
