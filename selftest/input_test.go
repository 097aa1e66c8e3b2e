//go:build linux && vmlab && selftest

package selftest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/host"
)

// Bad input fails the run with a message that has the cause and the remedy, and nothing is left.
func TestBadInput_IsReported(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer taken.Close()
	script := func(name, body string) string {
		path := filepath.Join(t.TempDir(), name)
		assert.NilError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755))
		return path
	}
	for _, bad := range []struct {
		name  string
		given []string // flags and environment variables of the run
		want  []string // in the output
	}{
		{"no such runtime", []string{"CDB_RUNC=/no/such/runc"}, []string{"CDB_RUNC=/no/such/runc", "no executable"}},
		{"runtime is no executable", []string{"CDB_RUNC=/etc/passwd"}, []string{"CDB_RUNC=/etc/passwd", "no executable"}},
		{"no such busybox", []string{"CDB_BUSYBOX=/no/such/busybox"}, []string{"CDB_BUSYBOX", "no executable"}},
		{"dynamic busybox", []string{"CDB_BUSYBOX=/bin/ls"}, []string{"/bin/ls is not static", "busybox-static"}},
		{"busybox is no ELF", []string{"CDB_BUSYBOX=" + script("busybox", "exit 0")}, []string{"no ELF"}},
		{"runtime exits 1 at once", []string{chapterQuestions, "CDB_RUNC=" + script("runc", "echo broken >&2; exit 1")},
			[]string{"exit code 1", "stderr: broken"}},
		{"runtime hangs", []string{"CDB_TIMEOUT=3s", "-test.run=Lifecycle_WhatIsTheDifference", "CDB_RUNC=" + script("runc", "exec sleep 1000")},
			[]string{"the command had not ended after 3s", "(sleep)"}},
		{"daemon exits 1 at once", []string{"-test.run=Task_(WhereDoesTheShim|WhoIsWhoseParent|WhatSurvives)",
			"CDB_CONTAINERD=" + script("containerd", "echo broken >&2; exit 1")},
			[]string{"containerd ended before it answered", "broken"}},
		{"port is taken", []string{"-test.run=Task", "CDB_REGISTRY_ADDR=" + taken.Addr().String()},
			[]string{"cannot listen on " + taken.Addr().String(), "address already in use"}},
		{"registry for everybody", []string{"CDB_REGISTRY_ADDR=0.0.0.0:0"}, []string{"CDB_REGISTRY_ADDR=0.0.0.0:0 has no meaning", "loopback"}},
		{"CDB_KEEP has no meaning", []string{"CDB_KEEP=flase"}, []string{"CDB_KEEP=flase has no meaning", "unset CDB_KEEP"}},
		{"CDB_TIMEOUT has no meaning", []string{"CDB_TIMEOUT=5"}, []string{"CDB_TIMEOUT=5 has no meaning", "90s"}},
		{"CDB_DISPOSABLE has no meaning", []string{"CDB_DISPOSABLE=sure"}, []string{"CDB_DISPOSABLE=sure has no meaning", "yes"}},
		{"no such variable", []string{"CDB_RUNCC=/x"}, []string{"CDB_RUNCC=/x has no meaning", "unset CDB_RUNCC"}},
		{"no such subtest", []string{"-test.run=Lifecycle_WhatDoesKillDo/typo"}, []string{"no subtest was asked"}},
		{"all that was asked was skipped", []string{"-test.run=Task_WhatDoesAPull", "CDB_IMAGE=localhost/none:1"},
			[]string{"no question was answered", "unset CDB_IMAGE"}},
		{"no such question", []string{"-test.run=NoSuchQuestion"}, []string{"no question was asked", "make syllabus"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			before := takeInventory(t)
			code, out := newLab(bad.given...).run(t)
			assert.Check(t, code != 0, "%s", out)
			for _, words := range bad.want {
				assert.Check(t, cmp.Contains(out, words))
			}
			assertHostUnchanged(t, before)
		})
	}
}

// A run in which only the selected subtest was skipped has answered nothing, although the question around it has passed.
func TestSkippedSubtest_IsNoAnswer(t *testing.T) {
	before := takeInventory(t)
	cmd := shell(t, `crun=$(command -v crun) && mount --bind /dev/null "$crun"
		exec "$LAB" -test.run=Bundle_CanRuncRunContainerdsBundleByItself/crun`)
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	assert.Check(t, err != nil, "%s", out)
	for _, words := range []string{
		"1 questions asked: 0 answered, 0 failed, 1 skipped", "no question was answered", "this machine has no crun",
	} {
		assert.Check(t, cmp.Contains(string(out), words))
	}
	assertHostUnchanged(t, before)
}

