//go:build linux

package vm

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/vm/protocol"
)

const diskSize = 8 << 20

// newDisk writes an empty raw disk with these partitions, and with code in its master boot record.
func newDisk(t *testing.T, bootCode bool, types ...gpt.Type) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	b, err := file.CreateFromPath(path, diskSize)
	assert.NilError(t, err)
	defer b.Close()
	table := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true}
	for i, kind := range types {
		start := uint64(2048 * (i + 1))
		table.Partitions = append(table.Partitions, &gpt.Partition{Index: i + 1, Start: start, End: start + 2047, Type: kind})
	}
	w, err := b.Writable()
	assert.NilError(t, err)
	assert.NilError(t, table.Write(w, diskSize))
	if bootCode {
		_, err := w.WriteAt([]byte{0xeb, 0x63}, 0)
		assert.NilError(t, err)
	}
	return path
}

// newESPDisk writes a disk with a partition for UEFI that has these boot loaders, and with a root partition of the type that most
// distributions use for each architecture.
func newESPDisk(t *testing.T, bootCode bool, loaders ...string) string {
	t.Helper()
	const size, start = 48 << 20, 1 << 20
	path := filepath.Join(t.TempDir(), "disk.raw")
	b, err := file.CreateFromPath(path, size+2*start)
	assert.NilError(t, err)
	defer b.Close()
	table := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, Partitions: []*gpt.Partition{
		{Index: 1, Start: start / 512, End: (start+size)/512 - 1, Type: gpt.EFISystemPartition},
		{Index: 2, Start: (start + size) / 512, End: (start+size)/512 + 63, Type: gpt.LinuxFilesystem},
	}}
	if bootCode {
		table.Partitions[1].Type = typeBIOSBoot
	}
	w, err := b.Writable()
	assert.NilError(t, err)
	assert.NilError(t, table.Write(w, size+2*start))
	if bootCode {
		_, err := w.WriteAt([]byte{0xeb, 0x63}, 0)
		assert.NilError(t, err)
	}
	esp, err := fat32.Create(b, size, start, 512, "ESP", true)
	assert.NilError(t, err)
	assert.NilError(t, esp.Mkdir("EFI/BOOT"))
	for _, name := range loaders {
		f, err := esp.OpenFile("EFI/BOOT/"+name, os.O_CREATE|os.O_RDWR)
		assert.NilError(t, err)
		_, err = f.Write([]byte("MZ"))
		assert.NilError(t, errors.Join(err, f.Close()))
	}
	return path
}

func needQEMUImg(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is missing: install qemu-utils")
	}
}

func TestInspectDisk_KnowsHowItBoots(t *testing.T) {
	needQEMUImg(t)
	own, other := bootLoaders[runtime.GOARCH], otherLoader()
	for name, c := range map[string]struct {
		path       string
		uefi, bios bool
	}{
		"UEFI, with a boot loader":           {newESPDisk(t, false, own, "fbx64.efi"), true, false},
		"UEFI of two architectures":          {newESPDisk(t, false, other, own), true, false},
		"UEFI of another one, and BIOS":      {newESPDisk(t, true, other), true, true},
		"UEFI, without this file":            {newESPDisk(t, false), true, false},
		"UEFI":                               {newDisk(t, false, gpt.EFISystemPartition), true, false},
		"BIOS":                               {newDisk(t, true, typeBIOSBoot), false, true},
		"both":                               {newDisk(t, true, typeBIOSBoot, gpt.EFISystemPartition), true, true},
		"UEFI, and code that only says so":   {newDisk(t, true, gpt.EFISystemPartition), true, false},
		"BIOS, with no partition of its own": {newDisk(t, true, gpt.LinuxFilesystem), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", "/nonexistent") // a run that is killed would leave its copies there
			d, err := inspectDisk(t.Context(), c.path, tmp)
			assert.NilError(t, err)
			assert.Equal(t, d.format, "raw")
			assert.Equal(t, d.uefi, c.uefi)
			assert.Equal(t, d.bios, c.bios)

			qcow2 := c.path + ".qcow2"
			out, err := exec.Command("qemu-img", "convert", "-O", "qcow2", c.path, qcow2).CombinedOutput()
			assert.NilError(t, err, "%s", out)
			same, err := inspectDisk(t.Context(), qcow2, tmp)
			assert.NilError(t, err)
			assert.Equal(t, *same, disk{qcow2, "qcow2", c.uefi, c.bios})
			assert.Equal(t, len(entries(tmp)), 0)
		})
	}
}

