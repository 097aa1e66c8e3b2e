//go:build linux

package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"cdblab/helpers/vm/protocol"
)

// A guest under KVM answers within a second. A guest that KVM cannot run never answers.
const probeTimeout = 10 * time.Second

// chooseAccelerator returns kvm or tcg (emulation). It logs why KVM is not used. want is auto, kvm or tcg.
//
// That /dev/kvm can be opened proves nothing: in a VM without nested virtualisation, or where that is broken, the guest
// spins for ever. So KVM has to boot a guest once. The result is kept until QEMU or the host's kernel changes, or the
// host boots again.
func (c *Cache) chooseAccelerator(ctx context.Context, q *qemu, want string, k *kernel, init string, log func(string, ...any)) (string, error) {
	if want == "tcg" {
		return "tcg", nil
	}
	problem := ""
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		problem = err.Error()
	} else {
		f.Close()
		problem = c.probeKVM(ctx, q, k, init, log)
	}
	switch {
	case problem == "":
		return "kvm", nil
	case want == "kvm":
		return "", &Fault{Tried: "use KVM, because ACCEL=kvm", Seen: problem, Do: "use ACCEL=auto, which falls back to emulation, or ACCEL=tcg"}
	}
	log("KVM is not used: %s. Emulation is slower, with the same results", problem)
	return "tcg", nil
}

// probeKVM returns why KVM can't be used, or "".
func (c *Cache) probeKVM(ctx context.Context, q *qemu, k *kernel, init string, log func(string, ...any)) string {
	type verdict struct{ Key, Problem string }
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	host, _ := os.ReadFile("/proc/version")
	key := fmt.Sprintf("%s %s\n%s%s", q.path, q.version, host, boot)
	file := c.path("kvm.json")
	var v verdict
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &v) == nil && v.Key == key {
		if v.Problem != "" {
			return v.Problem + " (result of an earlier probe; remove .lab/vm/kvm.json to probe again)"
		}
		return ""
	}
	log("checking whether KVM works here: a probe boot of at most %v", probeTimeout)
	v = verdict{Key: key}
	if _, err := minimalBoot(ctx, q, Config{Memory: 256, CPUs: 1, Accel: "kvm"}, k, init, probeTimeout); err != nil {
		v.Problem = "a probe boot with it failed: " + err.Error()
	}
	if b, err := json.Marshal(v); err == nil {
		_ = renameio.WriteFile(file, b, 0o644, renameio.WithTempDir(c.dir))
	}
	return v.Problem
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
		return 0, fmt.Errorf("the guest was silent for %v", timeout)
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
	return 0, fmt.Errorf("%s before the guest answered: %s", m.exitState(), firstLine)
}
