package vm

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
)

// Config is the machine that is wanted.
type Config struct {
	Kernel string // a version of the distribution's cloud kernel (6.1), a path, or "" for the distribution's default
	Cgroup string // v2, v1 or hybrid
	Memory int    // MiB
	CPUs   int    // 0: two, where there are two
	Accel  string // auto, kvm or tcg
}

// Flags adds a flag for each field. Their defaults come from CDB_KERNEL, CDB_CGROUP, CDB_MEM, CDB_CPUS and CDB_ACCEL,
// because go test -exec is not a place to write flags in by hand.
func (c *Config) Flags(set *flag.FlagSet) {
	env := func(name, otherwise string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		} else if os.Getenv(name) != "" {
			return -1 // check says what is wrong with it
		}
		return otherwise
	}
	set.StringVar(&c.Kernel, "kernel", env("CDB_KERNEL", ""), "kernel: a version of the distribution's cloud kernel (6.1, 6.12), or a path")
	set.StringVar(&c.Cgroup, "cgroup", env("CDB_CGROUP", "v2"), "cgroup mode: v2, v1 or hybrid")
	set.IntVar(&c.Memory, "mem", number("CDB_MEM", 512), "memory in MiB")
	set.IntVar(&c.CPUs, "cpus", number("CDB_CPUS", 0), "number of CPUs; 0 is 2, where there are two")
	set.StringVar(&c.Accel, "accel", env("CDB_ACCEL", "auto"), "accelerator: auto, kvm or tcg (emulation)")
}

func (c *Config) check() error {
	bad := func(what, seen, do string) error {
		return &Fault{Tried: "read the settings of the VM", Seen: fmt.Sprintf("%s is %s", what, seen), Do: do}
	}
	switch c.Cgroup {
	case "v2", "v1", "hybrid":
	default:
		return bad("CGROUP", strconv.Quote(c.Cgroup), "take v2, v1 or hybrid")
	}
	switch c.Accel {
	case "auto", "kvm", "tcg":
	default:
		return bad("ACCEL", strconv.Quote(c.Accel), "take auto, kvm or tcg")
	}
	if c.Memory < 128 || c.Memory > 1<<20 {
		return bad("MEM", "no number of MiB from 128 up", "take 512, which is enough for the whole lab")
	}
	if c.CPUs < 0 || c.CPUs > 64 {
		return bad("CPUS", "no number from 0 to 64", fmt.Sprintf("this machine has %d", runtime.NumCPU()))
	}
	return nil
}

// cpus settles what was left open: two CPUs, where there are two. More than there are would only wait for each other, and
// two emulated ones already do on a busy host: on a quiet one with two cores the five questions took 53 s with two of them
// and 60 s with one, beside a busy core 108 s and 71 s.
//
// One, where the freezer of cgroup v1 is emulated: the kernel patches its own code each time that it begins or ends to be
// used, and an emulated second CPU was seen to go on with the code of before, in get_signal, for ever (Linux 6.1, QEMU
// 7.2; three of three runs of all questions). The freezer of v2 patches nothing.
func (c *Config) cpus(accel string) {
	if c.CPUs != 0 {
		return
	}
	c.CPUs = min(2, runtime.NumCPU())
	if accel == "tcg" && c.Cgroup != "v2" {
		c.CPUs = 1
	}
}