// otherLoader is the boot loader of an architecture that this machine does not have.
func otherLoader() string {
	for arch, name := range bootLoaders {
		if arch != runtime.GOARCH {
			return name
		}
	}
	return ""
}

func TestInspectDisk_RefusesWhatDoesNotBoot(t *testing.T) {
	needQEMUImg(t)
	dir := t.TempDir()
	write := func(name string, size int64, at int64, content string) string {
		path := filepath.Join(dir, name)
		assert.NilError(t, os.WriteFile(path, nil, 0o644))
		assert.NilError(t, os.Truncate(path, size))
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		assert.NilError(t, err)
		_, err = f.WriteAt([]byte(content), at)
		assert.NilError(t, errors.Join(err, f.Close()))
		return path
	}
	other := gpt.Type(typeRootARM64)
	if runtime.GOARCH == "arm64" {
		other = typeRootAMD64
	}
	encrypted := filepath.Join(dir, "encrypted.qcow2")
	for attempt := 1; ; attempt++ {
		out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc",
			"-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", encrypted, "1M").CombinedOutput()
		// qemu-img measures the processor, and gives up where other programs have it.
		if err != nil && strings.Contains(string(out), "Unable to get accurate CPU usage") && attempt < 100 {
			continue
		}
		assert.NilError(t, err, "%s", out)
		break
	}
	cut := write("cut.qcow2", 100, 0, "QFI\xfb\x00\x00\x00\x03")
	for name, c := range map[string]struct{ path, seen string }{
		"none":                  {dir + "/none", "no such file"},
		"directory":             {dir, "it is a directory"},
		"empty":                 {write("empty", 0, 0, ""), "it is empty"},
		"device without blocks": {"/dev/null", "neither a file nor a block device"},
		"no boot loader":        {newDisk(t, false, gpt.LinuxFilesystem), "neither a boot loader for a BIOS nor a partition for UEFI"},
		"text":                  {write("text", 1<<20, 0, "hello\n"), "neither a boot loader"},
		"ISO":                   {write("installer.iso", 1<<20, 32769, "CD001"), "it is an ISO image"},
		"LUKS":                  {write("luks", 1<<20, 0, "LUKS\xba\xbe\x00\x02"), "it is encrypted"},
		"qcow2 with a key":      {encrypted, "it is encrypted"},
		"qcow2, cut short":      {cut, "qemu-img info"},
		"another architecture":  {newDisk(t, false, gpt.EFISystemPartition, other), "run the lab on a machine for"},
		"another boot loader":   {newESPDisk(t, false, strings.ToLower(otherLoader())), "its boot loader for UEFI is EFI/BOOT/" + otherLoader()},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := inspectDisk(t.Context(), c.path, t.TempDir())
			var f *Fault
			assert.Assert(t, errors.As(err, &f), "%v", err)
			assert.ErrorContains(t, err, c.seen)
			assert.Assert(t, f.Do != "")
		})
	}
}

// `make doctor` looks for all that a boot needs.
func TestCheckDisk_LooksForTheFirmwareAndTheUserData(t *testing.T) {
	needQEMUImg(t)
	was := firmwareDirs
	firmwareDirs = []string{t.TempDir()}
	t.Cleanup(func() { firmwareDirs = was })
	cache := &Cache{dir: t.TempDir()}
	_, err := (&Config{Disk: newESPDisk(t, false, bootLoaders[runtime.GOARCH])}).CheckDisk(t.Context(), cache)
	assert.ErrorContains(t, err, "find a UEFI")

	bios := newDisk(t, true)
	seen, err := (&Config{Disk: bios}).CheckDisk(t.Context(), cache)
	assert.NilError(t, err)
	assert.Equal(t, seen, bios+" (raw), booted by a BIOS")
	_, err = (&Config{Disk: bios, UserData: "/nonexistent"}).CheckDisk(t.Context(), cache)
	assert.ErrorContains(t, err, "read the user data for cloud-init")
}

