//go:build linux && vmtest

// The first tests check the machine. TestMisbehave misbehaves in the way that -misbehave names; see ../vm_test.go.

package guesttest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

var misbehave = flag.String("misbehave", "", "the way in which TestMisbehave misbehaves")

func sh(t *testing.T, script string, env ...string) string {
	t.Helper()
	c := exec.Command("sh", "-euc", script)
	c.Env = append(os.Environ(), env...)
	c.Dir = t.TempDir()
	var stderr bytes.Buffer
	c.Stderr = &stderr // not in the output: on cgroup v1 every call of ctr prints a deprecation there
	out, err := c.Output()
	assert.NilError(t, err, "%s\n%s%s", script, out, &stderr)
	return strings.TrimSpace(string(out))
}

const bundle = `
	mkdir -p rootfs/bin rootfs/proc rootfs/dev rootfs/sys
	cp $CDB_BUSYBOX rootfs/bin/busybox && ln -s busybox rootfs/bin/sh
	$CDB_RUNC spec
	sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sh", "-c", "echo hello from pid $$"/' config.json
`

func TestMachine_IsANormalOne(t *testing.T) {
	for _, d := range []string{"/dev/pts", "/dev/shm", "/run", "/tmp", "/sys/fs/bpf", "/var/lib/containerd", "/sys/fs/cgroup"} {
		sh(t, "grep -q ' "+d+" ' /proc/mounts")
	}
	null, err := os.Stat("/dev/null")
	assert.NilError(t, err)
	assert.Equal(t, null.Sys().(*syscall.Stat_t).Rdev, uint64(1<<8|3))
	wd, err := os.Getwd()
	assert.NilError(t, err)
	assert.Equal(t, filepath.Base(wd), "guesttest", "the package's own directory")
	b, err := os.ReadFile("testdata/here")
	assert.NilError(t, err)
	assert.Equal(t, string(b), "testdata comes along\n")
	assert.Equal(t, os.Getenv("CDB_DISPOSABLE"), "yes")
	assert.Equal(t, sh(t, "ls /sys/class/net"), "lo", "no network")
	sh(t, "ping -c 1 -W 1 127.0.0.1")
	assert.Assert(t, strings.Contains(sh(t, "cat /proc/self/mountinfo"), " / / rw,relatime shared:"), "the root is shared, as with systemd")
	if _, err := os.Stat("/usr/bin/strace"); err == nil {
		assert.Assert(t, strings.Contains(sh(t, "strace -f -e trace=execve busybox true 2>&1"), "execve("))
	}
	// The kernel loads this module on demand, through modprobe.
	sh(t, "ip link add lab0 type dummy && ip link del lab0")
}

func TestMachine_HasTheCgroupsThatWereAskedFor(t *testing.T) {
	unified, v1, v2 := 0, 0, 0
	for line := range strings.Lines(sh(t, "cat /proc/self/mounts")) {
		switch f := strings.Fields(line); {
		case f[2] == "cgroup2" && f[1] == "/sys/fs/cgroup":
			v2++
		case f[2] == "cgroup2":
			unified++
		case f[2] == "cgroup":
			v1++
		}
	}
	got := map[bool]string{true: "v2"}[v2 == 1 && v1 == 0]
	switch {
	case v2 == 0 && v1 > 3 && unified == 1:
		got = "hybrid"
	case v2 == 0 && v1 > 3 && unified == 0:
		got = "v1"
	}
	assert.Equal(t, got, os.Getenv("CDB_CGROUP"))
}

func TestMachine_ReapsOrphansAtOnce(t *testing.T) {
	pid := sh(t, "(sleep 0.05 & echo $!)")
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			return poll.Continue("the orphan is still there: %s", stat)
		}
		return poll.Success()
	}, poll.WithTimeout(2*time.Second), poll.WithDelay(5*time.Millisecond))
}

func TestMachine_RunsRunc(t *testing.T) {
	out := sh(t, bundle+`$CDB_RUNC run cdb-vmtest; test -z "$($CDB_RUNC list -q)"`)
	assert.Equal(t, out, "hello from pid 1")
}

func TestMachine_RunsContainerd(t *testing.T) {
	out := sh(t, bundle+`
		tar -C rootfs -cf layer.tar .
		cat > config.toml <<TOML
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
TOML
		$CDB_CONTAINERD --config config.toml > log 2>&1 &
		daemon=$!
		trap 'kill $daemon; wait' EXIT
		for i in $(seq 300); do $CDB_CTR version >/dev/null 2>&1 && break; usleep 100000; done
		# The overlay snapshotter without an image: the mounts come from a snapshot that contains the rootfs.
		$CDB_CTR snapshots prepare key >/dev/null 2>err
		$CDB_CTR snapshots mounts /mnt key > mount.sh 2>err && sh mount.sh && cp -a rootfs/. /mnt && umount /mnt
		$CDB_CTR snapshots commit base key 2>err
		$CDB_CTR snapshots prepare live base >/dev/null 2>err
		$CDB_CTR snapshots mounts /mnt live > mount.sh 2>err && sh mount.sh && grep ' /mnt overlay ' /proc/mounts | cut -d' ' -f3
		# On cgroup v1 every call of ctr warns on stderr that v1 is deprecated.
		$CDB_CTR run --rm --rootfs /mnt cdb-vmtest /bin/sh -c 'echo hello from containerd' 2>err || cat err
		umount /mnt
	`)
	assert.Equal(t, out, "overlay\nhello from containerd")
}

func TestResults_ComeBack(t *testing.T) {
	assert.NilError(t, os.WriteFile(filepath.Join(t.ArtifactDir(), "note"), []byte("from the guest"), 0o644))
}

func TestMisbehave(t *testing.T) {
	switch *misbehave {
	case "":
		t.Skip("runs only with -misbehave, from ../vm_test.go")
	case "fail":
		t.Fatal("as requested")
	case "exit":
		os.Exit(7)
	case "panic":
		panic("as requested")
	case "hang":
		select {}
	case "lines":
		for i := range 100_000 {
			fmt.Println("line", i)
		}
	case "bytes":
		chunk := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
		for range 64 {
			_, _ = os.Stdout.Write(chunk)
		}
	case "memory":
		var all [][]byte
		for {
			b := make([]byte, 16<<20)
			for i := range b {
				b[i] = byte(i)
			}
			all = append(all, b)
			fmt.Println(len(all))
		}
	case "crash":
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "off":
		_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	case "killed":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "leave": // leaves a process behind that holds stdout
		assert.NilError(t, exec.Command("sh", "-c", "sleep 1000 &").Start())
		c := exec.Command("sleep", "1000")
		c.Stdout = os.Stdout
		assert.NilError(t, c.Start())
	case "frozen":
		if os.Getenv("CDB_CGROUP") != "v2" {
			t.Skip("this case needs cgroup v2: CGROUP=v2")
		}
		c := exec.Command("sleep", "1000")
		c.Stdout = os.Stdout
		assert.NilError(t, c.Start())
		sh(t, fmt.Sprintf("mkdir /sys/fs/cgroup/f; echo %d > /sys/fs/cgroup/f/cgroup.procs; echo 1 > /sys/fs/cgroup/f/cgroup.freeze", c.Process.Pid))
	case "both":
		fmt.Println("one")
		fmt.Fprintln(os.Stderr, "two")
		fmt.Println("three")
	default:
		t.Fatalf("-misbehave %s is unknown", *misbehave)
	}
}
