//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/reference"

	"cdblab/helpers/host"
	"cdblab/helpers/howto"
	"cdblab/helpers/slowness"
	"cdblab/helpers/tools"
)

// The environment variables that a run reads, except those of the programs under test, which helpers/tools has. README.md
// explains them.
const (
	disposableEnv = "CDB_DISPOSABLE"    // "yes": the lab may change this machine
	imageEnv      = "CDB_IMAGE"         // the reference of another image
	keepEnv       = "CDB_KEEP"          // whose state is kept, so that a reader can look at it: "1" of all questions, "failed"
	registryEnv   = "CDB_REGISTRY_ADDR" // the address of the registry, for a machine on which only certain ports may be used
	requireEnv    = "CDB_REQUIRE"       // "all": a skip is a failure, unless the table of [MaySkip] has it
	stepEnv       = "CDB_STEP"          // "1": stop at each step, for a reader at a terminal
	timeoutEnv    = "CDB_TIMEOUT"       // how long one command, or one wait, may take
)

// defaultTimeout is how long one command, or one wait, may take on a quiet machine. None takes a tenth of it. On a slow machine it is
// longer by the factor of [slowness.Scale].
const defaultTimeout = time.Minute

// CheckSettings returns an error for each variable that has a value without a meaning. A value that would be ignored is worse
// than an error: the user would believe that it holds.
func CheckSettings() (seen string, err error) {
	_, errKeep := parseKeep(os.Getenv(keepEnv))
	_, errTimeout := parseTimeout(os.Getenv(timeoutEnv))
	return "every CDB_ variable has a meaning", errors.Join(checkNames(os.Environ()), errKeep, errTimeout,
		checkWord(disposableEnv, "yes", "no"), checkWord(requireEnv, "all"), checkWord(stepEnv, "1", "0"),
		checkWord("CDB_DISK_PINNED", "1", "0"), checkPinned(os.Getenv(tools.PinnedEnv)), checkReleases(os.Getenv(tools.ReleasesEnv)),
		checkImage(os.Getenv(imageEnv)), checkRegistryAddr(os.Getenv(registryEnv)), checkUnset("CDB_JANITOR"))
}

// settings are the variables that a user may set: docs/settings.md has them. Those of the VM mean nothing here, but are handed on.
var settings = strings.Fields(`
	CDB_RUNC CDB_CONTAINERD CDB_CTR CDB_SHIM CDB_RELEASES CDB_BUSYBOX CDB_IMAGE CDB_KEEP CDB_REQUIRE CDB_DISPOSABLE CDB_PINNED CDB_TIMEOUT
	CDB_STEP CDB_REGISTRY_ADDR CDB_KERNEL CDB_MODULES CDB_CGROUP CDB_MEM CDB_CPUS CDB_ACCEL CDB_DISK CDB_FIRMWARE CDB_USER_DATA
	CDB_DISK_PINNED CDB_VM_CONSOLE CDB_VM_APPEND`)

// internal are the variables that the lab's own programs and tests set, beside CDB_TEST_X and [tools.Tool.PackageEnv]. CDB_JANITOR has
// an error of its own.
var internal = []string{howto.Env, host.OwnerEnv, "CDB_TARBALL", "CDB_BOOTS", "CDB_HOGS", "CDB_SELFTEST", "CDB_JANITOR"}

// checkNames returns an error for each CDB_ variable of an environment that the lab does not know: its name may have a slip.
func checkNames(environ []string) error {
	known := slices.Concat(settings, internal)
	for _, t := range tools.All {
		known = append(known, t.Env, t.PackageEnv())
	}
	var errs []error
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "CDB_") && !strings.HasPrefix(name, "CDB_TEST_") && !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("%s has no meaning: the lab reads no variable of this name\n  Unset it:   unset %s\n"+
				"  The variables are %s", variable, name, strings.Join(settings, ", ")))
		}
	}
	return errors.Join(errs...)
}