func TestBootWatch_KnowsDeadEnds(t *testing.T) {
	for console, seen := range map[string]string{
		"Kernel panic - not syncing: VFS":                                        "panicked",
		"Please enter passphrase for disk QEMU (root): ":                         "passphrase",
		"You are in emergency mode. After logging in, type":                      "emergency mode",
		"Give root password for maintenance\n(or press Control-D":                "emergency mode",
		"ALERT! UUID=1 does not exist. Dropping to a shell!\r\n\r\n(initramfs) ": "did not find its root",
		"Booting from Hard Disk...\nNo bootable device.":                         "nothing to boot",
		"BdsDxe: No bootable option or device was found.":                        "nothing to boot",
		"error: unknown filesystem.\nEntering rescue mode...\ngrub rescue> ":     "nothing to boot",
		"[  OK  ] Reached target emergency.target is not what this line says":    "",
		"Linux version 6.1.0\n":                                                  "",
	} {
		got, do := newBootWatch("kvm").check(console)
		assert.Check(t, cmp.Contains(got, seen), console)
		assert.Check(t, (got == "") == (seen == ""), "%q: %s", console, got)
		assert.Check(t, (do == "") == (got == ""))
	}
	// A disk with a master boot record does not say for which architecture it is.
	_, do := newBootWatch("kvm").check("BdsDxe: No bootable option or device was found.")
	assert.Check(t, cmp.Contains(do, "for "+runtime.GOARCH+": this machine boots no other architecture"))
}

// What is in the partition for UEFI is not known before. The library divides by some of these bytes.
func TestEFIBoot_ADamagedFileSystemHasNoBootLoader(t *testing.T) {
	for name, create := range map[string]func(backend.Storage) (filesystem.FileSystem, error){
		"FAT32": func(b backend.Storage) (filesystem.FileSystem, error) {
			return fat32.Create(b, 48<<20, 0, 512, "ESP", true)
		},
		"FAT16": func(b backend.Storage) (filesystem.FileSystem, error) {
			return fat16.Create(b, 48<<20, 0, 512, "ESP", true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := file.CreateFromPath(filepath.Join(t.TempDir(), "esp"), 48<<20)
			assert.NilError(t, err)
			defer b.Close()
			esp, err := create(b)
			assert.NilError(t, err)
			assert.NilError(t, esp.Mkdir("EFI/BOOT"))
			f, err := esp.OpenFile("EFI/BOOT/BOOTX64.EFI", os.O_CREATE|os.O_RDWR)
			assert.NilError(t, err)
			assert.NilError(t, f.Close())
			assert.DeepEqual(t, efiBoot(b), []string{"BOOTX64.EFI"})

			w, err := b.Writable()
			assert.NilError(t, err)
			sector := make([]byte, 512)
			_, err = b.ReadAt(sector, 0)
			assert.NilError(t, err)
			for at := 11; at < 36; at++ { // the bytes that describe the file system
				for _, value := range []byte{0, 1, 0xff} {
					damaged := bytes.Clone(sector)
					damaged[at] = value
					_, err = w.WriteAt(damaged, 0)
					assert.NilError(t, err)
					efiBoot(b) // it ends, and does not panic
				}
			}
			assert.NilError(t, os.Truncate(b.Path(), 4096))
			assert.Equal(t, len(efiBoot(b)), 0)
		})
	}
}

