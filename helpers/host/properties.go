package host

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// A Property of this machine can be the reason why a fact is different on another machine.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// sysctls are the settings of the kernel on which the questions depend, and that distributions set in different ways. Those of other
// distributions' own patches are not everywhere.
var sysctls = []string{
	maxUserNamespaces, "kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns",
	"kernel.unprivileged_bpf_disabled", "kernel.dmesg_restrict", "vm.overcommit_memory", "vm.panic_on_oom",
}

const maxUserNamespaces = "user.max_user_namespaces"

// kernelParameters are the beginnings of the words of a kernel's command line on which the questions depend.
var kernelParameters = []string{
	"systemd.unified_cgroup_hierarchy", "systemd.legacy_systemd_cgroup_controller", "cgroup_", "swapaccount", "lsm=", "security=",
	"apparmor=", "selinux=", "psi=", "user_namespace.enable",
}

// ContainerdConfig is the configuration of the machine's own containerd. One question takes from it what it decides for pods.
const ContainerdConfig = "/etc/containerd/config.toml"

// Properties returns what this machine is, beside its kernel and the programs under test.
func Properties() []Property {
	var out []Property
	add := func(name, value string) {
		if value != "" {
			out = append(out, Property{name, value})
		}
	}
	add("system", osName())
	add("init", initName())
	add("security modules", readLine("/sys/kernel/security/lsm"))
	add("kernel parameters", strings.Join(relevantParameters(readLine("/proc/cmdline")), " "))
	for _, name := range sysctls {
		value := readLine("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		if name == maxUserNamespaces && value != "" && value != "0" {
			value = "more than 0" // the kernel sets it by the size of the memory
		}
		add("sysctl "+name, value)
	}
	if b, err := os.ReadFile(ContainerdConfig); err == nil {
		out = append(out, configProperties(b)...)
	}
	return out
}

func readLine(file string) string {
	b, _ := os.ReadFile(file)
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return strings.TrimSpace(string(line))
}

func osName() string {
	b, _ := os.ReadFile("/etc/os-release")
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

// initName returns the name of pid 1. systemd tells its version as well.
func initName() string {
	name := readLine("/proc/1/comm")
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return name
	}
	out, _ := exec.Command("systemctl", "--version").Output() // systemd 252 (252.39-1~deb12u1)
	line, _, _ := strings.Cut(string(out), "\n")
	return cmp.Or(strings.TrimSpace(line), name)
}

func relevantParameters(line string) []string {
	return slices.DeleteFunc(strings.Fields(line), func(word string) bool {
		return !slices.ContainsFunc(kernelParameters, func(prefix string) bool { return strings.HasPrefix(word, prefix) })
	})
}

// maxConfig limits what is recorded of a configuration. A usual one has less than 200 keys.
const maxConfig = 300

// secretKeys matches the keys of containerd's configuration whose values can be secrets: credentials and headers of registries, and the
// environment of programs. The properties are in facts.json, which users commit.
var secretKeys = regexp.MustCompile(`(?i)(^|\.)(auth|password|username|identitytoken|token|secret|env|headers?)(\.|$)|authorization`)

// secretInURL matches the user and the password in a URL.
var secretInURL = regexp.MustCompile(`://[^/@\s]*@`)

const notRecorded = "(not recorded)"

// configProperties returns a property for each key of containerd's configuration. Secrets are not recorded.
func configProperties(b []byte) []Property {
	var tree map[string]any
	if err := toml.Unmarshal(b, &tree); err != nil {
		return []Property{{ContainerdConfig, "it cannot be read: " + err.Error()}}
	}
	var out []Property
	var walk func(name string, value any)
	walk = func(name string, value any) {
		switch v := value.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(strings.TrimPrefix(name+"."+key, "."), v[key])
			}
			return
		case []any:
			if slices.ContainsFunc(v, isTable) {
				for i, inner := range v {
					walk(fmt.Sprintf("%s.%d", name, i), inner)
				}
				return
			}
		}
		if len(out) == maxConfig {
			return
		}
		text := secretInURL.ReplaceAllString(fmt.Sprint(value), "://"+notRecorded+"@")
		if secretKeys.MatchString(name) {
			text = notRecorded
		}
		out = append(out, Property{ContainerdConfig + " " + name, text})
	}
	walk("", tree)
	return out
}

func isTable(value any) bool {
	_, ok := value.(map[string]any)
	return ok
}
