//go:build linux

package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"cdblab/helpers/tools"
)

// image returns the image with the tools and the modules, and the variables of the environment that name the tools
// in the guest. It makes the image where there is none of just this content.
func (c *Cache) image(ctx context.Context, k *Kernel, say func(string, ...any)) (file string, env []string, err error) {
	known := c.digests()
	defer known.save()
	key := sha256.New()
	fmt.Fprintln(key, "4", k.Release, k.Modules) // counts the layouts of the image
	t := tree{}
	var busybox string
	var pinned []string
	for _, tool := range tools.All {
		from, err := findTool(tool, c.Module)
		if err != nil {
			return "", nil, err
		}
		if from == "" {
			continue
		}
		if err := t.program(tool.GuestPath, from); err != nil {
			return "", nil, err
		}
		if tool.Env != "" {
			env = append(env, tool.Env+"="+tool.GuestPath)
			if tool.Pinned() {
				pinned = append(pinned, tool.Env)
			}
		}
		if tool.Name == "busybox" {
			busybox = from
		}
	}
	// In the guest each tool is named by its variable; that nobody named it outside has to be said besides.
	env = append(env, tools.PinnedEnv+"="+strings.Join(pinned, ","))
	for _, name := range t.names() {
		sum, err := known.of(t[name].from)
		if err != nil {
			return "", nil, err
		}
		fmt.Fprintln(key, name, sum)
	}
	file = c.path("root-" + hex.EncodeToString(key.Sum(nil))[:16] + ".erofs")
	if whole(file) {
		now := time.Now()
		_ = os.Chtimes(file, now, now) // the sweep below goes by age
		return file, env, nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	if whole(file) {
		return file, env, nil // another run made it while this one waited
	}
	if _, err := os.Stat(file); err == nil {
		say("the image %s was cut short; making it again", filepath.Base(file))
	} else {
		say("making the image with the tools and the kernel's modules")
	}
	if err := t.system(busybox); err != nil {
		return "", nil, err
	}
	list, err := k.modules(guestModules)
	if err != nil {
		return "", nil, err
	}
	t.modules(k.Release, list)
	c.sweepImages()
	if err := t.save(file); err != nil {
		return "", nil, diskFault("make the image "+file, c.dir, err)
	}
	return file, env, nil
}

// system adds what makes a tree of programs a Linux system.
func (t tree) system(busybox string) error {
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		t.dir("/usr/" + l)
		t.link("/"+l, "usr/"+l)
	}
	for _, d := range []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/home", "/mnt", "/opt", "/srv", "/usr/local/bin", "/usr/local/sbin", "/var/cache", "/var/lib", "/var/lib/containerd", "/var/log"} {
		t.dir(d)
	}
	t["/var/tmp"] = node{mode: os.ModeDir | os.ModeSticky | 0o777}
	t.link("/var/run", "../run")
	t.data("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	t.data("/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
	t.data("/etc/hosts", "127.0.0.1 localhost lab\n::1 localhost\n")
	t.data("/etc/hostname", "lab\n")
	t.data("/etc/resolv.conf", "")
	t.data("/etc/nsswitch.conf", "hosts: files\n")
	t.data("/etc/os-release", "ID=cdblab\nNAME=\"the lab's throw-away VM\"\n")
	t.data("/etc/profile", "PS1='lab:\\w# '\nalias ll='ls -l'\n")

	out, err := exec.Command(busybox, "--list-full").Output()
	if err != nil {
		return &Fault{Tried: "list busybox's applets", Seen: err.Error(), Do: "see that " + busybox + " --list-full works, or set CDB_BUSYBOX to another static busybox"}
	}
	for applet := range strings.Lines(string(out)) {
		at := merged("/" + strings.TrimSpace(applet))
		if at = path.Clean(at); !t.has(at) && strings.HasPrefix(at, "/usr/") {
			t.link(at, "/bin/busybox")
		}
	}
	return nil
}

// trailer ends every image that was written to its end. One cut short by a full disk or a copy has none.
const trailer = "\ncdblab: this image is whole\n"

func (t tree) save(file string) error {
	f, err := renameio.NewPendingFile(file, renameio.WithTempDir(filepath.Dir(file)), renameio.WithStaticPermissions(0o644))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	if err := t.write(f.File, filepath.Dir(file)); err != nil {
		return err
	}
	if err := finish(f.File); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// finish adds the trailer, so that it ends with a sector: a disk has whole ones only.
func finish(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	end := make([]byte, 512+(512-size%512)%512)
	copy(end[len(end)-len(trailer):], trailer)
	_, err = f.Write(end)
	return err
}

func whole(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	end := make([]byte, len(trailer))
	if _, err := f.Seek(-int64(len(end)), io.SeekEnd); err != nil {
		return false
	}
	_, err = io.ReadFull(f, end)
	return err == nil && bytes.Equal(end, []byte(trailer))
}

// sweepImages removes images that no run has used for a week, and what killed runs left.
func (c *Cache) sweepImages() {
	for pattern, age := range map[string]time.Duration{"root-*.erofs": 7 * 24 * time.Hour, "init-*": 7 * 24 * time.Hour, ".root-*": time.Hour, "erofs-*": time.Hour} {
		files, _ := filepath.Glob(c.path(pattern))
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && time.Since(info.ModTime()) > age {
				_ = os.Remove(f)
			}
		}
	}
}