func TestBootWatch_WaitsAfterALoginPrompt(t *testing.T) {
	w := newBootWatch("kvm")
	const console = "Debian GNU/Linux 12 node ttyS0\r\n\r\nnode login: "
	seen, _ := w.check(console)
	assert.Equal(t, seen, "")
	w.login = time.Now().Add(-w.loginLimit - time.Second)
	seen, do := w.check(console)
	assert.Check(t, cmp.Contains(seen, "login prompt"))
	assert.Check(t, cmp.Contains(do, "cloud-init"))

	// A late prompt has the same time after it.
	w = newBootWatch("kvm")
	w.start = time.Now().Add(-w.limit - time.Second)
	w.login = time.Now()
	seen, _ = w.check(console)
	assert.Equal(t, seen, "")

	w = newBootWatch("kvm")
	w.start = time.Now().Add(-w.limit - time.Second)
	_, do = w.check("")
	assert.Check(t, cmp.Contains(do, "console="))
	seen, _ = w.check("loading\n")
	assert.Check(t, cmp.Contains(seen, "did not start the lab's service"))
}

func TestFirmware_SuitsTheMachine(t *testing.T) {
	q := &qemu{platform: platforms["amd64"]}
	const good = `{"interface-types":["uefi"],"mapping":{"device":"flash","executable":{"filename":"/code","format":"raw"},
		"nvram-template":{"filename":"/vars","format":"raw"}},
		"targets":[{"architecture":"x86_64","machines":["pc-i440fx-*","pc-q35-*"]}],"features":["acpi-s3"]}`
	assert.Equal(t, *q.parseFirmware([]byte(good)), firmware{"/code", "/vars"})
	for _, change := range [][2]string{
		{`"uefi"`, `"bios"`}, {"x86_64", "aarch64"}, {"acpi-s3", "enrolled-keys"}, {"acpi-s3", "requires-smm"},
		{"pc-q35", "pc-q99"}, {"flash", "memory"},
	} {
		assert.Check(t, q.parseFirmware([]byte(strings.ReplaceAll(good, change[0], change[1]))) == nil, "%v", change)
	}
}

// seedParts returns the parts of the user data, with their content decoded, as cloud-init walks through them.
func seedParts(t *testing.T, contentType string, body io.Reader) (kinds, contents []string) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	assert.NilError(t, err)
	if !strings.HasPrefix(kind, "multipart/") {
		b, err := io.ReadAll(body)
		assert.NilError(t, err)
		return []string{contentType}, []string{string(b)}
	}
	for parts := multipart.NewReader(body, params["boundary"]); ; {
		part, err := parts.NextPart()
		if err == io.EOF {
			return kinds, contents
		}
		assert.NilError(t, err)
		var content io.Reader = part
		if part.Header.Get("Content-Transfer-Encoding") == "base64" {
			content = base64.NewDecoder(base64.StdEncoding, part)
		}
		k, c := seedParts(t, part.Header.Get("Content-Type"), content)
		kinds, contents = append(kinds, k...), append(contents, c...)
	}
}

func TestUserData_BothPartsReachCloudInit(t *testing.T) {
	own := filepath.Join(t.TempDir(), "user-data")
	const text = `text/plain; charset="utf-8"`
	long := "#cloud-config\n# Grüße\n# " + strings.Repeat("x", 200) + "\n"
	for name, c := range map[string]struct {
		own             string
		kinds, contents []string
	}{
		"text":                      {"#cloud-config\nhostname: node\n", []string{text}, []string{"#cloud-config\nhostname: node\n"}},
		"text that is not in ASCII": {long, []string{text}, []string{long}},
		"message": {"Content-Type: text/cloud-config\nMIME-Version: 1.0\n\nhostname: node\n",
			[]string{"text/cloud-config"}, []string{"hostname: node\n"}},
		"message of two parts": {
			"MIME-Version: 1.0\nContent-Type: multipart/mixed;\n boundary=\"b\"\n\n--b\nContent-Type: text/cloud-config\n\nhostname: node\n" +
				"--b\nContent-Type: text/x-shellscript\nContent-Transfer-Encoding: base64\n\nIyEvYmluL3NoCg==\n--b--\n",
			[]string{"text/cloud-config", "text/x-shellscript"}, []string{"hostname: node", "#!/bin/sh\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.NilError(t, os.WriteFile(own, []byte(c.own), 0o644))
			b, err := seedUserDataOf(own)
			assert.NilError(t, err)
			m, err := mail.ReadMessage(bytes.NewReader(b))
			assert.NilError(t, err)
			kinds, contents := seedParts(t, m.Header.Get("Content-Type"), m.Body)
			assert.DeepEqual(t, kinds, append(c.kinds, "text/x-shellscript"))
			assert.DeepEqual(t, contents, append(c.contents, seedUserData))
		})
	}
	for _, unknown := range []string{"hostname: node\n", "hostname: node\n\nmore\n", ""} {
		assert.NilError(t, os.WriteFile(own, []byte(unknown), 0o644))
		_, err := seedUserDataOf(own)
		assert.ErrorContains(t, err, "cloud-init does not know what it is")
	}
}

