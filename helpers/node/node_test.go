//go:build linux

package node

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestParseVariant(t *testing.T) {
	v, mirror, err := ParseVariant(nil)
	assert.NilError(t, err)
	assert.Equal(t, v, Variant{Suite: "bookworm", Cgroup: "v2"})
	assert.Equal(t, v.Name(), "bookworm-cgroup-v2")
	assert.Equal(t, mirror, "")

	v, mirror, err = ParseVariant([]string{"SUITE=trixie", "CGROUP=v1", "SYSTEMD_CGROUP=1", "MIRROR=http://mirror.example/debian"})
	assert.NilError(t, err)
	assert.Equal(t, v, Variant{Suite: "trixie", Cgroup: "v1", SystemdCgroup: true})
	assert.Equal(t, v.Name(), "trixie-cgroup-v1-systemd-driver")
	assert.Equal(t, mirror, "http://mirror.example/debian")

	for _, word := range []string{
		"SUITE=", "SUITE=../etc", "SUITE=Bookworm", "CGROUP=v3", "SYSTEMD_CGROUP=yes", "MIRROR=bookworm", "KERNEL=6.12", "trixie",
	} {
		_, _, err := ParseVariant([]string{word})
		assert.ErrorContains(t, err, word)
		assert.ErrorContains(t, err, "SUITE=bookworm")
	}
}

func TestDebianAddresses(t *testing.T) {
	got := debianAddresses(`Debian|Debian|main|bookworm|http://mirror.example/debian/
Debian|Debian|contrib|bookworm|http://contrib.example/
Debian|Debian|main|bookworm-updates|http://updates.example/
Debian|Debian-Security|main|bookworm-security|http://security.example/
Debian|Debian Backports|main|bookworm-backports|http://backports.example/
Other|Other|main|bookworm|http://other.example/
$(ORIGIN)|$(LABEL)|main|$(CODENAME)|http://no-lists.example/
`)
	assert.DeepEqual(t, got, map[string]string{
		"": "http://mirror.example/debian/", "-updates": "http://updates.example/", "-security": "http://security.example/",
	})
}

func TestInstalled(t *testing.T) {
	got := installed(`NOTE: This is only a simulation!
Inst gcc-12-base (12.2.0-14+deb12u1 Debian:12.12/oldstable [amd64])
Inst libc6 (2.36-9+deb12u14 Debian:12.12/oldstable [amd64]) []
Conf libc6 (2.36-9+deb12u14 Debian:12.12/oldstable [amd64])
`)
	assert.DeepEqual(t, got, map[string]string{"gcc-12-base": "12.2.0-14+deb12u1", "libc6": "2.36-9+deb12u14"})
}

// The key changes with everything that the image is made from.
func TestRecipe_Key(t *testing.T) {
	make := func() *recipe {
		return &recipe{
			Variant: Variant{Suite: "bookworm", Cgroup: "v2"}, Mmdebstrap: []string{"--variant=apt"},
			Filesystem: "mkfs.ext4", Partitions: partitions,
			Env: []string{"NODE_LABEL=node-root"}, Versions: map[string]string{"runc": "1.1.5", "systemd": "252"},
		}
	}
	key := make().key()
	assert.Equal(t, make().key(), key)
	for what, change := range map[string]func(*recipe){
		"the variant":                 func(r *recipe) { r.Variant.SystemdCgroup = true },
		"an argument of mmdebstrap":   func(r *recipe) { r.Mmdebstrap[0] += "x" },
		"the script of the filesytem": func(r *recipe) { r.Filesystem += "x" },
		"the partitions":              func(r *recipe) { r.Partitions += "x" },
		"the environment":             func(r *recipe) { r.Env[0] += "x" },
		"a new version of a package":  func(r *recipe) { r.Versions["runc"] = "1.1.6" },
		"a new package":               func(r *recipe) { r.Versions["crun"] = "1.8" },
	} {
		r := make()
		change(r)
		assert.Check(t, r.key() != key, "%s changed, and the key did not", what)
	}
}

func TestBootSectors(t *testing.T) {
	boot := bytes.Repeat([]byte{0xb0}, sectorSize)
	boot[510], boot[511] = 0x55, 0xaa
	core := bytes.Repeat([]byte{0xc0}, 3*sectorSize)
	binary.LittleEndian.PutUint16(core[510:], 0x0820)

	code, placed, err := bootSectors(boot, core, 2048)
	assert.NilError(t, err)
	assert.Equal(t, len(code), 440, "the partition table begins after the code")
	assert.Equal(t, binary.LittleEndian.Uint64(code[0x5c:]), uint64(2048))
	assert.Equal(t, binary.LittleEndian.Uint64(placed[500:]), uint64(2049))
	// Nothing else has changed.
	copy(code[0x5c:], boot[:8])
	assert.DeepEqual(t, code, boot[:440])
	copy(placed[500:], core[:8])
	assert.DeepEqual(t, placed, core)

	_, _, err = bootSectors(boot[:100], core, 2048)
	assert.ErrorContains(t, err, "boot.img has 100 bytes")
	_, _, err = bootSectors(boot, boot, 2048)
	assert.ErrorContains(t, err, "core.img has 512 bytes")
}

