//go:build linux && vmtest

package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// The disk image and the tarball that the tests boot: make test-disk.
var (
	testDisk    = os.Getenv("CDB_TEST_DISK")
	testTarball = os.Getenv("CDB_TEST_TARBALL")
)

func needDisk(t *testing.T) {
	t.Helper()
	if testDisk == "" || testTarball == "" {
		t.Skip("no disk image to boot: make test-disk")
	}
}

// bootDisk boots the image with data for its cloud-init, and asks one question.
func bootDisk(t *testing.T, userData string) outcome {
	t.Helper()
	needDisk(t)
	file := ""
	if userData != "" {
		file = filepath.Join(t.TempDir(), "user-data")
		assert.NilError(t, os.WriteFile(file, []byte(userData), 0o644))
	}
	c := newCommand(t, func(c *Command) {
		c.Disk, c.Tarball, c.UserData, c.Pinned = testDisk, testTarball, file, true
		c.Memory = defaultMemory
	})
	return c.run("lab.test", "-test.v", "-test.timeout=20m", "-test.run=Lifecycle_WhatIsTheDifference")
}

func TestDisk_AnswersAndIsNotChanged(t *testing.T) {
	needDisk(t)
	before, err := os.ReadFile(testDisk)
	assert.NilError(t, err)
	res := bootDisk(t, "")
	assert.NilError(t, res.err)
	assert.Equal(t, res.code, 0, "%s%s", res.stdout, res.stderr)
	assert.Check(t, cmp.Contains(res.stdout, "--- PASS: TestLifecycle_WhatIsTheDifference"))
	after, err := os.ReadFile(testDisk)
	assert.NilError(t, err)
	assert.Check(t, bytes.Equal(before, after), "the image has changed")
}

// What an image does instead of starting the lab's service is a Fault, with the end of its console. The user's data for cloud-init make
// it do so.
func TestDisk_FailureOfTheImageIsAFault(t *testing.T) {
	short := func(d *time.Duration, to time.Duration) func() {
		was := *d
		*d = to
		return func() { *d = was }
	}
	defer short(&diskLoginTimeout, 20*time.Second)()
	for name, c := range map[string]struct{ bootcmd, seen string }{
		"kernel panic":      {"echo c >/proc/sysrq-trigger", "panicked"},
		"emergency mode":    {"systemctl --no-block emergency; sleep infinity", "emergency mode"},
		"powers off":        {"poweroff -f -f", "QEMU ended"},
		"no lab":            {"systemctl mask --runtime --now cloud-final.service", "login prompt"},
		"full disk":         {"dd if=/dev/zero of=/tmp/full bs=1M; true", "MB free, and the lab needs"},
		"boots again later": {"(while ! pgrep lab.test; do sleep 1; done; echo b >/proc/sysrq-trigger) &", "booted again"},
	} {
		t.Run(name, func(t *testing.T) {
			res := bootDisk(t, "#cloud-config\nbootcmd: [[sh, -c, '"+c.bootcmd+"']]\n")
			assert.Check(t, isFault(res, c.seen))
			t.Log(res.err)
		})
	}
}
