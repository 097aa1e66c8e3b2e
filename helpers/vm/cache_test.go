//go:build linux

package vm

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// fakeArchive is a distribution: fake apt-get, apt-cache and dpkg-deb, which offer one kernel package.
type fakeArchive struct {
	t   *testing.T
	dir string
}

func newFakeArchive(t *testing.T, version string) *fakeArchive {
	t.Helper()
	a := &fakeArchive{t: t, dir: t.TempDir()}
	a.release(version)
	pkg := "linux-image-6.1.0-1-cloud-" + runtime.GOARCH
	fakeProgram(t, "apt-cache", "echo '  Depends: "+pkg+"'")
	fakeProgram(t, "apt-get", `cd '`+a.dir+`' && test ! -e offline || { echo Temporary failure resolving >&2; exit 100; }
name=`+pkg+`_$(cat version)_`+runtime.GOARCH+`.deb
cd "$OLDPWD" && case "$*" in
*--print-uris*) echo asked >> '`+a.dir+`/log'; echo "'http://example.com/$name' $name 5 SHA256:x";;
*download*) echo fetched >> '`+a.dir+`/log'; touch "$name";;
esac`)
	fakeProgram(t, "dpkg-deb", "cat '"+a.dir+"/tar'")
	was := systemLists
	systemLists = t.TempDir()
	assert.NilError(t, os.Chtimes(systemLists, time.Time{}, time.Now().Add(-time.Hour)))
	t.Cleanup(func() { systemLists = was })
	return a
}

// release publishes a version of the package.
func (a *fakeArchive) release(version string) {
	assert.NilError(a.t, os.WriteFile(a.dir+"/version", []byte(version), 0o644))
	f, err := os.Create(a.dir + "/tar")
	assert.NilError(a.t, err)
	defer f.Close()
	w := tar.NewWriter(f)
	for _, name := range []string{"./boot/vmlinuz-6.1.0-1", "./lib/modules/6.1.0-1/kernel/fs/a.ko"} {
		content := "content of " + version
		assert.NilError(a.t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(content)), Mode: 0o644}))
		_, err := w.Write([]byte(content))
		assert.NilError(a.t, err)
	}
	assert.NilError(a.t, w.Close())
}

// calls returns what apt-get was asked since the last call.
func (a *fakeArchive) calls() string {
	b, _ := os.ReadFile(a.dir + "/log")
	_ = os.Remove(a.dir + "/log")
	return strings.Join(strings.Fields(string(b)), " ")
}

// fetch finds the default kernel, and returns the content of its image.
func (a *fakeArchive) fetch(c *Cache) (content string, log string) {
	a.t.Helper()
	k, err := c.findKernel(a.t.Context(), "", func(format string, args ...any) { log += fmt.Sprintf(format, args...) + "\n" })
	assert.NilError(a.t, err)
	b, err := os.ReadFile(k.image)
	assert.NilError(a.t, err)
	assert.Equal(a.t, k.release, "6.1.0-1")
	return string(b), log
}