// checkUnset returns an error if the variable is set. An older version of the lab read it, and answered no question then.
func checkUnset(variable string) error {
	if value := os.Getenv(variable); value != "" {
		return fmt.Errorf("%s=%s has no meaning: a run starts its janitor by itself\n  Unset it:   unset %s", variable, value, variable)
	}
	return nil
}

// checkWord returns an error unless the variable is empty or one of the words.
func checkWord(variable string, words ...string) error {
	value := os.Getenv(variable)
	if value == "" {
		return nil
	}
	for _, word := range words {
		if value == word {
			return nil
		}
	}
	return badValue(variable, value, strings.Join(words, " or "))
}

func badValue(variable, value, want string) error {
	return fmt.Errorf("%s=%s has no meaning: expected %s, or nothing\n  Unset it:   unset %s", variable, value, want, variable)
}

// keepPolicy is which questions leave their state on the machine.
type keepPolicy int

const (
	keepNever keepPolicy = iota
	keepFailed
	keepAlways
)

func parseKeep(value string) (keepPolicy, error) {
	switch value {
	case "", "0", "no", "false":
		return keepNever, nil
	case "failed":
		return keepFailed, nil
	case "1", "yes", "true":
		return keepAlways, nil
	}
	return keepNever, badValue(keepEnv, value, "1 (the state of all questions), failed (of those that fail) or 0 (of none)")
}

func parseTimeout(value string) (time.Duration, error) {
	if value == "" {
		return defaultTimeout, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return defaultTimeout, badValue(timeoutEnv, value, "a duration such as 90s or 5m")
	}
	return d, nil
}

// commandTimeout returns how long one command may take. Session.Run has checked the value. A value of the user is taken as it is.
func commandTimeout() time.Duration {
	value := os.Getenv(timeoutEnv)
	if value == "" {
		return slowness.Scale(defaultTimeout)
	}
	d, _ := parseTimeout(value)
	return d
}

// measureSlowness measures how slow this machine is, and prints it if deadlines are longer because of it. The program is the
// runtime under test, because it is what the lab waits for most often.
func measureSlowness(runtime string) {
	slowness.Set(slowness.Measure(cleanEnviron(), runtime, "--version"))
	if n := slowness.Factor(); n > 1 {
		fmt.Printf("cdblab: this machine starts a program %d times as slowly as a quiet one: deadlines are %d times as long\n", n, n)
	}
}

// checkRegistryAddr returns an error unless the address is an IP address of loopback and a port. The registry has no
// authentication, so no other machine may reach it.
func checkRegistryAddr(addr string) error {
	if addr == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return badValue(registryEnv, addr, "an IP address of loopback and a port, such as 127.0.0.1:5000")
	}
	return nil
}

// checkPinned returns an error unless each word is the variable of a tool.
func checkPinned(value string) error {
	var variables []string
	for _, t := range tools.All {
		if t.Env != "" {
			variables = append(variables, t.Env)
		}
	}
	for name := range strings.SplitSeq(value, ",") {
		if value != "" && !slices.Contains(variables, name) {
			return badValue(tools.PinnedEnv, value, "some of "+strings.Join(variables, ",")+", with commas between them")
		}
	}
	return nil
}

// checkReleases returns an error unless there is a directory. The questions that need an earlier release would only be skipped.
func checkReleases(dir string) error {
	if dir == "" {
		return nil
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return badValue(tools.ReleasesEnv, dir, "a directory that make releases has filled")
	}
	return nil
}

// checkImage returns an error unless ctr can pull an image of this name. It adds neither a registry nor a tag.
func checkImage(ref string) error {
	if ref == "" {
		return nil
	}
	if spec, err := reference.Parse(ref); err != nil || spec.Object == "" || !strings.Contains(spec.Locator, "/") {
		return badValue(imageEnv, ref, "an image with its registry and its tag, such as "+chapterImage)
	}
	return nil
}

// RegistryAddr returns the address on which the lab's registry listens, and whether the user has chosen it. Otherwise the
// kernel picks a free port.
func (s *Session) RegistryAddr() (addr string, chosen bool) {
	if addr := os.Getenv(registryEnv); addr != "" {
		return addr, true
	}
	return "127.0.0.1:0", false
}
