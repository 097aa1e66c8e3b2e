//go:build linux

package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"cdblab/helpers/tools"
)

// imageLayout is part of the image's key. It counts the changes of the image's layout.
const imageLayout = "4"

// toolsImage returns the image with the tools and the kernel's modules, and the environment variables that name the
// tools in the guest. It makes the image if none of exactly this content exists.
func (c *Cache) toolsImage(ctx context.Context, k *kernel, log func(string, ...any)) (file string, toolEnv []string, err error) {
	digests := c.digests()
	defer digests.save()
	key := sha256.New()
	fmt.Fprintln(key, imageLayout, k.release, k.modules)
	t := fileTree{}
	var busybox string
	var pinned []string
	for _, tool := range tools.All {
		hostPath, err := findTool(tool, c.Module)
		if err != nil {
			return "", nil, err
		}
		if hostPath == "" {
			continue
		}
		if err := t.addProgram(ctx, tool.GuestPath, hostPath); err != nil {
			return "", nil, err
		}
		if tool.Env != "" {
			toolEnv = append(toolEnv, tool.Env+"="+tool.GuestPath)
			if tool.Pinned() {
				pinned = append(pinned, tool.Env)
			}
		}
		if tool.Name == "busybox" {
			busybox = hostPath
		}
	}
	// In the guest every tool is named by its variable. So the guest has to be told which tools are the pinned ones.
	toolEnv = append(toolEnv, tools.PinnedEnv+"="+strings.Join(pinned, ","))
	for _, name := range t.names() {
		sum, err := digests.sha256(t[name].hostPath)
		if err != nil {
			return "", nil, err
		}
		fmt.Fprintln(key, name, sum)
	}
	file = c.path("root-" + hex.EncodeToString(key.Sum(nil))[:16] + ".erofs")
	if isComplete(file) {
		now := time.Now()
		_ = os.Chtimes(file, now, now) // sweepImages goes by the age
		return file, toolEnv, nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	if isComplete(file) {
		return file, toolEnv, nil // another run made it while this run waited
	}
	if _, err := os.Stat(file); err == nil {
		log("the image %s was cut short; making it again", filepath.Base(file))
	} else {
		log("making the image with the tools and the kernel's modules")
	}
	if err := t.addSystemFiles(ctx, busybox); err != nil {
		return "", nil, err
	}
	list, err := k.readModules(guestModules)
	if err != nil {
		return "", nil, err
	}
	t.addModules(k.release, list)
	c.sweepImages()
	if err := t.save(file); err != nil {
		return "", nil, diskFault("make the image "+file, c.dir, err)
	}
	return file, toolEnv, nil
}

// findTool returns the path of a tool. It returns "" for a tool that is missing and that the lab runs without.
func findTool(t tools.Tool, module string) (string, error) {
	p, err := t.Find(module)
	if err == nil {
		return p.Path, nil
	}
	if t.Need != tools.Required {
		return "", nil
	}
	fault := &Fault{Tried: "find " + t.Name, Seen: err.Error()}
	if e, ok := errors.AsType[*tools.NotFoundError](err); ok {
		fault.Seen, fault.Do = e.Seen, e.Do
	}
	return "", fault
}

// addSystemFiles adds the files and directories that make a tree of programs a Linux system.
func (t fileTree) addSystemFiles(ctx context.Context, busybox string) error {
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		t.addDir("/usr/" + l)
		t.addSymlink("/"+l, "usr/"+l)
	}
	for _, d := range []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/home", "/mnt", "/opt", "/srv", "/usr/local/bin", "/usr/local/sbin", "/var/cache", "/var/lib", "/var/lib/containerd", "/var/log"} {
		t.addDir(d)
	}
	t["/var/tmp"] = fileNode{mode: os.ModeDir | os.ModeSticky | 0o777}
	t.addSymlink("/var/run", "../run")
	t.addContent("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	t.addContent("/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
	t.addContent("/etc/hosts", "127.0.0.1 localhost lab\n::1 localhost\n")
	t.addContent("/etc/hostname", "lab\n")
	t.addContent("/etc/resolv.conf", "")
	t.addContent("/etc/nsswitch.conf", "hosts: files\n")
	t.addContent("/etc/os-release", "ID=cdblab\nNAME=\"the lab's throw-away VM\"\n")
	t.addContent("/etc/profile", "PS1='lab:\\w# '\nalias ll='ls -l'\n")

	out, err := runHelper(ctx, quickLimit, nil, busybox, "--list-full")
	if err != nil {
		return &Fault{Tried: "list the applets of busybox", Seen: err.Error(), Do: "check that " + busybox + " --list-full works, or set CDB_BUSYBOX to another static busybox"}
	}
	for applet := range strings.Lines(string(out)) {
		at := mergedUsr("/" + strings.TrimSpace(applet))
		if at = path.Clean(at); !t.has(at) && strings.HasPrefix(at, "/usr/") {
			t.addSymlink(at, "/bin/busybox")
		}
	}
	return nil
}

// workImage returns the disk with the command and its source tree.
func (c *Cache) workImage(files fileTree) (*os.File, error) {
	f, err := unnamedFile(c.dir, nil)
	if err == nil {
		if err = files.writeImage(f, c.dir); err == nil {
			err = writeTrailer(f)
		}
	}
	if err != nil {
		return nil, diskFault("make the disk with the tests", c.dir, err)
	}
	return f, nil
}

// save writes the image to a file, which is then complete or does not exist.
func (t fileTree) save(file string) error {
	f, err := renameio.NewPendingFile(file, renameio.WithTempDir(filepath.Dir(file)), renameio.WithStaticPermissions(0o644))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	if err := t.writeImage(f.File, filepath.Dir(file)); err != nil {
		return err
	}
	if err := writeTrailer(f.File); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// trailer is the end of every complete image. An image that was cut short, by a full disk or during a copy, has none.
const trailer = "\ncdblab: this image is whole\n"

// writeTrailer adds the trailer, and fills the image up to whole sectors: a disk has only whole sectors.
func writeTrailer(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	end := make([]byte, 512+(512-size%512)%512)
	copy(end[len(end)-len(trailer):], trailer)
	_, err = f.Write(end)
	return err
}

// isComplete reports whether the image exists and has the trailer.
func isComplete(file string) bool {
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

// sweepImages removes the images that no run has used for a week, and the temporary files of killed runs.
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
