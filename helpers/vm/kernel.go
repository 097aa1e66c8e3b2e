//go:build linux

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
	"slices"
	"strings"
	"time"
)

// kernel is a kernel image and its modules.
type kernel struct {
	image   string
	release string // as uname -r prints it
	modules string // its directory lib/modules/<release>; "" for a kernel that has everything built in
}

var kernelVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+$`)

// findKernel returns the kernel that want names: a version, a path, or "" for the distribution's default. It fetches the
// distribution's package if the cache does not have it.
func (c *Cache) findKernel(ctx context.Context, want string, log func(string, ...any)) (*kernel, error) {
	if want != "" && !kernelVersion.MatchString(want) {
		return customKernel(want, os.Getenv("CDB_MODULES"))
	}
	// The requested version is a symbolic link to the package that was found for it. So a second run does not ask the
	// package manager.
	link := c.path("kernel", "default")
	if want != "" {
		link = c.path("kernel", want)
	}
	if k, err := unpackedKernel(link); err == nil {
		return k, nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := unpackedKernel(link); err == nil {
		return k, nil // another run fetched it while this run waited
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return nil, err
	}
	a := aptClient{dir: c.path("apt")}
	pkg, err := a.findPackage(ctx, want, log)
	if err != nil {
		return nil, err
	}
	log("fetching the kernel package %s", pkg)
	dir := c.path("kernel", pkg)
	if err := a.unpack(ctx, pkg, dir); err != nil {
		return nil, asFault("fetch the kernel package "+pkg, c.dir, err)
	}
	_ = os.Remove(link)
	if err := os.Symlink(pkg, link); err != nil {
		return nil, err
	}
	return unpackedKernel(link)
}

// unpackedKernel returns the kernel in an unpacked package.
func unpackedKernel(dir string) (*kernel, error) {
	images, _ := filepath.Glob(dir + "/boot/vmlinuz-*")
	if len(images) != 1 {
		return nil, os.ErrNotExist
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return &kernel{image: images[0], release: release, modules: dir + "/lib/modules/" + release}, nil
}

// customKernel returns the user's own kernel. Its modules are in the directory modules if that is set. Otherwise they are
// in lib/modules beside the kernel's directory (as in an unpacked package), or in /lib/modules.
func customKernel(image, modules string) (*kernel, error) {
	unusable := func(seen, do string) (*kernel, error) {
		return nil, &Fault{Tried: "use the kernel " + image, Seen: seen, Do: do}
	}
	f, err := os.Open(image)
	if errors.Is(err, os.ErrPermission) {
		return unusable("you have no permission to read it", "copy it to a file that you can read: sudo install -m 644 "+image+" ~/")
	}
	if err != nil {
		return unusable("there is no such file", "name a version of your distribution's cloud kernel (6.1), or the path of a kernel image such as /boot/vmlinuz-$(uname -r)")
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return unusable("it can't be read: "+err.Error(), "name the path of a kernel image")
	}
	release, ok := releaseOf(head[:n], image)
	if !ok {
		return unusable("it is not a kernel image for "+runtime.GOARCH, "name the path of a vmlinuz (bzImage, or Image on arm64)")
	}
	k := &kernel{image: image, release: release}
	for _, dir := range []string{modules, filepath.Dir(filepath.Dir(image)) + "/lib/modules/" + release, "/lib/modules/" + release} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			k.modules = dir
			break
		}
	}
	if modules != "" && k.modules != modules {
		return unusable("there is no directory CDB_MODULES="+modules, "name the directory of its modules, which contains the directory kernel")
	}
	return k, nil
}

// releaseOf returns the kernel's release, and reports whether head is the beginning of a kernel image.
//
// https://docs.kernel.org/arch/x86/boot.html: "HdrS" is at 0x202; at 0x20e is the offset of the version string, minus
// 0x200. An arm64 image has a magic number but no version, so its release is taken from the file's name.
func releaseOf(head []byte, name string) (release string, ok bool) {
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

// aptClient uses the package manager as an ordinary user, and installs nothing.
type aptClient struct {
	dir     string   // for the lab's own package lists
	options []string // options that make apt use these lists
}

// findPackage returns the name of the package of the newest cloud kernel of a version; "" means the default version.
func (a *aptClient) findPackage(ctx context.Context, want string, log func(string, ...any)) (string, error) {
	fault := func(seen, do string) (string, error) {
		name := "the distribution's cloud kernel"
		if want != "" {
			name += " " + want
		}
		return "", &Fault{Tried: "find " + name, Seen: seen, Do: do}
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fault("this machine has no apt-get", "name a kernel by its path, for example KERNEL=/boot/vmlinuz-$(uname -r). Its modules are looked for in /lib/modules, or in CDB_MODULES")
	}
	arch := runtime.GOARCH
	metas := []string{"linux-image-cloud-" + arch}
	if want != "" {
		metas = append(metas, "linux-image-"+want+"-cloud-"+arch)
	}
	pkg := a.resolve(ctx, metas, want)
	if pkg == "" {
		// The system's package lists may be missing (a container image has none) or old. The lab's own lists need no root.
		log("the system's package lists have no such kernel; fetching the lab's own package lists")
		lists := filepath.Join(a.dir, "lists")
		if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o755); err != nil {
			return "", err
		}
		a.options = []string{"-o", "Dir::State::Lists=" + lists, "-o", "Dir::Cache=" + a.dir, "-o", "Debug::NoLocking=1"}
		if _, err := a.run(ctx, fetchLimit, "", "apt-get", "update", "-q"); err != nil {
			return fault(err.Error(), "check that apt-get update works here, or name a kernel by its path: KERNEL=/path/to/vmlinuz")
		}
		pkg = a.resolve(ctx, metas, want)
	}
	if pkg == "" {
		return fault("the package archive has none", "use another version (`apt-cache search linux-image.*cloud` lists them), or name a kernel by its path: KERNEL=/path/to/vmlinuz")
	}
	return pkg, nil
}

// run runs a command of apt in the directory dir; "" means the working directory.
func (a *aptClient) run(ctx context.Context, limit time.Duration, dir, name string, args ...string) ([]byte, error) {
	set := func(c *exec.Cmd) { c.Dir, c.Env = dir, append(os.Environ(), "LC_ALL=C") }
	return runHelper(ctx, limit, set, name, append(slices.Clone(a.options), args...)...)
}

// resolve returns the package that one of the meta packages depends on: the package with the kernel's files.
func (a *aptClient) resolve(ctx context.Context, metas []string, want string) string {
	out, _ := a.run(ctx, aptLimit, "", "apt-cache", append([]string{"depends"}, metas...)...)
	for line := range strings.Lines(string(out)) {
		pkg, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		// The version 6.1 must not match 6.12.
		if ok && (want == "" || strings.HasPrefix(pkg, "linux-image-"+want+".") || strings.HasPrefix(pkg, "linux-image-"+want+"-")) {
			return pkg
		}
	}
	return ""
}

// unpack fetches a package, and extracts the kernel and its modules into dir. Every machine with apt-get has dpkg-deb.
func (a *aptClient) unpack(ctx context.Context, pkg, dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := a.run(ctx, fetchLimit, tmp, "apt-get", "download", "-q", pkg); err != nil {
		return &Fault{Tried: "fetch the package " + pkg, Seen: err.Error(), Do: "check that `apt-get download " + pkg + "` works here, or name a kernel by its path: KERNEL=/path/to/vmlinuz"}
	}
	debs, _ := filepath.Glob(tmp + "/*.deb")
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s fetched %d packages, not one", pkg, len(debs))
	}
	var stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	unpack := helperCommand(ctx, "dpkg-deb", "--fsys-tarfile", debs[0])
	unpack.Stderr = &stderr
	stream, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return err
	}
	err = extract(stream, tmp+"/tree", func(name string) bool {
		return strings.HasPrefix(name, "boot/vmlinuz-") || strings.HasPrefix(name, "lib/modules/")
	})
	_, _ = io.Copy(io.Discard, stream)
	if werr := unpack.Wait(); werr != nil {
		err = fmt.Errorf("dpkg-deb: %w: %s", werr, lastLine(stderr.Bytes()))
	}
	if err != nil {
		return err
	}
	_ = os.RemoveAll(dir)
	return os.Rename(tmp+"/tree", dir)
}

// extract extracts the wanted regular files of a tar archive into dir. No name in the archive can lead out of dir.
func extract(r io.Reader, dir string, want func(name string) bool) error {
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
		// On a distribution with a merged /usr, the package may have its files below usr.
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
