//go:build linux

package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/vm"
)

const module = "../.."

// find returns the finding of a name.
func find(t *testing.T, findings []Finding, name string) Finding {
	t.Helper()
	i := slices.IndexFunc(findings, func(f Finding) bool { return f.Name == name })
	assert.Assert(t, i >= 0, "no check is named %s: %v", name, findings)
	return findings[i]
}

// emptyPath makes PATH a directory with links to the named programs of the host, and nothing else.
func emptyPath(t *testing.T, keep ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range keep {
		path, err := exec.LookPath(name)
		assert.NilError(t, err)
		assert.NilError(t, os.Symlink(path, filepath.Join(dir, name)))
	}
	t.Setenv("PATH", dir)
	return dir
}

func TestBoth_NamesWhatIsMissingAndTheCommandThatProvidesIt(t *testing.T) {
	dir := emptyPath(t, "uname")
	t.Setenv("CDB_RUNC", "/nonexistent/runc")
	t.Setenv("CDB_BUSYBOX", "/nonexistent/busybox")
	findings := Both(module).Run(t.Context())
	for name, want := range map[string]Finding{
		"Go":      {Level: Missing, Seen: "not found", Do: []string{"https://go.dev/doc/install"}},
		"runc":    {Level: Missing, Seen: "CDB_RUNC=/nonexistent/runc names no executable", Do: []string{"unset CDB_RUNC"}},
		"busybox": {Level: Missing, Seen: "CDB_BUSYBOX=/nonexistent/busybox names no executable", Do: []string{"unset CDB_BUSYBOX"}},
	} {
		got := find(t, findings, name)
		assert.Check(t, cmp.Equal(got.Level, want.Level), name)
		assert.Check(t, cmp.Contains(got.Seen, want.Seen))
		assert.Check(t, cmp.Contains(strings.Join(got.Do, "\n"), want.Do[0]))
	}

	// The script asks for go first. With go, it looks for the compiler.
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\necho go version go9\n"), 0o755))
	findings = Both(module).Run(t.Context())
	assert.Check(t, cmp.Equal(find(t, findings, "Go").Level, OK))
	libraries := find(t, findings, "libraries")
	assert.Check(t, cmp.Equal(libraries.Level, Missing))
	assert.Check(t, cmp.Contains(libraries.Seen,
		"a C compiler (cc); a static libseccomp with its headers, and a static C library; pkg-config"))
	assert.Check(t, cmp.DeepEqual(libraries.Do, []string{"make deps"}))
}

// A module without .lab/bin has no tools. A run builds them, so it would not fail.
func TestBoth_ToolsThatARunBuildsAreNotMissing(t *testing.T) {
	dir := t.TempDir()
	for _, variable := range []string{"CDB_RUNC", "CDB_CONTAINERD", "CDB_CTR", "CDB_SHIM"} {
		t.Setenv(variable, "")
	}
	findings := Both(dir).Run(t.Context())
	for _, name := range []string{"runc", "containerd", "ctr", "containerd-shim-runc-v2"} {
		got := find(t, findings, name)
		assert.Check(t, cmp.DeepEqual(got, Finding{Name: name, Level: OK, Seen: "make lab and make lab-here build it first"}))
	}
}

// The results of runs are in .lab as well, and nothing makes them again.
func TestCheckDisk_KeepsTheResults(t *testing.T) {
	was := freeSpace
	freeSpace = func(string) (int64, error) { return 100 << 20, nil }
	t.Cleanup(func() { freeSpace = was })
	_, err := checkDisk(t.TempDir())
	assert.ErrorContains(t, err, "100 MB free for .lab, and a run needs 500 MB")
	assert.Check(t, cmp.Contains(err.Error(), "rm -rf .lab/vm "))
	for _, kept := range []string{"rm -rf .lab ", "rm -rf .lab:", ".lab/results", ".lab/compare"} {
		assert.Check(t, !strings.Contains(err.Error(), kept), "%v", err)
	}
}

