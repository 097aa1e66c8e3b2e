//go:build linux

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"cdblab/helpers/vm/protocol"
)

// A guest under KVM answers within a second. A guest that KVM cannot run never answers.
var probeTimeout = 10 * time.Second

// How long it is remembered that KVM does not work. The reason may go away without a reboot (another hypervisor uses the
// processor's virtualisation, the host is too busy for a boot within probeTimeout), and a probe costs ten seconds at most.
const noKVMAge = time.Hour

// chooseAccelerator returns kvm or tcg (emulation). It logs why KVM is not used. want is auto, kvm or tcg.
//
// That /dev/kvm can be opened proves nothing: in a VM without nested virtualisation, or where that is broken, the guest
// spins for ever. So KVM has to boot a guest once. The result is kept until QEMU or the host's kernel changes, or the
// host boots again; that KVM does not work is kept for an hour at most.
func (c *Cache) chooseAccelerator(ctx context.Context, q *qemu, want string, probe func(context.Context) error,
	log func(string, ...any),
) (string, error) {
	if want == "tcg" {
		return "tcg", nil
	}
	problem := openKVM()
	if problem == "" {
		problem = c.probeKVM(ctx, q, probe, log)
	}
	switch cause := context.Cause(ctx); {
	case cause != nil: // a probe boot that was stopped says nothing about KVM
		return "", cause
	case problem == "":
		return "kvm", nil
	case want == "kvm":
		return "", &Fault{Tried: "use KVM, because ACCEL=kvm", Seen: problem, Do: "use ACCEL=auto, which falls back to emulation, or ACCEL=tcg"}
	}
	log("KVM is not used: %s. Emulation is slower, with the same results", problem)
	return "tcg", nil
}

// openKVM returns why /dev/kvm can't be opened, or "".
func openKVM() (problem string) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	f.Close()
	return ""
}

// probeKVM returns why KVM can't be used, or "". probe boots a guest with KVM.
func (c *Cache) probeKVM(ctx context.Context, q *qemu, probe func(context.Context) error, log func(string, ...any)) string {
	type verdict struct {
		Key, Problem string
		Time         time.Time
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	host, _ := os.ReadFile("/proc/version")
	key := fmt.Sprintf("%s %s\n%s%s", q.path, q.version, host, boot)
	file := c.path("kvm.json")
	var v verdict
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &v) == nil && v.Key == key {
		if v.Problem == "" {
			return ""
		}
		if age := time.Since(v.Time); age >= 0 && age < noKVMAge {
			return v.Problem + " (result of an earlier probe; remove " + file + " to probe again)"
		}
	}
	log("checking whether KVM works here: a probe boot of at most %v", probeTimeout)
	v = verdict{Key: key, Time: time.Now()}
	if err := probe(ctx); err != nil {
		v.Problem = "a probe boot with it failed: " + err.Error()
		if _, ok := errors.AsType[*noAnswerError](err); !ok {
			return v.Problem // this says nothing about KVM: for example the disk is full, or the run was stopped
		}
	}
	if b, err := json.Marshal(v); err == nil {
		_ = renameio.WriteFile(file, b, 0o644, renameio.WithTempDir(c.dir))
	}
	return v.Problem
}

// noAnswerError is the error of a probe boot in which QEMU started, and the guest did not answer.
type noAnswerError struct{ seen string }

func (e *noAnswerError) Error() string { return e.seen }

// probe returns a function that boots the kernel with KVM.
func (q *qemu) probe(k *kernel, init string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := minimalBoot(ctx, q, Config{Memory: 256, CPUs: 1, Accel: "kvm"}, k, init, probeTimeout)
		return err
	}
}

// firmwareBoot boots a machine without a disk with KVM, and waits until its firmware writes something to the serial port.
func firmwareBoot(ctx context.Context, q *qemu, timeout time.Duration) error {
	l := newLaunch()
	l.add("-machine", q.machine+",graphics=off", "-cpu", "host", "-nic", "none")
	if q.noBIOS { // the machine would be silent, also with a KVM that works
		f, err := q.findUEFI()
		if err != nil {
			return err
		}
		l.add("-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+escapeCommas(f.code))
	}
	m, err := q.launch(Config{Memory: 128, CPUs: 1, Accel: "kvm"}, l, nil)
	if err != nil {
		return err
	}
	defer m.kill()
	deadline := time.After(timeout)
	for m.console.String() == "" {
		select {
		case <-m.exited:
			firstLine, _, _ := strings.Cut(strings.TrimSpace(m.stderr.String()), "\n")
			return &noAnswerError{m.exitState() + ": " + firstLine}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline:
			return &noAnswerError{fmt.Sprintf("the firmware was silent for %v", timeout)}
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// minimalBoot boots the kernel with a pid 1 that prints one line and resets the machine. It returns how long it took until
// QEMU had ended: the lowest cost of a VM.
func minimalBoot(ctx context.Context, q *qemu, conf Config, k *kernel, init string, timeout time.Duration) (time.Duration, error) {
	program, err := os.ReadFile(init)
	if err != nil {
		return 0, err
	}
	a := new(cpioArchive)
	a.add("dev", 0o040755, nil)
	a.add("dev/console", 0o020600, nil)
	a.add("init", 0o100755, program)
	initrd, err := unnamedFile(os.TempDir(), a.bytes())
	if err != nil {
		return 0, err
	}
	defer initrd.Close()
	start := time.Now()
	m, err := q.start(conf, k, machineDisks{initrd: initrd}, protocol.ProbeArgument)
	if err != nil {
		return 0, err
	}
	defer m.kill()
	select {
	case <-m.exited:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(timeout):
		return 0, &noAnswerError{fmt.Sprintf("the guest was silent for %v", timeout)}
	}
	took := time.Since(start)
	// QEMU has ended, and its last output is still in the buffer of the connection. The reader needs a moment to read it.
	for range 100 {
		if strings.Contains(m.console.String(), protocol.ProbeReply) {
			return took, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	// QEMU's first line is enough. If KVM is broken, the text of a failed assertion follows.
	firstLine, _, _ := strings.Cut(strings.TrimSpace(m.stderr.String()), "\n")
	seen := fmt.Sprintf("%s before the guest answered: %s", m.exitState(), firstLine)
	if exit, ok := errors.AsType[*exec.ExitError](m.err); ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return 0, errors.New(seen) // another process killed QEMU, or the host ran out of memory
	}
	return 0, &noAnswerError{seen}
}