// ownRun gives a shell in a mount namespace of its own a /run of its own.
const ownRun = "mount -t tmpfs -o mode=755 tmpfs /run"

// Debian's initramfs mounts /run with noexec. The lab mounts a file system of its own on the run's directory then. A confined run does
// not: no other run would see its lock there.
func TestRunMountedNoexec_IsNoObstacle(t *testing.T) {
	before := takeInventory(t)
	dir := t.TempDir()
	hangs := "#!/bin/sh\ncase \"$*\" in *\" create \"*) exec sleep 1000;; esac\nexec " + tool(t, "runc") + " \"$@\"\n"
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "runc"), []byte(hangs), 0o755))
	for name, script := range map[string]string{
		"a run": `"$LAB" -test.run=Lifecycle_WhatIsTheDifference`,
		"a killed run": `CDB_RUNC="$DIR/runc" "$LAB" -test.timeout=1s -test.run=Lifecycle_WhatIsTheDifference >"$DIR/out" 2>&1
			cat "$DIR/out"; grep -q "panic: test timed out" "$DIR/out" &&
			for i in $(seq 60); do ls -d /run/cdb-lab/[0-9]* || break; sleep 1; done`,
		// The second run begins, and sweeps, while the first one is in progress. lab confine ends when its standard input does.
		"two confined runs": `mkfifo "$DIR/in" && exec 3<>"$DIR/in" && confine="` + labCommand + ` confine -jobs 2 --" &&
			{ $confine "$LAB" '` + chapterQuestions + `' <&3 & first=$!
			until ls -d /run/cdb-lab/[0-9]* || ! kill -0 $first; do sleep 0.1; done
			$confine "$LAB" -test.run=Lifecycle_WhatDoesKillDo <&3; second=$?
			wait $first && [ $second = 0 ]; }`,
	} {
		t.Run(name, func(t *testing.T) {
			cmd := shell(t, ownRun+" && mount -o remount,noexec /run && { "+script+"; } && "+
				"! ls -d /run/cdb-lab/[0-9]* && ! grep '^cdb-lab ' /proc/mounts")
			cmd.Env = append(cmd.Env, "DIR="+dir)
			cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
			out, err := cmd.CombinedOutput()
			assert.Check(t, err, "%s", out)
			assertHostUnchanged(t, before)
		})
	}
}

// The path of the checkout may have any characters, also in a script that is called in place of runc. A run writes nothing into the
// checkout.
func TestCheckout_OddNameAndReadOnly(t *testing.T) {
	before := takeInventory(t)
	cmd := shell(t, `odd="$DIR/it's a [1] \"dir\"" && mkdir "$odd" && mount --bind . "$odd" && mount -o remount,bind,ro "$odd" && cd "$odd" &&
		! mkdir .lab/x && ./`+testBinary+` -test.run='Lifecycle_WhatDoesKillDo|Task_WhereIsRuncInAllThis|Events_WhatDoDebugLogsAdd'`)
	cmd.Env = append(cmd.Env, "DIR="+t.TempDir())
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	assert.Check(t, err, "%s", out)
	assert.Check(t, cmp.Contains(string(out), "3 questions asked: 3 answered"))
	assertHostUnchanged(t, before)
}

// hideHypervisor hides the directories in which Xen, the firmware and the device tree say that this is a virtual machine.
const hideHypervisor = `for d in /sys/hypervisor /sys/class/dmi/id /proc/device-tree/hypervisor; do [ ! -d $d ] || mount -t tmpfs tmpfs $d; done`