func TestKernel_IsFetchedOnceAndAgainWhenDamaged(t *testing.T) {
	a, c := newFakeArchive(t, "1"), &Cache{dir: t.TempDir()}
	content, _ := a.fetch(c)
	assert.Equal(t, content, "content of 1")
	assert.Equal(t, a.calls(), "asked fetched")
	a.fetch(c)
	assert.Equal(t, a.calls(), "", "the second run asks nothing")

	k, err := c.findKernel(t.Context(), "default", t.Logf)
	assert.NilError(t, err)
	for name, damage := range map[string]func() error{
		"image cut short":  func() error { return os.Truncate(k.image, 3) },
		"image changed":    func() error { return os.WriteFile(k.image, []byte("content of x"), 0o644) },
		"module cut short": func() error { return os.Truncate(k.modules+"/kernel/fs/a.ko", 0) },
		"module missing":   func() error { return os.Remove(k.modules + "/kernel/fs/a.ko") },
		"no record":        func() error { return os.Remove(recordOf(k.dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			assert.NilError(t, damage())
			content, log := a.fetch(c)
			assert.Equal(t, content, "content of 1")
			assert.Equal(t, a.calls(), "asked fetched", log)
		})
	}
	left, err := os.ReadDir(c.path("kernel"))
	assert.NilError(t, err)
	assert.Equal(t, len(left), 3, "%v: the package, its record, and the choice", left)
}

func TestKernel_FollowsTheDistribution(t *testing.T) {
	a, c := newFakeArchive(t, "1"), &Cache{dir: t.TempDir()}
	a.fetch(c)
	a.release("2")
	content, _ := a.fetch(c)
	assert.Equal(t, content, "content of 1", "asked less than a day ago")
	assert.Equal(t, a.calls(), "asked fetched")

	// apt-get update brought new lists.
	assert.NilError(t, os.Chtimes(systemLists, time.Time{}, time.Now()))
	content, _ = a.fetch(c)
	assert.Equal(t, content, "content of 2")
	assert.Equal(t, a.calls(), "asked fetched")
	assert.NilError(t, os.Chtimes(systemLists, time.Time{}, time.Now().Add(-time.Hour)))

	// A day has passed.
	yesterday := func() {
		choice, _, err := c.choice("default")
		assert.NilError(t, err)
		choice.Asked = time.Now().Add(-kernelAge - time.Minute)
		assert.NilError(t, writeJSON(c.choiceFile("default"), choice))
	}
	yesterday()
	a.fetch(c)
	assert.Equal(t, a.calls(), "asked", "the version is the same")

	// Offline: the old kernel is used, and the question is not asked again at once.
	a.release("3")
	yesterday()
	assert.NilError(t, os.WriteFile(a.dir+"/offline", nil, 0o644))
	content, log := a.fetch(c)
	assert.Equal(t, content, "content of 2")
	assert.Assert(t, cmp.Contains(log, "using Linux 6.1.0-1"))
	_, log = a.fetch(c)
	assert.Equal(t, log, "")

	// The next run removes the kernel that is superseded.
	assert.NilError(t, os.Remove(a.dir+"/offline"))
	yesterday()
	a.fetch(c)
	c.sweep(time.Now())
	left, err := os.ReadDir(c.path("kernel"))
	assert.NilError(t, err)
	assert.Equal(t, len(left), 3, "%v: the package, its record, and the choice", left)
	content, _ = a.fetch(c)
	assert.Equal(t, content, "content of 3")
}

// `make doctor` asks the package manager, too, and not at the same time as a run.
func TestCheckKernel_WaitsForARunThatFetches(t *testing.T) {
	a, c := newFakeArchive(t, "1"), &Cache{dir: t.TempDir()}
	seen, err := c.CheckKernel(t.Context(), "", t.Logf)
	assert.NilError(t, err)
	assert.Check(t, cmp.Contains(seen, "the next run fetches the package linux-image-6.1.0-1-cloud"))
	assert.Equal(t, a.calls(), "asked")

	unlock, err := c.lock(t.Context(), t.Logf)
	assert.NilError(t, err)
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = c.CheckKernel(ctx, "", t.Logf)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, a.calls(), "")
}

// A stop while apt fetches the kernel ends the run at once, and leaves nothing that a later run would take for a kernel.
func TestKernel_StopWhileFetching(t *testing.T) {
	newFakeArchive(t, "1")
	pid := filepath.Join(t.TempDir(), "pid")
	fakeProgram(t, "apt-get", `case "$*" in *--print-uris*) echo "'u' linux-image-6.1.0-1-cloud-`+runtime.GOARCH+`_1.deb";; *) `+hang(pid)+";; esac")
	c := &Cache{Module: "../..", dir: t.TempDir()}
	fakeInit(t, c)
	fakeQEMU(t, "echo QEMU emulator version 9.0.0")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		pidIn(t, pid)
		cancel(&Stopped{Code: 143})
	}()
	_, err := (&Command{Cache: c, Args: []string{os.Args[0]}, Config: Config{Cgroup: "v2", Accel: "tcg", Memory: 512}, Log: t.Logf}).Run(ctx)
	stopped, ok := errors.AsType[*Stopped](err)
	assert.Assert(t, ok, "%v", err)
	assert.Equal(t, stopped.Code, 143)
	hasEnded(t, pidIn(t, pid))
	assert.Equal(t, len(entries(c.path("kernel"))), 0)
}

