//go:build linux

package vm

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"cdblab/helpers/tools"
	"cdblab/helpers/vm/protocol"
)

// initName returns the path of the guest's pid 1 that is built from exactly these sources. It need not exist.
func (c *Cache) initName() (string, error) {
	key := sha256.New()
	fmt.Fprintln(key, runtime.Version(), runtime.GOARCH, tools.Levels)
	// Not filepath.Glob: the checkout's path may contain characters of a pattern.
	module := os.DirFS(c.Module)
	for _, pattern := range []string{"cmd/lab-init/*.go", "helpers/vm/protocol/*.go", "go.sum"} {
		files, _ := fs.Glob(module, pattern)
		if len(files) == 0 {
			return "", &Fault{
				Tried: "read the sources of the guest's pid 1", Seen: "there is no " + pattern + " in " + c.Module,
				Do: "check that the checkout is complete, and that you can read it",
			}
		}
		for _, f := range files {
			b, err := fs.ReadFile(module, f)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(key, "%s %d\n%s", f, len(b), b)
		}
	}
	return c.path("init-" + hex.EncodeToString(key.Sum(nil))[:16]), nil
}

// buildInit returns the path of the guest's pid 1, and builds it if none of exactly these sources exists. Even a go
// build that finds nothing to do costs an eighth of a second.
func (c *Cache) buildInit(ctx context.Context, log func(string, ...any)) (string, error) {
	out, err := c.initName()
	if err != nil {
		return "", err
	}
	if c.check(out) == nil {
		return out, nil
	}
	unlock, err := c.lock(ctx, log)
	if err != nil {
		return "", err
	}
	defer unlock()
	if c.check(out) == nil {
		return out, nil // another run built it while this run waited
	}
	tmp, err := filepath.Abs(c.path(".new-init")) // go build runs in another directory
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp)
	var output tailBuffer
	set := func(build *exec.Cmd) {
		build.Dir, build.Stderr = c.Module, &output
		build.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux"), tools.Levels...)
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", tmp, "./cmd/lab-init"}
	if _, err := runHelper(ctx, buildLimit, set, cmp.Or(os.Getenv("GO"), "go"), args...); err != nil {
		return "", &Fault{
			Tried: "build the guest's pid 1: go build ./cmd/lab-init", Seen: strings.TrimSpace(output.String() + "\n" + err.Error()),
			Do: "check that go is on PATH, or that GO names it, that HOME is set, that the module builds, and that the disk is not full",
		}
	}
	if err := c.commit(tmp, out); err != nil {
		return "", diskFault("build the guest's pid 1", c.dir, err)
	}
	return out, nil
}

// initrd returns the first root filesystem: pid 1 (the program init), and the modules that it loads before it can see
// the disks.
func (c *Cache) initrd(k *kernel, init string) (*os.File, error) {
	program, err := os.ReadFile(init)
	if err != nil {
		return nil, err
	}
	list, err := k.readModules(bootModules)
	if err != nil {
		return nil, err
	}
	a := new(cpioArchive)
	a.add("dev", 0o040755, nil)
	a.add("init", 0o100755, program)
	a.add(protocol.ModulesDir[1:], 0o040755, nil)
	for i, m := range list {
		a.add(fmt.Sprintf("%s/%02d-%s.ko", protocol.ModulesDir[1:], i, m.name), 0o100644, m.content)
	}
	f, err := unnamedFile(c.dir, a.bytes())
	if err != nil {
		return nil, diskFault("write the initrd", c.dir, err)
	}
	return f, nil
}

// cpioArchive is a cpio archive in the "newc" format, which the kernel reads.
//
// https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
type cpioArchive struct {
	buf bytes.Buffer
	ino int
}

func (a *cpioArchive) add(name string, mode int, content []byte) {
	a.ino++
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", a.ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	a.buf.WriteString(name + "\x00")
	a.pad()
	a.buf.Write(content)
	a.pad()
}

func (a *cpioArchive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

func (a *cpioArchive) bytes() []byte {
	a.add("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}
