//go:build linux

package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// fakeApt puts an apt on PATH that knows one mirror. update and install are shell commands: what apt-get does then.
func fakeApt(t *testing.T, update, install string) {
	t.Helper()
	dir := t.TempDir()
	aptGet := fmt.Sprintf(`#!/bin/sh
case " $* " in
*" indextargets "*) echo 'Debian|Debian|main|bookworm|http://mirror.example/debian/' ;;
*" update "*) %s ;;
*" install "*) %s ;;
esac
`, update, install)
	aptCache := "#!/bin/sh\necho '      crun | 1.8.1-1 | http://mirror.example/debian bookworm/main amd64 Packages'\n"
	for name, script := range map[string]string{"apt-get": aptGet, "apt-cache": aptCache} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// logged returns a store in a new directory, and what it logs.
func logged(t *testing.T) (*store, *strings.Builder) {
	t.Helper()
	var log strings.Builder
	return &store{dir: t.TempDir(), log: func(format string, args ...any) { fmt.Fprintf(&log, format+"\n", args...) }}, &log
}

const (
	unreachable = `echo "E: Could not resolve 'mirror.example'" >&2; exit 100`
	systemd252  = `echo 'Inst systemd (252.39-1 Debian:12 [amd64])
Inst linux-image-6.1.0-56-cloud-amd64 (6.1.192-2 Debian:12 [amd64])
Inst linux-image-cloud-amd64 (6.1.192-2 Debian:12 [amd64])'`
)

func TestStore_ImageOfTodaysPackages(t *testing.T) {
	fakeApt(t, "true", systemd252)
	s, log := logged(t)
	v := Variant{Suite: "bookworm", Cgroup: "v2"}
	a, err := openArchive(t.Context(), filepath.Join(s.dir, "apt/bookworm"), v.Suite, "")
	assert.NilError(t, err)
	assert.DeepEqual(t, a.sources, []string{"deb [signed-by=" + keyring + "] http://mirror.example/debian/ bookworm main"})
	r, err := newRecipe(t.Context(), a, v)
	assert.NilError(t, err)
	assert.DeepEqual(t, r.Versions, map[string]string{"systemd": "252.39-1", "linux-image-6.1.0-56-cloud-amd64": "6.1.192-2"})
	include := strings.Join(r.Mmdebstrap, " ")
	assert.Check(t, strings.Contains(include, ",linux-image-6.1.0-56-cloud-amd64,"), "the kernel itself is not installed: %s", include)
	assert.Check(t, !strings.Contains(include, ","+kernel+","), "the package that depends on the kernel is installed: %s", include)
	assert.Check(t, strings.Contains(include, ",crun "), "crun, which the suite has, is not installed: %s", include)
	assert.Check(t, !strings.Contains(include, ",criu"), "criu, which the suite does not have, is installed: %s", include)

	want := addImage(t, s, v, r.key(), time.Now(), time.Now())
	got, err := s.image(t.Context(), v, "")
	assert.NilError(t, err)
	assert.Equal(t, got, want)
	assert.Check(t, !strings.Contains(log.String(), "newer packages"), log.String())
}

func TestStore_LastImageWhereTheArchiveIsNotReachable(t *testing.T) {
	fakeApt(t, unreachable, unreachable)
	s, log := logged(t)
	v := Variant{Suite: "bookworm", Cgroup: "v2"}
	_, err := s.image(t.Context(), v, "")
	assert.ErrorContains(t, err, "Could not resolve 'mirror.example'")
	assert.ErrorContains(t, err, "what to do: check the network")

	want := addImage(t, s, v, "yesterday", time.Now().Add(-24*time.Hour), time.Now())
	got, err := s.image(t.Context(), v, "")
	assert.NilError(t, err)
	assert.Equal(t, got, want)
	assert.Check(t, strings.Contains(log.String(), "can't find out whether there are newer packages"), log.String())
}

// After a month without a run, the image is there for a machine without a network.
func TestStore_LastImageOfAMonthAgo(t *testing.T) {
	fakeApt(t, unreachable, unreachable)
	s, _ := logged(t)
	v := Variant{Suite: "bookworm", Cgroup: "v2"}
	monthAgo := time.Now().Add(-imageUse - time.Hour)
	want := addImage(t, s, v, "of a month ago", monthAgo, monthAgo)
	for range 2 { // the first run renews it
		got, err := s.image(t.Context(), v, "")
		assert.NilError(t, err)
		assert.Equal(t, got, want)
	}
}

// The image that is made has the packages of now, and the lists are those of this morning.
func TestStore_MakesAnImageByListsOfNow(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old")
	assert.NilError(t, os.WriteFile(old, nil, 0o644))
	fakeApt(t, "rm -f '"+old+"'", "test -e '"+old+"' && "+systemd252+" || "+strings.ReplaceAll(systemd252, "252.39-1", "252.40-1"))
	s, log := logged(t)
	v := Variant{Suite: "bookworm", Cgroup: "v2"}
	a, err := openArchive(t.Context(), filepath.Join(s.dir, "apt/bookworm"), v.Suite, "")
	assert.NilError(t, err)
	morning := time.Now().Add(-5 * time.Hour)
	assert.NilError(t, os.WriteFile(a.stamp(), nil, 0o644))
	assert.NilError(t, os.Chtimes(a.stamp(), morning, morning))
	before, err := newRecipe(t.Context(), a, v)
	assert.NilError(t, err)

	fail := "#!/bin/sh\nexit 1\n" // what it would install is in the log
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte(fail), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	_, err = s.image(t.Context(), v, "")
	assert.ErrorContains(t, err, "mmdebstrap")
	assert.Check(t, strings.Contains(log.String(), "making the disk image of a node: linux-image-6.1.0-56-cloud-amd64 6.1.192-2, "+
		"systemd 252.40-1"), log.String())

	// An image of these lists is found without a network.
	want := addImage(t, s, v, before.key(), time.Now(), time.Now())
	assert.NilError(t, os.WriteFile(old, nil, 0o644))
	assert.NilError(t, os.Chtimes(a.stamp(), morning, morning))
	got, err := s.image(t.Context(), v, "")
	assert.NilError(t, err)
	assert.Equal(t, got, want)
}

// The lists of yesterday are there: their image is used, or else the one that was made last.
func TestStore_OldListsWhereTheArchiveIsNotReachable(t *testing.T) {
	fakeApt(t, unreachable, systemd252)
	s, log := logged(t)
	v := Variant{Suite: "bookworm", Cgroup: "v2"}
	last := addImage(t, s, v, "yesterday", time.Now(), time.Now())
	got, err := s.image(t.Context(), v, "")
	assert.NilError(t, err)
	assert.Equal(t, got, last)

	a, err := openArchive(t.Context(), filepath.Join(s.dir, "apt/bookworm"), v.Suite, "")
	assert.NilError(t, err)
	r, err := newRecipe(t.Context(), a, v)
	assert.NilError(t, err)
	want := addImage(t, s, v, r.key(), time.Now().Add(-time.Hour), time.Now())
	log.Reset()
	got, err = s.image(t.Context(), v, "")
	assert.NilError(t, err)
	assert.Equal(t, got, want)
	assert.Check(t, strings.Contains(log.String(), "can't find out whether there are newer packages"), log.String())
}

func TestNewRecipe_SystemdWithoutCgroupV1(t *testing.T) {
	fakeApt(t, "true", `echo 'Inst systemd (258.1-1 Debian:14 [amd64])'`)
	s, _ := logged(t)
	_, err := s.image(t.Context(), Variant{Suite: "forky", Cgroup: "v1"}, "")
	assert.ErrorContains(t, err, "its systemd is version 258")
	assert.ErrorContains(t, err, "SUITE=bookworm CGROUP=v1")
}

func TestOpenArchive_NoDebian(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'Ubuntu|Ubuntu|main|noble|http://mirror.example/ubuntu/'\n"
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "apt-get"), []byte(script), 0o755))
	t.Setenv("PATH", dir)
	_, err := openArchive(t.Context(), t.TempDir(), "bookworm", "")
	assert.ErrorContains(t, err, "MIRROR=http")
	a, err := openArchive(t.Context(), t.TempDir(), "trixie", "http://mirror.example/debian")
	assert.NilError(t, err)
	assert.Equal(t, len(a.sources), 2, "%q", a.sources) // trixie and trixie-updates
	for _, suite := range []string{"sid", "unstable"} {
		a, err = openArchive(t.Context(), t.TempDir(), suite, "http://mirror.example/debian")
		assert.NilError(t, err)
		assert.Equal(t, len(a.sources), 1, "%q", a.sources)
	}
}

func TestReason(t *testing.T) {
	assert.Equal(t, reason("Get:1\nE: Failed to fetch x  404\nE: mmdebstrap failed to run\n"), "E: Failed to fetch x  404")
	assert.Equal(t, reason("+ sfdisk\nSector 67584 already used.\n"), "Sector 67584 already used.")
}