// The lab refuses hosts on which it must not, or cannot, run. The test makes each such host in a mount namespace of its own.
func TestBadHost_IsRefused(t *testing.T) {
	cpuinfo := filepath.Join(t.TempDir(), "cpuinfo")
	data, err := os.ReadFile("/proc/cpuinfo")
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(cpuinfo, []byte(strings.ReplaceAll(string(data), " hypervisor", "")), 0o644))
	regular := filepath.Join(t.TempDir(), "null")
	assert.NilError(t, os.WriteFile(regular, nil, 0o666))
	const lab = `"$LAB"`
	for _, bad := range []struct {
		name, prepare, run string
		want               []string // in the output
	}{
		{"no root", ":", "setpriv --reuid 65534 --regid 65534 --clear-groups " + lab,
			[]string{"needs root; you are uid 65534", "sudo go test -tags vmlab ./..."}},
		{"no VM", "export CDB_DISPOSABLE=no && mount --bind " + cpuinfo + " /proc/cpuinfo && " + hideHypervisor, lab,
			[]string{"does not look like a virtual machine", "CDB_DISPOSABLE=yes make lab-here"}},
		{"no null device", "mount --bind " + regular + " /dev/null", lab,
			[]string{"/dev/null is no character device", "mknod -m 666 /dev/null c 1 3"}},
		{"the lab's directory is a link", ownRun + " && mkdir /run/elsewhere && ln -s elsewhere /run/cdb-lab", lab,
			[]string{"/run/cdb-lab is no directory, or a symbolic link"}},
		{"the lab's directory is another user's", ownRun + " && mkdir /run/cdb-lab && chown 65534 /run/cdb-lab", lab,
			[]string{"/run/cdb-lab belongs to uid 65534", "expected uid 0"}},
		{"no space", "mkdir -p /run/cdb-lab && mount -t tmpfs -o size=1m tmpfs /run/cdb-lab", lab,
			[]string{"MB free", "mount -t tmpfs"}},
		{"no inodes", "mkdir -p /run/cdb-lab && mount -t tmpfs -o nr_inodes=200,mode=755 tmpfs /run/cdb-lab", lab,
			[]string{"no space left on device"}},
		{"no cgroups", "umount -R /sys/fs/cgroup", lab, []string{"no cgroup hierarchy is mounted"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			before := takeInventory(t)
			cmd := shell(t, bad.prepare+" && exec "+bad.run)
			cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
			out, err := cmd.CombinedOutput()
			assert.Check(t, err != nil, "%s", out)
			for _, words := range bad.want {
				assert.Check(t, cmp.Contains(string(out), words))
			}
			_ = os.Remove("/run/cdb-lab") // the mount point that prepare made
			assertHostUnchanged(t, before)
		})
	}
}

// A janitor is started by a run alone. Nothing that a caller sets makes the lab answer nothing and succeed, or sweep a directory.
func TestJanitor_IsStartedByARunAlone(t *testing.T) {
	before := takeInventory(t)
	code, out := newLab("CDB_JANITOR=1", "-test.run=NoSuchQuestion").run(t)
	assert.Check(t, code != 0, "%s", out)
	assert.Check(t, cmp.Contains(out, "CDB_JANITOR"))

	precious := filepath.Join(t.TempDir(), "file")
	assert.NilError(t, os.WriteFile(precious, nil, 0o644))
	dir := filepath.Dir(precious)
	for _, mark := range []string{"", "1\n", dir + ":0123456789abcdef\n", "/run/cdb-lab/../.." + dir + ":1\n"} {
		janitor := newLab()
		janitor.Args[0] = "cdb-lab-janitor"
		janitor.Stdin = strings.NewReader(mark)
		code, _ := janitor.run(t)
		assert.Check(t, code != 0, "%q", mark)
		_, err := os.Stat(precious)
		assert.NilError(t, err)
	}
	assertHostUnchanged(t, before)
}