func TestRecord_OfAnImage(t *testing.T) {
	c := &Cache{dir: t.TempDir()}
	tr := fileTree{}
	tr.addContent("/a/b/c", "content")
	tr.addSymlink("/l", "a/b/c")
	tr.addHostFile("/big", os.Args[0], 0o755)
	file := c.path("root-x.erofs")
	assert.NilError(t, c.saveImage(tr, file, func() error { return nil }))
	assert.NilError(t, c.check(file))
	info, err := os.Stat(file)
	assert.NilError(t, err)
	assert.Equal(t, info.Size()%512, int64(0), "a disk has only whole sectors")
	assert.NilError(t, os.Truncate(file, info.Size()-1))
	assert.ErrorContains(t, c.check(file), fmt.Sprintf("it has %d bytes instead of %d", info.Size()-1, info.Size()))
	assert.NilError(t, os.Truncate(file, info.Size()))
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	assert.NilError(t, err)
	_, err = f.WriteAt([]byte("x"), 2000)
	assert.NilError(t, errors.Join(err, f.Close()))
	assert.ErrorContains(t, c.check(file), "its content has changed")
	c.sweep(time.Now())
	left, err := os.ReadDir(c.dir)
	assert.NilError(t, err)
	assert.Equal(t, len(left), 3, "%v: the image, its record, and the digests", left)
}

// The image is another one if a module or a system file is another one.
func TestImageKey_IsOfTheContent(t *testing.T) {
	c := &Cache{dir: t.TempDir()}
	module := t.TempDir() + "/kernel/a.ko"
	k := &kernel{release: "6.1.0-1", modules: filepath.Dir(filepath.Dir(module))}
	assert.NilError(t, os.Mkdir(filepath.Dir(module), 0o755))
	assert.NilError(t, os.WriteFile(module, []byte("one"), 0o644))
	program := filepath.Join(t.TempDir(), "program")
	assert.NilError(t, os.WriteFile(program, []byte("one"), 0o755))
	tr := fileTree{}
	tr.addContent("/etc/hosts", "one")
	tr.addSymlink("/usr/bin/ls", "/bin/busybox")
	tr.addHostFile("/usr/bin/runc", program, 0o755)

	keys := map[string]string{}
	newKey := func(what string) {
		t.Helper()
		key, err := c.imageKey(tr, k)
		assert.NilError(t, err)
		assert.Equal(t, keys[key], "", what)
		keys[key] = what
	}
	newKey("first")
	assert.NilError(t, os.WriteFile(module, []byte("two"), 0o644))
	newKey("module")
	tr.addContent("/etc/hosts", "two")
	newKey("system file")
	tr.addSymlink("/usr/bin/ls", "/bin/other")
	newKey("applet")
	assert.NilError(t, os.WriteFile(program, []byte("two"), 0o755))
	newKey("program")
	tr.addHostFile("/usr/bin/runc", program, 0o700)
	newKey("mode")

	k.modules = t.TempDir()
	_, err := c.imageKey(tr, k)
	assert.ErrorContains(t, err, "CDB_MODULES")
}

// The advice names what the lab may fetch again, and nothing of the user.
func TestReadModules_ADamagedModule(t *testing.T) {
	dir := t.TempDir()
	k := &kernel{modules: dir + "/lib/modules/6.1"}
	assert.NilError(t, os.MkdirAll(k.modules+"/kernel", 0o755))
	assert.NilError(t, os.WriteFile(k.modules+"/kernel/virtio_pci.ko", []byte("no ELF"), 0o644))
	for of, do := range map[string]string{
		"":  "name the directory of other modules: CDB_MODULES=…", // the user's own
		dir: "remove " + dir + ", and run again: the lab fetches it again",
	} {
		k.dir = of
		_, err := k.readModules(bootModules)
		f, ok := errors.AsType[*Fault](err)
		assert.Assert(t, ok, "%v", err)
		assert.Equal(t, f.Do, do)
	}
}