func TestInVM_NamesWhatIsMissing(t *testing.T) {
	emptyPath(t)
	t.Setenv("CDB_MODULES", "")
	t.Setenv("CDB_KEEP", "faild")
	conf := vm.Config{Cgroup: "v3", Memory: 512, Accel: "auto", Kernel: "/nonexistent/vmlinuz"}
	cacheErr := &vm.Fault{Tried: "write", Seen: "read-only", Do: "copy the checkout"}
	findings := InVM(conf, &vm.Cache{Module: module}, cacheErr, t.Logf).Run(t.Context())
	for name, want := range map[string]Finding{
		"settings":       {Level: Missing, Seen: `CGROUP is "v3"`, Do: []string{"use v2, v1 or hybrid"}},
		"CDB_ variables": {Level: Missing, Seen: "CDB_KEEP=faild has no meaning", Do: []string{"unset CDB_KEEP"}},
		"cache":          {Level: Missing, Seen: "write: read-only", Do: []string{"copy the checkout"}},
		"QEMU":           {Level: Missing, Seen: "it is not on PATH", Do: []string{"make deps"}},
		"kernel":         {Level: Missing, Seen: "/nonexistent/vmlinuz: there is no such file", Do: []string{"name a version"}},
		"KVM":            {Level: Warning, Seen: "Emulation is slower", Do: []string{""}},
	} {
		got := find(t, findings, name)
		assert.Check(t, cmp.Equal(got.Level, want.Level), name)
		assert.Check(t, cmp.Contains(got.Seen, want.Seen))
		assert.Check(t, cmp.Contains(got.Do[0], want.Do[0]))
	}
}

// A disk image has its own kernel, so it is the image that is checked.
func TestInVM_ChecksTheDiskImage(t *testing.T) {
	conf := vm.Config{Cgroup: "v2", Memory: 512, Accel: "auto", Disk: "/nonexistent/node.qcow2", Tarball: "cdblab.tar.gz"}
	t.Setenv("CDB_CGROUP", "")
	cache, err := vm.NewCache(t.TempDir())
	assert.NilError(t, err)
	findings := InVM(conf, cache, nil, t.Logf).Run(t.Context())
	assert.Check(t, cmp.Equal(find(t, findings, "settings").Level, OK))
	assert.Check(t, cmp.Contains(find(t, findings, "room for its changes").Seen, "MB free"))
	image := find(t, findings, "disk image")
	assert.Check(t, cmp.Equal(image.Level, Missing))
	assert.Check(t, cmp.Contains(image.Seen, "no such file"))
	assert.Check(t, !slices.ContainsFunc(findings, func(f Finding) bool { return f.Name == "kernel" || f.Name == "KVM" }))
}

func TestHere_ShowsThePreconditionsOfARun(t *testing.T) {
	t.Setenv("CDB_KEEP", "faild")
	got := find(t, Here().Run(t.Context()), "settings")
	assert.Equal(t, got.Level, Missing)
	assert.Assert(t, cmp.Contains(got.Seen, "CDB_KEEP=faild has no meaning"))
	assert.DeepEqual(t, got.Do, []string{"Unset it:   unset CDB_KEEP"})
}

func TestChecks_ReportTooLittleMemoryAndAWrongClock(t *testing.T) {
	_, err := checkMemory(1 << 30)
	assert.ErrorContains(t, err, "MiB available, and 1073741824 MiB are needed")
	_, err = checkMemory(1)
	assert.NilError(t, err)

	dir := t.TempDir()
	goMod := filepath.Join(dir, "go.mod")
	assert.NilError(t, os.WriteFile(goMod, nil, 0o644))
	future := time.Now().Add(48 * time.Hour)
	assert.NilError(t, os.Chtimes(goMod, future, future))
	_, err = checkClock(dir)
	assert.ErrorContains(t, err, "go.mod was written at "+future.Format(time.DateTime))
}

func TestPrint_CountsTheLevels(t *testing.T) {
	g := Group{"Title", []Check{
		{"good", func(context.Context) (string, error) { return "seen", nil }, Missing},
		{"bad", func(context.Context) (string, error) { return "", errors.New("nothing\n    at all\n  mend it") }, Missing},
		{"slow", func(context.Context) (string, error) { return "", errors.New("something") }, Warning},
		{"tight", func(context.Context) (string, error) { return "", warning{errors.New("little")} }, Missing},
	}}
	var out strings.Builder
	count := Print(&out, g.Title, g.Run(t.Context()))
	assert.DeepEqual(t, count, map[Level]int{OK: 1, Missing: 1, Warning: 2})
	assert.Equal(t, out.String(), `Title
  ok       good                     seen
  missing  bad                      nothing: at all
                                      -> mend it
  warning  slow                     something
  warning  tight                    little
`)
}
