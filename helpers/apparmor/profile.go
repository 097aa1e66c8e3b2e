//go:build linux

// Package apparmor loads AppArmor profiles for a question, and reads which profile a process is under.
package apparmor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// policy is where the kernel shows which profiles it has.
const policy = "/sys/kernel/security/apparmor"

// Require skips the question unless the kernel has AppArmor, and the program that loads a profile is installed. A profile that is
// still loaded when the question ends is removed.
func Require(q *lab.Q) {
	q.Helper()
	const enabled = "/sys/module/apparmor/parameters/enabled"
	const elsewhere = "to ask this, boot Debian's kernel, which has it: make lab"
	if on, err := file.TryRead(enabled); err != nil || strings.TrimSpace(on) != "Y" {
		q.Skipf("this kernel has no AppArmor, or it is off (%s is %q, %v); %s", enabled, on, err, elsewhere)
	}
	if !file.Exists(policy) {
		q.Skipf("%s does not exist, because securityfs is not mounted: mount -t securityfs securityfs /sys/kernel/security", policy)
	}
	q.LookPathOrSkip("apparmor_parser")
	q.Cleanup(func() {
		if _, err := host.RemoveProfiles(q.Owner); err != nil {
			q.Error(err)
		}
	})
}

// Profile is a profile of the question.
type Profile struct {
	Name string // in the kernel

	file string
	q    *lab.Q
}

// Load loads a profile that allows everything except what the rules deny. The rules are written as in apparmor.d(5):
// https://manpages.debian.org/apparmor.d
func Load(q *lab.Q, name string, rules ...string) *Profile {
	q.Helper()
	p := &Profile{Name: q.Owner.ProfileName(name), file: name + ".apparmor", q: q}
	q.Cleanup(func() { file.Remove(q, filepath.Join(q.Dir, p.file)) })
	p.Replace(rules...)
	return p
}

// everything are the rules that allow all that AppArmor controls.
var everything = []string{"file", "capability", "network", "mount", "umount", "pivot_root", "ptrace", "signal", "unix"}

// Replace loads the profile with other rules. They hold at once for the processes that are under it.
func (p *Profile) Replace(rules ...string) {
	p.q.Helper()
	// A path that leads out of the process's mounts, such as a descriptor of the host, counts as one below /.
	text := fmt.Sprintf("profile %s flags=(attach_disconnected, mediate_deleted) {\n  %s,\n}\n",
		p.Name, strings.Join(append(everything, rules...), ",\n  "))
	p.q.LogCommandAs("cat > "+p.file+"   # "+strings.Join(rules, ", "), "cat > "+p.file+" <<'END'\n"+text+"END")
	if err := os.WriteFile(filepath.Join(p.q.Dir, p.file), []byte(text), 0o644); err != nil {
		p.q.Fatal(err)
	}
	p.q.Must("apparmor_parser", "--replace", "--skip-cache", p.file)
}

// Remove removes the profile from the kernel.
func (p *Profile) Remove() {
	p.q.Helper()
	p.q.Must("apparmor_parser", "--remove", p.file)
}

// Of returns the profile that a process is under, and its mode: "cdb-locked (enforce)". Without a profile it is "unconfined".
func Of(q *lab.Q, pid proc.PID) string {
	q.Helper()
	path := fmt.Sprintf("/proc/%d/attr/apparmor/current", pid)
	if !file.Exists(path) { // before Linux 5.8
		path = fmt.Sprintf("/proc/%d/attr/current", pid)
	}
	return strings.TrimSpace(file.Read(q, path))
}

// Loaded returns the mode of a profile that the kernel has, "enforce", or "" if it has none of this name.
func Loaded(q *lab.Q, name string) string {
	q.Helper()
	for line := range strings.Lines(file.Read(q, policy+"/profiles")) {
		if mode, ok := strings.CutPrefix(line, name+" ("); ok {
			return strings.TrimRight(mode, ")\n")
		}
	}
	return ""
}