func TestSweep(t *testing.T) {
	c := &Cache{dir: t.TempDir()}
	now := time.Now()
	// add creates a file or, with a name that ends in a slash, a directory, and its record if it has one.
	add := func(name string, age time.Duration, recorded bool) {
		path := c.path(name)
		assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if strings.HasSuffix(name, "/") {
			assert.NilError(t, os.MkdirAll(path+"/sub", 0o755))
		} else {
			assert.NilError(t, os.WriteFile(path, nil, 0o644))
		}
		assert.NilError(t, os.Chtimes(path, now.Add(-age), now.Add(-age)))
		if recorded {
			assert.NilError(t, os.WriteFile(recordOf(path), nil, 0o644))
			assert.NilError(t, os.Chtimes(recordOf(path), now.Add(-age), now.Add(-age)))
		}
	}
	const day, hour = 24 * time.Hour, time.Hour
	add("lock", 100*day, false)
	add("kvm.json", 100*day, false)
	add(".new-1", 2*hour, false)
	add(".new-2", 0, false)
	add("erofs-1", 2*hour, false)
	add("init-1.new-99", 2*hour, false)
	add("init-1", 8*day, true)
	add("init-2", 6*day, true)
	add("root-1.erofs", 8*day, true)
	add("root-2.erofs", 2*hour, false) // without a record
	add("root-3.erofs.json", 0, false) // without an image
	for i := range maxImages + 1 {
		add(fmt.Sprintf("root-a%02d.erofs", i), time.Duration(i)*hour, true)
	}
	add("kernel/.fetch-1/", 2*hour, false)
	add("kernel/.back-1/", 2*hour, false)
	add("kernel/.fetch-2/", 0, false)
	for _, pkg := range []string{"superseded", "current", "forgotten"} {
		assert.NilError(t, os.MkdirAll(c.path("kernel", pkg, "boot"), 0o755))
		assert.NilError(t, writeJSON(recordOf(c.path("kernel", pkg)), record{}))
	}
	assert.NilError(t, writeJSON(c.choiceFile("default"), kernelChoice{Package: "current"}))
	assert.NilError(t, writeJSON(c.choiceFile("5.10"), kernelChoice{Package: "forgotten"}))
	assert.NilError(t, os.Chtimes(c.choiceFile("5.10"), now, now.Add(-31*day)))
	assert.NilError(t, os.Symlink("superseded", c.path("kernel", "default")))

	// names returns what is in the cache.
	names := func() (list []string) {
		for _, dir := range []string{"", "kernel/"} {
			for _, e := range entries(c.path(dir)) {
				list = append(list, dir+e.Name())
			}
		}
		return slices.DeleteFunc(list, func(name string) bool { return strings.HasPrefix(name, "root-a") })
	}
	release, err := c.use(t.Context())
	assert.NilError(t, err)
	release()
	assert.DeepEqual(t, names(), []string{
		".new-2", "init-2", "init-2.json", "kernel", "kvm.json", "lock", "use",
		"kernel/.fetch-2", "kernel/choice-default.json", "kernel/current", "kernel/current.json",
	})
	_, err = os.Stat(c.path("root-a09.erofs"))
	assert.NilError(t, err)
	_, err = os.Stat(c.path("root-a10.erofs"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// After a month without a run, the kernel is there for a run without a network.
func TestSweep_NotWhatTheRunNeeds(t *testing.T) {
	a, c := newFakeArchive(t, "1"), &Cache{dir: t.TempDir()}
	a.fetch(c)
	monthAgo := time.Now().Add(-kernelUse - time.Hour)
	assert.NilError(t, writeJSON(c.choiceFile("5.10"), kernelChoice{Package: "forgotten"}))
	for _, version := range []string{"default", "5.10"} {
		assert.NilError(t, os.Chtimes(c.choiceFile(version), monthAgo, monthAgo))
	}
	assert.NilError(t, os.WriteFile(a.dir+"/offline", nil, 0o644))
	release, err := c.use(t.Context())
	assert.NilError(t, err)
	content, _ := a.fetch(c)
	assert.Equal(t, content, "content of 1")
	release()
	content, _ = a.fetch(c)
	assert.Equal(t, content, "content of 1")
	_, err = os.Stat(c.choiceFile("5.10"))
	assert.ErrorIs(t, err, os.ErrNotExist, "no run has asked for this version")
}

// While another run uses the cache, nothing is removed.
func TestSweep_NotWhileAnotherRunUsesTheCache(t *testing.T) {
	c := &Cache{dir: t.TempDir()}
	release, err := c.use(t.Context())
	assert.NilError(t, err)
	old := c.path("root-1.erofs")
	assert.NilError(t, os.WriteFile(old, nil, 0o644))
	assert.NilError(t, os.Chtimes(old, time.Time{}, time.Now().Add(-2*tempAge)))
	second, err := c.use(t.Context())
	assert.NilError(t, err)
	_, err = os.Stat(old)
	assert.NilError(t, err)
	second()
	release()
	_, err = os.Stat(old)
	assert.ErrorIs(t, err, os.ErrNotExist)

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&Stopped{Code: 130})
	_, err = c.use(ctx)
	assert.ErrorContains(t, err, "stopped")
}