// What the caller's service manager, shell or containerd sets does not reach the programs under test, and a strict umask does not
// reach the files. No program needs HOME.
func TestCallersEnvironment_ChangesNothing(t *testing.T) {
	before := takeInventory(t)
	// The question about mounts asks for runc features.
	cmd := shell(t, `umask 077 && unset HOME && exec "$LAB" '`+chapterQuestions+"|WhichMountsMayTheContainerWriteTo' 2>&1")
	callers := []string{
		"NOTIFY_SOCKET=/run/no-such-socket", "CONTAINERD_NAMESPACE=other", "CONTAINERD_SNAPSHOTTER=none",
		"CONTAINERD_ADDRESS=/run/none", "XDG_RUNTIME_DIR=/none", "LISTEN_FDS=7", "LISTEN_PID=7", "RUNC_DEBUG=1",
	}
	cmd.Env = append(cmd.Env, callers...)
	// No call has them, also not the one for the version. The shim has what containerd has.
	dir := t.TempDir()
	programs := map[string]string{"CDB_RUNC": "runc", "CDB_CONTAINERD": "containerd", "CDB_CTR": "ctr"}
	for variable, name := range programs {
		wrapper := filepath.Join(dir, name)
		script := fmt.Sprintf("#!/bin/sh\nenv >> %s.env\nexec %s \"$@\"\n", wrapper, tool(t, name))
		assert.NilError(t, os.WriteFile(wrapper, []byte(script), 0o755))
		cmd.Env = append(cmd.Env, variable+"="+wrapper)
	}
	out, err := cmd.CombinedOutput()
	assert.Check(t, err, "%s", out)
	for _, name := range programs {
		seen, err := os.ReadFile(filepath.Join(dir, name+".env"))
		assert.NilError(t, err)
		assert.Check(t, strings.Contains("\n"+string(seen), "\nPATH="), "no environment of %s was seen", name)
		for _, variable := range callers {
			assert.Check(t, !strings.Contains("\n"+string(seen), "\n"+variable+"\n"), "the caller's %s has reached %s", variable, name)
		}
	}
	assertHostUnchanged(t, before)
}

// What the caller ignores (nohup, and a shell without job control) or blocks (perf record) is not passed on to containers: they
// could not catch it. The run itself does not end with a terminal that its caller ignores.
func TestCallersSignals_AreNotPassedOn(t *testing.T) {
	before := takeInventory(t)
	cmd := shell(t, `env --ignore-signal=HUP --block-signal=WINCH --block-signal=USR1 \
		"$LAB" -test.v -test.run='Lifecycle_WhatDoesKillDo|Lifecycle_HowDoesTheTerminal' & sleep 1; kill -HUP $!; wait $!`)
	out, err := cmd.CombinedOutput()
	assert.Check(t, err, "%s", out)
	assert.Check(t, cmp.Contains(string(out), "2 questions asked: 2 answered, 0 failed"))
	assertHostUnchanged(t, before)
}

// In go test -json, the notes of a question are attr events of its test.
func TestStream_NotesAreAttrEvents(t *testing.T) {
	code, out := newLab("-test.v=test2json", "-test.run=Lifecycle_WhatIsTheDifference").run(t)
	assert.Check(t, cmp.Equal(code, 0), "%s", out)
	for _, key := range []string{"question", "scope", "step", "command", "fact", "control", "answer"} {
		want := fmt.Sprintf("=== ATTR  TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart %s ", key)
		assert.Check(t, cmp.Contains(out, want))
	}
	assert.Check(t, cmp.Contains(out, `"value":"<pid 1>"`), "pids are recorded by number")
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, "=== ATTR") {
			assert.Check(t, !strings.Contains(line, "/run/cdb-lab/"), "a path of the run in %s", line)
		}
	}
}

// With -artifacts, a question writes its commands into a script, which can be run again by itself.
func TestTranscript_CanBeRunAgain(t *testing.T) {
	before := takeInventory(t)
	dir := t.TempDir()
	code, out := newLab("-test.run=Lifecycle_WhatIsTheDifference", "-test.artifacts", "-test.outputdir="+dir).run(t)
	assert.Assert(t, cmp.Equal(code, 0), "%s", out)
	scripts, err := filepath.Glob(filepath.Join(dir, "_artifacts", "*", "transcript.sh"))
	assert.NilError(t, err)
	assert.Assert(t, cmp.Len(scripts, 1))
	script, err := os.ReadFile(scripts[0])
	assert.NilError(t, err)
	// Another run may have the number by now, and would sweep what is not its own. So the script gets the number of a run that
	// this test holds.
	own, err := host.NewRun()
	assert.NilError(t, err)
	defer func() {
		_, err := own.Close()
		assert.Check(t, err)
		assertHostUnchanged(t, before)
	}()
	cmd := exec.Command("sh")
	cmd.Stdin = bytes.NewReader(regexp.MustCompile(`/cdb-lab/\d+/`).ReplaceAll(script, []byte("/cdb-lab/"+own.Owner.Run+"/")))
	cmd.Env = append(os.Environ(), host.OwnerEnv+"="+own.Mark())
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError // the last command asks for the state of a deleted container, and fails
	assert.Check(t, errors.As(err, &exit), "%v\n%s", err, output)
	for _, words := range []string{`"status": "created"`, `"status": "running"`, "container does not exist"} {
		assert.Check(t, cmp.Contains(string(output), words))
	}
}