func TestDiskFiles_AreAllThatTheImageIsReadFrom(t *testing.T) {
	fakeProgram(t, "qemu-img", `case "$*" in *--backing-chain*" /"*/node:12.qcow2) ;; *) exit 1;; esac # QEMU takes node: for a protocol
cat <<'EOT'
[{"filename": "node.qcow2", "format": "qcow2", "format-specific": {"type": "qcow2", "data": {"compat": "1.1"}}},
 {"filename": "/images/base.vmdk", "format": "vmdk", "format-specific": {"type": "vmdk", "data": {"extents": [
   {"filename": "/images/base.vmdk", "format": "SPARSE"}, {"filename": "/images/base-flat.vmdk", "format": "FLAT"}]}}},
 {"filename": "/images/base.raw", "format": "raw"}]
EOT`)
	files, err := DiskFiles(t.Context(), "node:12.qcow2")
	assert.NilError(t, err)
	assert.DeepEqual(t, files, []string{"/images/base-flat.vmdk", "/images/base.raw", "/images/base.vmdk", "node.qcow2"})

	fakeProgram(t, "qemu-img", "echo no such file >&2; exit 1")
	_, err = DiskFiles(t.Context(), "node.qcow2")
	assert.ErrorContains(t, err, "no such file")
}

// The guest runs programs from the seed disk, so their names and permissions must survive.
func TestSeed_KeepsNamesAndPermissions(t *testing.T) {
	work := t.TempDir()
	lib := filepath.Join(work, protocol.SeedTree, "lib")
	assert.NilError(t, os.MkdirAll(lib, 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(lib, "lab-init"), []byte("program"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(lib, "containerd-shim-runc-v2"), []byte("shim"), 0o755))
	// These names begin with the same letters, and ISO 9660 itself has short names only.
	var releases []string
	for _, version := range []string{"1.7.29", "2.0.7", "2.0.8"} {
		for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
			file := filepath.Join(protocol.SeedTree, "releases/containerd-"+version+"-go1.26.8-528af16d", name)
			releases = append(releases, file)
			assert.NilError(t, os.MkdirAll(filepath.Dir(filepath.Join(work, file)), 0o755))
			assert.NilError(t, os.WriteFile(filepath.Join(work, file), []byte(file), 0o755))
		}
	}
	image, err := writeSeed(work, t.TempDir(), []byte(seedUserData), 90*time.Second)
	assert.NilError(t, err)
	defer image.Close()
	fs, err := iso9660.Read(file.New(image, true), 0, 0, 0)
	assert.NilError(t, err)
	assert.Equal(t, strings.Trim(fs.Label(), " \x00"), protocol.SeedLabel)
	for path, mode := range map[string]os.FileMode{
		"lab-init": 0o755, "start.sh": 0o644, "user-data": 0o644, "meta-data": 0o644, "cdblab.service": 0o644,
		"cdblab/lib/containerd-shim-runc-v2": 0o755,
	} {
		info, err := fs.Stat(path)
		assert.NilError(t, err, path)
		assert.Equal(t, info.Mode().Perm(), mode, path)
	}
	// The script has the time that this boot may take.
	script, err := fs.ReadFile("start.sh")
	assert.NilError(t, err)
	assert.Check(t, cmp.Contains(string(script), "\nlimit=90\n"))
	for _, path := range releases {
		content, err := fs.ReadFile(path)
		assert.NilError(t, err, path)
		assert.Equal(t, string(content), path)
	}
}
