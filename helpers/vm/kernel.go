package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// Kernel is a kernel image and the modules that belong to it.
type Kernel struct {
	Image   string
	Release string // as uname -r says it
	Modules string // /lib/modules/<release>, wherever that lies; "" for a kernel that has all it needs built in
}

var version = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+$`)

// kernel returns the kernel that want names: a version, a path, or "" for the distribution's default.
func (c *Cache) kernel(ctx context.Context, want string, say func(string, ...any)) (*Kernel, error) {
	if want != "" && !version.MatchString(want) {
		return kernelAt(want, os.Getenv("CDB_MODULES"))
	}
	// The name that was asked for stays a link to what was found for it: a second run asks no package manager.
	link := c.path("kernel", "default")
	if want != "" {
		link = c.path("kernel", want)
	}
	if k, err := unpacked(link); err == nil {
		return k, nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := unpacked(link); err == nil {
		return k, nil // another run fetched it while this one waited
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return nil, err
	}
	a := apt{dir: c.path("apt")}
	pkg, err := a.find(want, say)
	if err != nil {
		return nil, err
	}
	say("fetching the kernel package %s", pkg)
	dir := c.path("kernel", pkg)
	if err := a.unpack(pkg, dir); err != nil {
		return nil, diskFaultOr("fetch the kernel package "+pkg, c.dir, err)
	}
	_ = os.Remove(link)
	if err := os.Symlink(pkg, link); err != nil {
		return nil, err
	}
	return unpacked(link)
}

func diskFaultOr(tried, dir string, err error) error {
	var f *Fault
	if errors.As(err, &f) {
		return err
	}
	return diskFault(tried, dir, err)
}

// unpacked finds the kernel in an unpacked package.
func unpacked(dir string) (*Kernel, error) {
	images, _ := filepath.Glob(dir + "/boot/vmlinuz-*")
	if len(images) != 1 {
		return nil, os.ErrNotExist
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return &Kernel{Image: images[0], Release: release, Modules: dir + "/lib/modules/" + release}, nil
}

// kernelAt is a kernel of one's own. Its modules are where they would be after an installation, or below the same
// directory as the kernel's (an unpacked package), or in modules.
func kernelAt(image, modules string) (*Kernel, error) {
	bad := func(seen, do string) (*Kernel, error) {
		return nil, &Fault{Tried: "use the kernel " + image, Seen: seen, Do: do}
	}
	f, err := os.Open(image)
	if errors.Is(err, os.ErrPermission) {
		return bad("you may not read it", "copy it to where you may: sudo install -m 644 "+image+" ~/")
	}
	if err != nil {
		return bad("there is no such file", "give a version that your distribution has a cloud kernel of (6.1), or the path of a kernel image such as /boot/vmlinuz-$(uname -r)")
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return bad("it can't be read: "+err.Error(), "give the path of a kernel image")
	}
	release, ok := releaseOf(head[:n], image)
	if !ok {
		return bad("it is no kernel image for "+runtime.GOARCH, "give the path of a vmlinuz (bzImage, or Image on arm64)")
	}
	k := &Kernel{Image: image, Release: release}
	for _, dir := range []string{modules, filepath.Dir(filepath.Dir(image)) + "/lib/modules/" + release, "/lib/modules/" + release} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			k.Modules = dir
			break
		}
	}
	if modules != "" && k.Modules != modules {
		return bad("there is no directory CDB_MODULES="+modules, "give its modules' directory, the one with kernel/ in it")
	}
	return k, nil
}

// releaseOf reads the release out of an image's head. https://docs.kernel.org/arch/x86/boot.html: HdrS at 0x202, the
// offset of the version string less 0x200 at 0x20e. An arm64 image has a magic number and no version.
func releaseOf(head []byte, name string) (string, bool) {
	base := filepath.Base(name)
	if i := strings.IndexByte(base, '-'); i >= 0 {
		base = base[i+1:]
	}
	switch {
	case runtime.GOARCH == "amd64" && len(head) > 0x210 && string(head[0x202:0x206]) == "HdrS":
		at := int(head[0x20e]) | int(head[0x20f])<<8 + 0x200
		if at < len(head) {
			v, _, _ := bytes.Cut(head[at:], []byte{0})
			if r, _, ok := strings.Cut(string(v), " "); ok {
				return r, true
			}
		}
		return base, true
	case runtime.GOARCH == "arm64" && len(head) > 0x40 && string(head[0x38:0x3c]) == "ARM\x64",
		runtime.GOARCH == "arm64" && bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return base, true
	}
	return "", false
}

// apt asks the package manager as an ordinary user, and installs nothing.
type apt struct {
	dir     string   // for package lists of our own
	options []string // the ones to use them
}

// find resolves a version to the name of the package of the newest cloud kernel of that version.
func (a *apt) find(want string, say func(string, ...any)) (string, error) {
	fault := func(seen, do string) (string, error) {
		what := "the distribution's cloud kernel"
		if want != "" {
			what += " " + want
		}
		return "", &Fault{Tried: "find " + what, Seen: seen, Do: do}
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fault("there is no apt-get here", "give a kernel by its path: KERNEL=/boot/vmlinuz-$(uname -r), or any other; its modules are looked for in /lib/modules, or in CDB_MODULES")
	}
	arch := runtime.GOARCH
	metas := []string{"linux-image-cloud-" + arch}
	if want != "" {
		metas = append(metas, "linux-image-"+want+"-cloud-"+arch)
	}
	pkg := a.depends(metas, want)
	if pkg == "" {
		// The system's lists may be absent (a container image has none) or old. Lists of our own need no root.
		say("the package lists know no such kernel; fetching lists of our own")
		lists := filepath.Join(a.dir, "lists")
		if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o755); err != nil {
			return "", err
		}
		a.options = []string{"-o", "Dir::State::Lists=" + lists, "-o", "Dir::Cache=" + a.dir, "-o", "Debug::NoLocking=1"}
		if out, err := a.command("apt-get", "update", "-q").CombinedOutput(); err != nil {
			return fault(lastLine(out), "see that apt-get update works here, or give a kernel by its path: KERNEL=/path/to/vmlinuz")
		}
		pkg = a.depends(metas, want)
	}
	if pkg == "" {
		return fault("the package archive has none", "take another version (`apt-cache search linux-image.*cloud` lists them), or a kernel by its path: KERNEL=/path/to/vmlinuz")
	}
	return pkg, nil
}

func (a *apt) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, append(a.options, args...)...)
	c.Env = append(os.Environ(), "LC_ALL=C")
	return c
}

// depends follows the meta packages to the package with the files.
func (a *apt) depends(metas []string, want string) string {
	out, _ := a.command("apt-cache", append([]string{"depends"}, metas...)...).Output()
	for line := range strings.Lines(string(out)) {
		pkg, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		// 6.1 is not to find 6.12.
		if ok && (want == "" || strings.HasPrefix(pkg, "linux-image-"+want+".") || strings.HasPrefix(pkg, "linux-image-"+want+"-")) {
			return pkg
		}
	}
	return ""
}

// unpack fetches a package and takes the kernel and its modules out of it. dpkg-deb is there wherever apt-get is.
func (a *apt) unpack(pkg, dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	get := a.command("apt-get", "download", "-q", pkg)
	get.Dir = tmp
	if out, err := get.CombinedOutput(); err != nil {
		return &Fault{Tried: "fetch the package " + pkg, Seen: lastLine(out), Do: "see that `apt-get download " + pkg + "` works here, or give a kernel by its path: KERNEL=/path/to/vmlinuz"}
	}
	debs, _ := filepath.Glob(tmp + "/*.deb")
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s brought %d packages", pkg, len(debs))
	}
	var complaint bytes.Buffer
	unpack := exec.Command("dpkg-deb", "--fsys-tarfile", debs[0])
	unpack.Stderr = &complaint
	stream, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return err
	}
	err = untar(stream, tmp+"/tree", func(name string) bool {
		return strings.HasPrefix(name, "boot/vmlinuz-") || strings.HasPrefix(name, "lib/modules/")
	})
	_, _ = io.Copy(io.Discard, stream)
	if werr := unpack.Wait(); werr != nil {
		err = fmt.Errorf("dpkg-deb: %w: %s", werr, lastLine(complaint.Bytes()))
	}
	if err != nil {
		return err
	}
	_ = os.RemoveAll(dir)
	return os.Rename(tmp+"/tree", dir)
}

// untar takes the regular files that are wanted out of a tar. Names can't lead out of dir.
func untar(r io.Reader, dir string, want func(name string) bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		// A merged /usr may show in the package.
		name = strings.TrimPrefix(name, "usr/")
		if h.Typeflag != tar.TypeReg || !want(name) {
			continue
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
