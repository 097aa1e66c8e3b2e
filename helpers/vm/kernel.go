//go:build linux

package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// kernel is a kernel image and its modules.
type kernel struct {
	image   string
	release string // as uname -r prints it
	modules string // its directory lib/modules/<release>; "" for a kernel that has everything built in
	dir     string // the unpacked package; "" for the user's own kernel
}

var kernelVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+)+$`)

// How often the package manager is asked whether the distribution has a newer kernel. Asking takes some seconds. It is
// also asked when the system's package lists are newer than the last answer.
const kernelAge = 24 * time.Hour

// systemLists is the directory of the system's package lists. Its time changes when apt-get update brings new ones.
var systemLists = "/var/lib/apt/lists"

// A kernelChoice is the package that was found for a version. It is the file kernel/choice-VERSION.json of the cache. The
// time of the file is the time of the last use.
type kernelChoice struct {
	Package string    // a directory beside it: the name of the package's file, which has its version
	Asked   time.Time // when the package manager was asked
}

func (c *Cache) choiceFile(version string) string {
	return c.path("kernel", "choice-"+version+".json")
}

// choice returns the choice for a version, and its kernel. The error says why there is none: nothing was chosen, or what
// was unpacked is damaged.
func (c *Cache) choice(version string) (*kernelChoice, *kernel, error) {
	file := c.choiceFile(version)
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	var choice kernelChoice
	if err := json.Unmarshal(b, &choice); err != nil || choice.Package != filepath.Base(choice.Package) {
		return nil, nil, fmt.Errorf("%s is damaged", file)
	}
	dir := c.path("kernel", choice.Package)
	if err := c.check(dir); err != nil {
		return nil, nil, fmt.Errorf("the unpacked package %s is damaged: %w", choice.Package, err)
	}
	k, err := unpackedKernel(dir)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	_ = os.Chtimes(file, now, now) // sweep goes by the time
	return &choice, k, nil
}

// isOld reports whether the package manager has to be asked again.
func (c *kernelChoice) isOld() bool {
	if age := time.Since(c.Asked); age < 0 || age > kernelAge {
		return true
	}
	lists := modTime(systemLists)
	return lists.After(c.Asked) && lists.Before(time.Now()) // lists from the future would be newer for ever
}

// findKernel returns the kernel that want names: a version, a path, or "" for the distribution's default. It fetches the
// distribution's package if the cache does not have it, or has an older one.
func (c *Cache) findKernel(ctx context.Context, want string, log func(string, ...any)) (*kernel, error) {
	version := want
	switch {
	case want == "" || want == "default":
		want, version = "", "default"
	case !kernelVersion.MatchString(want):
		return customKernel(want, os.Getenv("CDB_MODULES"))
	}
	if choice, k, err := c.choice(version); err == nil && !choice.isOld() {
		return k, nil
	}
	unlock, err := c.lock(ctx, log)
	if err != nil {
		return nil, err
	}
	defer unlock()
	choice, old, err := c.choice(version)
	switch {
	case err == nil && !choice.isOld():
		return old, nil // another run asked while this run waited
	case err != nil && !errors.Is(err, os.ErrNotExist):
		log("%v; fetching it again", err)
	}
	choice = &kernelChoice{Asked: time.Now()}
	choice.Package, err = c.fetchKernel(ctx, want, log)
	if err != nil {
		if old == nil || ctx.Err() != nil {
			return nil, err
		}
		// For example offline. The kernel that is there is as good as it was yesterday.
		log("can't find out whether there is a newer kernel; using Linux %s. %v", old.release, err)
		choice.Package = filepath.Base(old.dir)
	}
	if err := writeJSON(c.choiceFile(version), choice); err != nil {
		return nil, diskFault("remember the kernel", c.dir, err)
	}
	_, k, err := c.choice(version)
	return k, err
}

// KernelName returns a name of the kernel that want names: a version, a path, or "" for the distribution's default. Two kernels
// of the same name are the same: it is the name of the package with its version, or a digest of the user's own image.
func (c *Cache) KernelName(ctx context.Context, want string, log func(string, ...any)) (string, error) {
	k, err := c.findKernel(ctx, want, log)
	if err != nil {
		return "", err
	}
	if k.dir != "" {
		return filepath.Base(k.dir), nil
	}
	image, err := os.ReadFile(k.image)
	return fmt.Sprintf("%s sha256:%x", k.release, sha256.Sum256(image)), err
}

// fetchKernel unpacks the distribution's newest package of a version into the cache, unless it is there, and returns the
// name of its directory. The caller holds the lock.
func (c *Cache) fetchKernel(ctx context.Context, want string, log func(string, ...any)) (string, error) {
	if err := os.MkdirAll(c.path("kernel"), 0o755); err != nil {
		return "", diskFault("create the directory for the kernel", c.dir, err)
	}
	a := aptClient{dir: c.path("apt")}
	pkg, err := a.findPackage(ctx, want, log)
	if err != nil {
		return "", err
	}
	name, err := a.fileName(ctx, pkg)
	if err != nil {
		return "", err
	}
	dir := c.path("kernel", name)
	if c.check(dir) == nil {
		return name, nil
	}
	log("fetching the kernel package %s", name)
	tmp, err := os.MkdirTemp(c.path("kernel"), ".fetch-*")
	if err == nil {
		defer os.RemoveAll(tmp)
		if err = a.unpack(ctx, pkg, tmp); err == nil {
			err = c.commit(tmp+"/tree", dir)
		}
	}
	if err != nil {
		return "", asFault("fetch the kernel package "+pkg, c.dir, err)
	}
	return name, nil
}

// unpackedKernel returns the kernel in an unpacked package.
func unpackedKernel(dir string) (*kernel, error) {
	images, _ := fs.Glob(os.DirFS(dir), "boot/vmlinuz-*")
	if len(images) != 1 {
		return nil, fmt.Errorf("the package %s has %d kernels, not one", filepath.Base(dir), len(images))
	}
	release := strings.TrimPrefix(images[0], "boot/vmlinuz-")
	return &kernel{image: dir + "/" + images[0], release: release, modules: dir + "/lib/modules/" + release, dir: dir}, nil
}

// customKernel returns the user's own kernel. Its modules are in the directory modules if that is set. Otherwise they are
// in lib/modules beside the kernel's directory (as in an unpacked package), or in /lib/modules.
func customKernel(image, modules string) (*kernel, error) {
	unusable := func(seen, do string) (*kernel, error) {
		return nil, &Fault{Tried: "use the kernel " + image, Seen: seen, Do: do}
	}
	// Not a FIFO or a device: opening one could wait for ever.
	info, err := os.Stat(image)
	if err == nil && !info.Mode().IsRegular() {
		return unusable("it is no regular file", "name the path of a kernel image such as /boot/vmlinuz-$(uname -r)")
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
	if image, err = filepath.Abs(image); err != nil { // QEMU would take -x for an option
		return nil, err
	}
	k := &kernel{image: image, release: release}
	for _, dir := range []string{modules, filepath.Dir(filepath.Dir(image)) + "/lib/modules/" + release, "/lib/modules/" + release} {
		if info, err := os.Stat(dir + "/kernel"); dir != "" && err == nil && info.IsDir() {
			k.modules = dir
			break
		}
	}
	if modules != "" && k.modules != modules {
		return unusable("there is no directory kernel in CDB_MODULES="+modules, "name the directory of its modules, such as /lib/modules/"+release)
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

// fileName returns the name of the package's file, without .deb: the package, its version and the architecture.
func (a *aptClient) fileName(ctx context.Context, pkg string) (string, error) {
	fault := &Fault{
		Tried: "find the version of the package " + pkg,
		Do:    "check that `apt-get download " + pkg + "` works here, or name a kernel by its path: KERNEL=/path/to/vmlinuz",
	}
	out, err := a.run(ctx, aptLimit, "", "apt-get", "download", "-q", "--print-uris", pkg)
	if err != nil {
		fault.Seen = err.Error()
		return "", fault
	}
	// 'http://…/linux-image-6.1.0-48-cloud-amd64_6.1.172-1_amd64.deb' linux-image-6.1.0-48-cloud-amd64_6.1.172-1_amd64.deb 26431152 SHA256:…
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) >= 2 && strings.HasPrefix(f[1], pkg+"_") && f[1] == filepath.Base(f[1]) {
			return strings.TrimSuffix(f[1], ".deb"), nil
		}
	}
	fault.Seen = fmt.Sprintf("apt-get download --print-uris names no file: %q", lastLine(out))
	return "", fault
}

// unpack fetches a package, and extracts the kernel and its modules into tmp/tree. Every machine with apt-get has
// dpkg-deb.
func (a *aptClient) unpack(ctx context.Context, pkg, tmp string) error {
	if _, err := a.run(ctx, fetchLimit, tmp, "apt-get", "download", "-q", pkg); err != nil {
		return &Fault{
			Tried: "fetch the package " + pkg, Seen: err.Error(),
			Do: "check that `apt-get download " + pkg + "` works here, or name a kernel by its path: KERNEL=/path/to/vmlinuz",
		}
	}
	debs, _ := fs.Glob(os.DirFS(tmp), "*.deb")
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s fetched %d packages, not one", pkg, len(debs))
	}
	var stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	unpack := HelperCommand(ctx, syscall.SIGKILL, "dpkg-deb", "--fsys-tarfile", filepath.Join(tmp, debs[0]))
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
	return err
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
