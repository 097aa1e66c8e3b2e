//go:build linux

package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"cdblab/helpers/vm/wire"
)

// patience with the probe boot. A guest under KVM says its word within a second; one that can't never does.
const probePatience = 10 * time.Second

// accelerator decides between KVM and emulation, and says why.
//
// That /dev/kvm opens proves nothing: in a VM without nested virtualisation, or with a broken one, the guest spins for
// ever. So KVM has to boot a guest once. The verdict is kept until QEMU, the host's kernel or the boot changes.
func (c *Cache) accelerator(q *qemu, conf *Config, k *Kernel, init string, say func(string, ...any)) (string, error) {
	if conf.Accel == "tcg" {
		return "tcg", nil
	}
	why := ""
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		why = err.Error()
	} else {
		f.Close()
		why = c.probe(q, k, init, say)
	}
	switch {
	case why == "":
		return "kvm", nil
	case conf.Accel == "kvm":
		return "", &Fault{Tried: "use KVM, because ACCEL=kvm", Seen: why, Do: "take ACCEL=auto, which falls back to emulation, or ACCEL=tcg"}
	}
	say("KVM is not used, emulation is slower and right: %s", why)
	return "tcg", nil
}

// probe returns why KVM can't be used, or "".
func (c *Cache) probe(q *qemu, k *Kernel, init string, say func(string, ...any)) string {
	type verdict struct{ Key, Why string }
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	host, _ := os.ReadFile("/proc/version")
	key := fmt.Sprintf("%s %s\n%s%s", q.path, q.version, host, boot)
	file := c.path("kvm.json")
	var v verdict
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &v) == nil && v.Key == key {
		if v.Why != "" {
			return v.Why + " (found by an earlier probe; remove .lab/vm/kvm.json to probe again)"
		}
		return ""
	}
	say("probing whether KVM works here, for at most %v", probePatience)
	v = verdict{Key: key}
	if _, err := bareBoot(q, &Config{Memory: 256, CPUs: 1}, "kvm", k, init, probePatience); err != nil {
		v.Why = "a probe boot with it failed: " + err.Error()
	}
	if b, err := json.Marshal(v); err == nil {
		_ = renameio.WriteFile(file, b, 0o644, renameio.WithTempDir(c.dir))
	}
	return v.Why
}

// bareBoot boots the kernel with a pid 1 that says one word and resets, and returns how long it took until QEMU was
// gone. It is the least that a VM can cost.
func bareBoot(q *qemu, c *Config, accel string, k *Kernel, init string, patience time.Duration) (time.Duration, error) {
	program, err := os.ReadFile(init)
	if err != nil {
		return 0, err
	}
	a := new(archive)
	a.add("dev", 0o040755, nil)
	a.add("dev/console", 0o020600, nil)
	a.add("init", 0o100755, program)
	initrd, err := anonymous(os.TempDir(), a.bytes())
	if err != nil {
		return 0, err
	}
	defer initrd.Close()
	start := time.Now()
	m, err := q.start(c, accel, k, initrd, nil, nil, wire.Probe)
	if err != nil {
		return 0, err
	}
	defer m.kill()
	select {
	case <-m.exited:
	case <-time.After(patience):
		return 0, fmt.Errorf("the guest was silent for %v", patience)
	}
	took := time.Since(start)
	// QEMU is gone, and what it wrote is in the channel's buffer; give the reader the moment to take it out.
	for range 100 {
		if strings.Contains(m.console.String(), wire.ProbeWord) {
			return took, nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	// One line of QEMU's is enough; an assertion of its follows where KVM is broken.
	said, _, _ := strings.Cut(strings.TrimSpace(m.errors.String()), "\n")
	return 0, fmt.Errorf("%s before the guest said a word: %s", m.state(), said)
}

// anonymous is a file without a name, that goes when nobody has it open any more.
func anonymous(dir string, content []byte) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".lab-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
