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

// The tarball of `make dist` asks and answers far from the checkout, without go on PATH, and without a network.
func TestTarball_AnswersWithoutGoAndWithoutANetwork(t *testing.T) {
	before := takeInventory(t)
	tarball, err := filepath.Abs(filepath.Join(root, ".lab/dist/cdblab-linux-"+runtime.GOARCH+".tar.gz"))
	assert.NilError(t, err)
	dir := t.TempDir()
	out, err := exec.Command("tar", "-C", dir, "-xzf", tarball).CombinedOutput()
	assert.NilError(t, err, "%s", out)

	const path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
	noPath := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "PATH=") || strings.HasPrefix(e, "GO") })
	cdblab := func(args ...string) (string, error) {
		// The loopback device of a new network namespace is down. containerd's questions pull from the lab's registry on it.
		const script = `busybox ip link set lo up || exit; exec ./cdblab "$@"`
		cmd := exec.Command("unshare", append([]string{"--net", "sh", "-c", script, "cdblab"}, args...)...)
		cmd.Dir, cmd.Env = filepath.Join(dir, "cdblab"), append(noPath, path, testMark)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// The second question compares with a table of testdata.
	said, err := cdblab("run", "--pinned", "-run", "Lifecycle_WhatIsTheDifference|Bundle_HowDoesContainerdsGenerated")
	assert.Check(t, err, "%s", said)
	assert.Check(t, cmp.Contains(said, dir+"/cdblab/bin/runc (of the tarball)"))
	assert.Check(t, cmp.Contains(said, "2 passed, 0 failed"))
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