// sfdisk makes the partitions that build.go writes into.
func TestPartitions(t *testing.T) {
	sfdisk, err := find("sfdisk")
	if err != nil {
		t.Skip("it needs sfdisk: apt-get install fdisk")
	}
	disk := filepath.Join(t.TempDir(), "disk.raw")
	assert.NilError(t, os.WriteFile(disk, nil, 0o644))
	assert.NilError(t, os.Truncate(disk, diskSize*mib))
	cmd := exec.Command(sfdisk, "--quiet", "--no-tell-kernel", disk)
	cmd.Stdin = strings.NewReader(partitions)
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)

	f, err := os.Open(disk)
	assert.NilError(t, err)
	defer f.Close()
	table := make([]byte, 34*sectorSize)
	_, err = f.ReadAt(table, 0)
	assert.NilError(t, err)
	assert.Equal(t, string(table[sectorSize:sectorSize+8]), "EFI PART")
	assert.Check(t, !slices.ContainsFunc(table[:bootCodeSize], func(b byte) bool { return b != 0 }), "the place of the boot code is not empty")
	for i, want := range []struct{ at, size uint64 }{{biosAt, biosSize}, {espAt, espSize}, {rootAt, rootSize}} {
		entry := table[2*sectorSize+128*i:] // https://uefi.org/specs/UEFI/2.10/05_GUID_Partition_Table_Format.html
		first, last := binary.LittleEndian.Uint64(entry[32:]), binary.LittleEndian.Uint64(entry[40:])
		assert.Equal(t, first*sectorSize, want.at*mib, "partition %d", i+1)
		assert.Equal(t, (last+1-first)*sectorSize, want.size*mib, "partition %d", i+1)
	}
}

func addImage(t *testing.T, s *store, v Variant, key string, made, used time.Time) string {
	t.Helper()
	path := s.path(v, key)
	assert.NilError(t, os.WriteFile(path, []byte(key), 0o644))
	assert.NilError(t, writeRecord(path, record{Variant: v, Key: key, Made: made, Size: int64(len(key))}))
	assert.NilError(t, os.Chtimes(recordOf(path), used, used))
	return path
}

func TestStore_LastImageOfAVariant(t *testing.T) {
	now := time.Now()
	s := &store{dir: t.TempDir(), log: t.Logf}
	bookworm, trixie := Variant{Suite: "bookworm", Cgroup: "v2"}, Variant{Suite: "trixie", Cgroup: "v2"}
	addImage(t, s, bookworm, "old", now.Add(-2*time.Hour), now)
	want := addImage(t, s, bookworm, "new", now.Add(-time.Hour), now)
	addImage(t, s, trixie, "newest", now, now)
	got, made := s.last(bookworm)
	assert.Equal(t, got, want)
	assert.Check(t, made.Equal(now.Add(-time.Hour)))

	// An image that was cut short is not used.
	assert.NilError(t, os.Truncate(want, 1))
	got, _ = s.last(bookworm)
	assert.Equal(t, got, s.path(bookworm, "old"))

	got, _ = s.last(Variant{Suite: "bookworm", Cgroup: "v1"})
	assert.Equal(t, got, "")
}

func TestStore_Sweep(t *testing.T) {
	now := time.Now()
	s := &store{dir: t.TempDir(), log: t.Logf}
	v := Variant{Suite: "bookworm", Cgroup: "v2"}
	unused := addImage(t, s, v, "unused", now, now.Add(-31*24*time.Hour))
	var all []string
	for i := range maxImages + 2 {
		all = append(all, addImage(t, s, v, string(rune('a'+i)), now, now.Add(-time.Duration(i)*time.Hour)))
	}
	noImage := recordOf(s.path(v, "removed-by-hand"))
	assert.NilError(t, os.WriteFile(noImage, nil, 0o644))
	noRecord := filepath.Join(s.dir, "killed.qcow2")
	assert.NilError(t, os.WriteFile(noRecord, nil, 0o644))
	killed := filepath.Join(s.dir, ".new-1/tree")
	assert.NilError(t, os.MkdirAll(killed, 0o755))
	s.sweep(now)
	for i, path := range all {
		_, err := os.Stat(path)
		assert.Equal(t, err == nil, i < maxImages, "image %d of %d, the most recently used first: %v", i+1, len(all), err)
		_, err = os.Stat(recordOf(path))
		assert.Equal(t, err == nil, i < maxImages, "its record: %v", err)
	}
	for _, path := range []string{unused, recordOf(unused), noRecord, noImage, filepath.Dir(killed)} {
		_, err := os.Stat(path)
		assert.Check(t, os.IsNotExist(err), "%s is still there: %v", path, err)
	}
}
