//go:build linux && vmlab && selftest

package selftest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// The tarball of `make dist` asks and answers far from the checkout, without a network, and on a machine that has only the programs that
// the README promises to need: a shell and mount. PATH has links to them, and to nothing else. So go, a C compiler and a package manager
// of this machine are not found.
func TestTarball_AnswersWithoutGoAndWithoutANetwork(t *testing.T) {
	before := takeInventory(t)
	tarball, err := filepath.Abs(filepath.Join(root, ".lab/dist/cdblab-linux-"+runtime.GOARCH+".tar.gz"))
	assert.NilError(t, err)
	dir := t.TempDir()
	out, err := exec.Command("tar", "-C", dir, "-xzf", tarball).CombinedOutput()
	assert.NilError(t, err, "%s", out)

	links := t.TempDir()
	for _, name := range []string{"sh", "mount"} {
		program, err := exec.LookPath(name)
		assert.NilError(t, err)
		assert.NilError(t, os.Symlink(program, filepath.Join(links, name)))
	}
	// For the loopback device. A copy, because the tarball's own is damaged below.
	busybox := filepath.Join(dir, "busybox")
	content, err := os.ReadFile(filepath.Join(dir, "cdblab/bin/busybox"))
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(busybox, content, 0o755))

	noPath := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "PATH=") || strings.HasPrefix(e, "GO") })
	cdblab := func(args ...string) (string, error) {
		// The loopback device of a new network namespace is down. containerd's questions pull from the lab's registry on it.
		const script = `"$0" ip link set lo up || exit; exec ./cdblab "$@"`
		cmd := exec.Command("unshare", append([]string{"--net", "sh", "-c", script, busybox}, args...)...)
		cmd.Dir, cmd.Env = filepath.Join(dir, "cdblab"), append(slices.Clone(noPath), "PATH="+links, testMark)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// The second question compares with a table of testdata, and the third one with earlier releases.
	const questions = "Lifecycle_WhatIsTheDifference|Bundle_HowDoesContainerdsGenerated|Task_CanContainerdBeDowngraded"
	said, err := cdblab("run", "--pinned", "-run", questions)
	assert.Check(t, err, "%s", said)
	assert.Check(t, cmp.Contains(said, dir+"/cdblab/bin/runc (of the tarball)"))
	assert.Check(t, cmp.Contains(said, "3 passed, 0 failed"))
	for _, command := range [][]string{
		{"compare", "cdblab-results/latest", "cdblab-results/latest/facts.json"}, {"report"}, {"syllabus"}, {"doctor"}, {"sweep"},
	} {
		said, err := cdblab(command...)
		assert.Check(t, err, "cdblab %s: %s", strings.Join(command, " "), said)
	}

	// A file of a tarball that was cut short, or unpacked on a full disk.
	assert.NilError(t, os.Truncate(filepath.Join(dir, "cdblab/bin/busybox"), 1000))
	said, err = cdblab("run", "--pinned", "-run", "Lifecycle_WhatIsTheDifference")
	assert.Check(t, err != nil && strings.Contains(said, "bin/busybox is damaged"), "%s", said)
	assertHostUnchanged(t, before)
}
