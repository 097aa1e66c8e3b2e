//go:build linux

package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/vm/protocol"
)

var timeInJSON = regexp.MustCompile(`"Time":"[^"]*"`)

const answers = "echo " + protocol.ProbeReply + " >&3" // file 3 is the guest's console

func TestProbe_RemembersOnlyWhatIsAboutKVM(t *testing.T) {
	was := probeTimeout
	t.Cleanup(func() { probeTimeout = was })
	init := filepath.Join(t.TempDir(), "init")
	assert.NilError(t, os.WriteFile(init, []byte("pid 1"), 0o644))

	for name, c := range map[string]struct {
		boot       string // the script in the place of QEMU
		prepare    func(t *testing.T) context.Context
		problem    string
		remembered bool
	}{
		"KVM works":                   {boot: answers, remembered: true},
		"the guest is silent":         {boot: "sleep 1000", problem: "silent for 500ms", remembered: true},
		"QEMU refuses KVM":            {boot: "echo failed to initialize kvm >&2; exit 1", problem: "failed to initialize kvm", remembered: true},
		"another process killed QEMU": {boot: "kill -9 $$", problem: "signal: killed"},
		"no room for the initrd": {boot: answers, problem: "no such file", prepare: func(t *testing.T) context.Context {
			t.Setenv("TMPDIR", "/nonexistent")
			return t.Context()
		}},
		"the run was stopped": {boot: "sleep 1000", problem: "stopped", prepare: func(t *testing.T) context.Context {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(&Stopped{Code: 130})
			return ctx
		}},
	} {
		t.Run(name, func(t *testing.T) {
			// On a busy machine a script takes seconds to start.
			if probeTimeout = time.Minute; name == "the guest is silent" {
				probeTimeout = 500 * time.Millisecond
			}
			fakeQEMU(t, "case \"$*\" in *--version*) echo QEMU emulator version 9.0.0; exit;; esac\n"+c.boot)
			q, err := findQEMU(t.Context())
			assert.NilError(t, err)
			cache := &Cache{dir: t.TempDir()}
			ctx := t.Context()
			if c.prepare != nil {
				ctx = c.prepare(t)
			}
			got := cache.probeKVM(ctx, q, q.probe(&kernel{image: "/dev/null"}, init), t.Logf)
			assert.Assert(t, cmp.Contains(got, c.problem))
			assert.Equal(t, got == "", c.problem == "")
			_, err = os.Stat(cache.path("kvm.json"))
			assert.Equal(t, err == nil, c.remembered, "%s", got)
		})
	}
}

// A stop ends the run, and says nothing about KVM.
func TestProbe_AStopIsNoProblemOfKVM(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&Stopped{Code: 130})
	var logged []string
	log := func(format string, _ ...any) { logged = append(logged, format) }
	stopped := func(ctx context.Context) error { return context.Cause(ctx) }
	_, err := (&Cache{dir: t.TempDir()}).chooseAccelerator(ctx, new(qemu), "auto", stopped, log)
	assert.ErrorContains(t, err, "stopped")
	assert.Check(t, !slices.ContainsFunc(logged, func(line string) bool { return strings.Contains(line, "not used") }), "%q", logged)
}

// A machine of arm64 has no firmware of its own.
func TestFirmwareBoot_HasAFirmware(t *testing.T) {
	dir, args := t.TempDir(), filepath.Join(t.TempDir(), "args")
	was := firmwareDirs
	firmwareDirs = []string{dir}
	t.Cleanup(func() { firmwareDirs = was })
	fakeProgram(t, "qemu", "echo \"$*\" >'"+args+"'; echo UEFI firmware >&3; exec sleep 1000")
	boot := func(arch string) (string, error) {
		path, err := exec.LookPath("qemu")
		assert.NilError(t, err)
		err = firmwareBoot(t.Context(), &qemu{platform: platforms[arch], path: path}, time.Minute)
		b, _ := os.ReadFile(args)
		return string(b), err
	}
	_, err := boot("arm64")
	assert.ErrorContains(t, err, "find a UEFI")
	const description = `{"interface-types":["uefi"],"mapping":{"device":"flash","executable":{"filename":"/code","format":"raw"}},
		"targets":[{"architecture":"aarch64","machines":["virt-*"]}]}`
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "60-edk2.json"), []byte(description), 0o644))
	for arch, has := range map[string]bool{"arm64": true, "amd64": false} {
		got, err := boot(arch)
		assert.NilError(t, err)
		assert.Equal(t, strings.Contains(got, "if=pflash,unit=0,format=raw,readonly=on,file=/code"), has, got)
	}
}

func TestProbe_AsksAgainAfterAnHour(t *testing.T) {
	init := filepath.Join(t.TempDir(), "init")
	assert.NilError(t, os.WriteFile(init, []byte("pid 1"), 0o644))
	works := filepath.Join(t.TempDir(), "works")
	fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0; exit;; esac
test -e '`+works+`' && `+answers)
	q, err := findQEMU(t.Context())
	assert.NilError(t, err)
	cache := &Cache{dir: t.TempDir()}
	probe := func() string {
		return cache.probeKVM(t.Context(), q, q.probe(&kernel{image: "/dev/null"}, init), t.Logf)
	}
	assert.Assert(t, cmp.Contains(probe(), "before the guest answered"))
	assert.NilError(t, os.WriteFile(works, nil, 0o644))
	assert.Assert(t, cmp.Contains(probe(), "result of an earlier probe"))

	b, err := os.ReadFile(cache.path("kvm.json"))
	assert.NilError(t, err)
	old := timeInJSON.ReplaceAll(b, []byte(`"Time":"`+time.Now().Add(-noKVMAge).Format(time.RFC3339)+`"`))
	assert.NilError(t, os.WriteFile(cache.path("kvm.json"), old, 0o644))
	assert.Equal(t, probe(), "")
}
