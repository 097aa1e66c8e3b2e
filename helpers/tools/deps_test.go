//go:build linux

package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// depsMachine is a machine for scripts/deps.sh: fake commands, apt's package lists, and a log of what was called.
type depsMachine struct {
	t              *testing.T
	bin, dir, list string
	home           string
	env            []string
	onlyFakes      bool // PATH has the fake commands, and links to the few real ones that the script needs
}

// newDepsMachine returns a machine that lacks what `lab deps` prints as programs.
func newDepsMachine(t *testing.T, programs string) *depsMachine {
	t.Helper()
	m := &depsMachine{t: t, bin: t.TempDir(), dir: t.TempDir(), home: t.TempDir()}
	m.list = filepath.Join(m.dir, "lists")
	assert.NilError(t, os.Mkdir(m.list, 0o755))
	for _, name := range []string{"cc", "pkg-config", "qemu-system-x86_64", "qemu-system-aarch64"} {
		m.fake(name, "")
	}
	m.fake("go", "echo '"+programs+"'")
	m.fake("id", "echo 0")
	m.fake("apt-config", "echo \"lists='"+m.list+"'\"")
	m.fake("apt-cache", "ls "+m.list+"/*_Packages") // it knows packages only if there are lists
	m.fake("apt-get", `while [ "$1" = -o ]; do options="$options $2"; shift 2; done
		echo apt-get $* >> `+m.dir+`/log; echo $options >> `+m.dir+`/options; [ $1 != update ] || touch `+m.list+"/main_Packages")
	return m
}

