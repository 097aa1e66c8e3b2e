//go:build linux

package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"cdblab/helpers/tools"
)

// imageLayout is part of the image's key. It counts the changes of what writeImage writes for the same tree of files.
const imageLayout = "5"

// toolsImage returns the image with the tools and the kernel's modules, and the environment variables that name the
// tools in the guest. It makes the image if none of exactly this content exists.
func (c *Cache) toolsImage(ctx context.Context, k *kernel, log func(string, ...any)) (file string, toolEnv []string, err error) {
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
	toolEnv = append(toolEnv, tools.ReleasesEnv+"="+guestReleases)
	if err := t.addReleases(ctx, c.Module); err != nil {
		return "", nil, err
	}
	// In the guest every tool is named by its variable. So a variable tells the guest which tools are the pinned ones.
	toolEnv = append(toolEnv, tools.PinnedEnv+"="+strings.Join(pinned, ","))
	if err := t.addSystemFiles(ctx, busybox); err != nil {
		return "", nil, err
	}
	key, err := c.imageKey(t, k)
	if err != nil {
		return "", nil, err
	}
	file = c.path("root-" + key + ".erofs")
	if c.check(file) == nil {
		return file, toolEnv, nil
	}
	unlock, err := c.lock(ctx, log)
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	switch err := c.check(file); {
	case err == nil:
		return file, toolEnv, nil // another run made it while this run waited
	case errors.Is(err, os.ErrNotExist):
		log("making the image with the tools and the kernel's modules")
	default:
		log("the image %s is damaged: %v; making it again", filepath.Base(file), err)
	}
	list, err := k.readModules(guestModules)
	if err != nil {
		return "", nil, err
	}
	withModules := maps.Clone(t)
	withModules.addModules(k.release, list)
	// The key is older than the image: this run may have waited for minutes for another one. The image stays for later runs, so its name
	// must be right.
	unchanged := func() error {
		if now, err := c.imageKey(t, k); err != nil || now != key {
			return &Fault{Tried: "make the image " + file, Seen: "a program or a module has changed meanwhile", Do: again}
		}
		return nil
	}
	if err := c.saveImage(withModules, file, unchanged); err != nil {
		return "", nil, asFault("make the image "+file, c.dir, err)
	}
	return file, toolEnv, nil
}

// imageKey returns a key for the content of the image: the files of the tree t, and the kernel's modules. Of the modules
// the image has only some, but to find out which ones, all would have to be read.
func (c *Cache) imageKey(t fileTree, k *kernel) (string, error) {
	digests := c.digests()
	defer digests.save()
	key := sha256.New()
	fmt.Fprintln(key, imageLayout, k.release, guestModules)
	if k.modules != "" {
		d, err := digests.digest(k.modules + "/kernel")
		if err != nil {
			return "", &Fault{
				Tried: "read the modules of the kernel " + k.release, Seen: err.Error(),
				Do: "name the directory of its modules, which contains the directory kernel: CDB_MODULES=…",
			}
		}
		fmt.Fprintln(key, d.Digest)
	}
	for _, name := range t.names() {
		n := t[name]
		fmt.Fprintf(key, "%q %v %q %q", name, n.mode, n.link, n.content)
		if n.hostPath != "" {
			d, err := digests.digest(n.hostPath)
			if err != nil {
				return "", err
			}
			fmt.Fprint(key, d.Digest)
		}
		fmt.Fprintln(key)
	}
	return hex.EncodeToString(key.Sum(nil))[:16], nil
}

// guestReleases is the directory in the guest of the earlier releases that questions use.
const guestReleases = "/usr/local/lib/cdblab-releases"

// addReleases adds the earlier releases that are built. The questions skip what needs another one. A program on the disk costs the
// guest no memory until it runs.
func (t fileTree) addReleases(ctx context.Context, module string) error {
	t.addDir(guestReleases) // also if it is empty: the questions refuse to run with a name of no directory
	for _, r := range tools.Earlier {
		for _, tool := range r.Tools() {
			p, err := tool.FindEarlier(module, r.Version)
			if err != nil {
				continue
			}
			at := path.Join(guestReleases, filepath.Base(filepath.Dir(p.Path)), tool.Name)
			if err := t.addProgram(ctx, at, p.Path); err != nil {
				return err
			}
		}
	}
	return nil
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
			err = fillSector(f)
		}
	}
	if err != nil {
		return nil, diskFault("make the disk with the tests", c.dir, err)
	}
	return f, nil
}

// saveImage writes the image to a file of the cache, which is then complete or does not exist. It does not exist if check returns an
// error when the image is written.
func (c *Cache) saveImage(t fileTree, file string, check func() error) error {
	f, err := os.CreateTemp(c.dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Chmod(0o644); err != nil { // a run of another user can use it, too
		return err
	}
	if err := t.writeImage(f, c.dir); err != nil {
		return err
	}
	if err := fillSector(f); err != nil {
		return err
	}
	if err := check(); err != nil {
		return err
	}
	return c.commit(f.Name(), file)
}

// fillSector fills the image up to whole sectors: a disk has only whole sectors.
func fillSector(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	return f.Truncate((size + 511) / 512 * 512)
}