func (m *depsMachine) fake(name, script string) {
	assert.NilError(m.t, os.WriteFile(filepath.Join(m.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

// run runs the script, and returns its output and the calls of apt-get. The script must succeed.
func (m *depsMachine) run(args ...string) (output, calls string) {
	m.t.Helper()
	output, calls, err := m.try(args...)
	assert.NilError(m.t, err, "%s", output)
	return output, calls
}

// try runs the script, which may fail.
func (m *depsMachine) try(args ...string) (output, calls string, err error) {
	m.t.Helper()
	script, err := filepath.Abs("../../scripts/deps.sh")
	assert.NilError(m.t, err)
	_ = os.Remove(m.dir + "/log")
	c := exec.Command(script, args...)
	c.Dir, c.Env = m.dir, []string{"PATH=" + m.bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + m.home}
	c.Env = append(c.Env, m.env...)
	if m.onlyFakes {
		for _, name := range []string{"sh", "uname", "grep", "sed", "sort", "tr", "find", "ls", "env"} {
			path, err := exec.LookPath(name)
			assert.NilError(m.t, err)
			assert.NilError(m.t, os.Symlink(path, filepath.Join(m.bin, name)))
		}
		c.Env[0] = "PATH=" + m.bin
	}
	out, err := c.CombinedOutput()
	b, _ := os.ReadFile(m.dir + "/log")
	return string(out), string(b), err
}

// A first run on a machine without package lists installs the same as a second one.
func TestDeps_FetchesMissingListsBeforeItAsksForOptionalPrograms(t *testing.T) {
	m := newDepsMachine(t, "optional criu")
	_, calls := m.run()
	assert.Assert(t, cmp.Contains(calls, "apt-get update -q\n"))
	assert.Assert(t, cmp.Contains(calls, "install -y -q --no-install-recommends criu"))
	_, calls = m.run()
	assert.Assert(t, !strings.Contains(calls, "update"), calls)
}

func TestDeps_FetchesOldListsOnceAWeek(t *testing.T) {
	m := newDepsMachine(t, "recommended strace\noptional criu")
	assert.NilError(t, os.WriteFile(m.list+"/main_Packages", nil, 0o644))
	_, calls := m.run()
	assert.Assert(t, !strings.Contains(calls, "update"), calls)
	assert.Assert(t, cmp.Contains(calls, "recommends strace\n"))
	assert.Assert(t, cmp.Contains(calls, "recommends criu\n"))

	old := time.Now().Add(-9 * 24 * time.Hour)
	assert.NilError(t, os.Chtimes(m.list, old, old))
	for _, want := range []int{1, 0} {
		_, calls = m.run()
		assert.Equal(t, strings.Count(calls, "update"), want, calls)
		assert.NilError(t, os.Chtimes(m.list, old, old)) // the lists did not change
	}
}

func TestDeps_GoesOnWithoutANetwork(t *testing.T) {
	m := newDepsMachine(t, "optional criu")
	m.fake("apt-get", "echo no route to host >&2; exit 100")
	out, _ := m.run()
	assert.Assert(t, cmp.Contains(out, "apt-get update failed; using the package lists that are there"))
	assert.Assert(t, cmp.Contains(out, "deps: nothing is missing"))
}

// GO=/opt/go/bin/go is the go that lists the programs, and not the one on PATH.
func TestDeps_UsesTheGoThatIsNamed(t *testing.T) {
	m := newDepsMachine(t, "optional criu")
	assert.NilError(t, os.Rename(m.bin+"/go", m.dir+"/go"))
	m.fake("go", "exit 1")
	m.env = []string{"GO=" + m.dir + "/go"}
	_, calls := m.run()
	assert.Assert(t, cmp.Contains(calls, "install -y -q --no-install-recommends criu"))
	m.env = []string{"GO=/nonexistent/go"}
	out, _, err := m.try()
	assert.Check(t, err != nil)
	assert.Check(t, cmp.Contains(out, "deps: there is no /nonexistent/go"))
}

// Optional programs are no reason to ask an ordinary user for a password.
func TestDeps_OptionalProgramsAskForNoPassword(t *testing.T) {
	m := newDepsMachine(t, "optional criu")
	m.fake("id", "echo 1000")
	m.fake("sudo", `test "$1" = -n`)
	out, _ := m.run()
	assert.Assert(t, cmp.Contains(out, "+ sudo -n apt-get -o"))

	m.fake("sudo", `[ "$1" != -n ]`) // it would ask for a password
	assert.NilError(t, os.WriteFile(m.list+"/main_Packages", nil, 0o644))
	out, _ = m.run()
	assert.Assert(t, cmp.Contains(out, "the questions that need it are skipped: criu \n  To install it: sudo apt-get install"))
}

// A run without an optional program answers nearly all questions. A machine without a network must be able to run.
func TestDeps_GoesOnWithoutAnOptionalProgramThatAptCannotInstall(t *testing.T) {
	m := newDepsMachine(t, "optional criu")
	assert.NilError(t, os.WriteFile(m.list+"/main_Packages", nil, 0o644))
	m.fake("apt-get", "exit 100")
	out, _ := m.run()
	assert.Check(t, cmp.Contains(out, "the questions that need it are skipped: criu \n  To install it: apt-get install"))
	m.fake("go", `printf 'required busybox\noptional criu\n'`)
	out, _, err := m.try()
	assert.Check(t, err != nil)
	assert.Check(t, cmp.Contains(out, "deps: apt-get could not install busybox-static"))
}

// A mirror that does not answer, and a lock that another apt holds, end apt with an error.
func TestDeps_EachCallOfAptHasADeadline(t *testing.T) {
	m := newDepsMachine(t, "recommended strace")
	_, calls := m.run()
	assert.Equal(t, strings.Count(calls, "\n"), 2, "expected an update and an install: %s", calls)
	options, err := os.ReadFile(m.dir + "/options")
	assert.NilError(t, err)
	for _, option := range []string{"Acquire::http::Timeout=", "Acquire::https::Timeout=", "Acquire::Retries=", "DPkg::Lock::Timeout="} {
		assert.Check(t, strings.Count(string(options), option) == 2, "%s is not an option of both calls: %s", option, options)
	}
}

func TestDeps_SaysWhatToDoIfAptCannotInstall(t *testing.T) {
	m := newDepsMachine(t, "recommended strace")
	m.fake("apt-get", "exit 100")
	out, _, err := m.try()
	assert.Check(t, err != nil)
	assert.Check(t, cmp.Contains(out, "deps: apt-get could not install strace"))
	assert.Check(t, cmp.Contains(out, "check the network"))
}

// go itself says only that it has no module cache.
func TestDeps_NeedsHome(t *testing.T) {
	m := newDepsMachine(t, "")
	m.home = ""
	out, _, err := m.try()
	assert.Check(t, err != nil)
	assert.Check(t, cmp.Contains(out, "HOME is not set"))
}

// Without a package manager that it knows, the script says what to install.
func TestDeps_WithoutAptNamesThePackages(t *testing.T) {
	m := newDepsMachine(t, "recommended strace")
	assert.NilError(t, os.Remove(filepath.Join(m.bin, "apt-get")))
	m.onlyFakes = true
	out, _, err := m.try()
	assert.Check(t, err != nil)
	assert.Check(t, cmp.Contains(out, "does not know the package manager of this machine. Please install: strace"))
}

func TestDeps_AsksNothingIfNothingIsMissing(t *testing.T) {
	m := newDepsMachine(t, "")
	out, calls := m.run()
	assert.Equal(t, calls, "")
	assert.Assert(t, cmp.Contains(out, "nothing is missing"))
}

// `lab doctor` asks what is missing.
func TestDeps_CheckPrintsWhatIsMissingAndInstallsNothing(t *testing.T) {
	m := newDepsMachine(t, "required busybox")
	out, calls := m.run("check")
	assert.Equal(t, out+calls, "")
	m.fake("cc", "exit 1")
	out, calls = m.run("check")
	assert.Equal(t, out, "seccomp\n")
	assert.Equal(t, calls, "")
}

// cgo finds libseccomp by pkg-config, which neither the compiler nor libseccomp's package brings along.
func TestDeps_InstallsPkgConfig(t *testing.T) {
	m := newDepsMachine(t, "")
	assert.NilError(t, os.Remove(filepath.Join(m.bin, "pkg-config")))
	m.onlyFakes = true
	_, calls := m.run()
	assert.Assert(t, cmp.Contains(calls, "install -y -q --no-install-recommends pkg-config"))
}
