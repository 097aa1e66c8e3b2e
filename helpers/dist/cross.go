//go:build linux

package dist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// target is an architecture in the words of those who have their own for it.
type target struct{ debian, gnu string }

var targets = map[string]target{
	"amd64": {"amd64", "x86_64-linux-gnu"},
	"arm64": {"arm64", "aarch64-linux-gnu"},
}

// cross is what a build for another architecture than this machine's needs: a C compiler, Debian's libseccomp to link with, and
// Debian's busybox.
type cross struct {
	root string // the files of the packages
	env  []string
}

// busybox returns the path of the static busybox.
func (c *cross) busybox() string { return filepath.Join(c.root, "bin/busybox") }

// fetchLimit is how long apt may take.
const fetchLimit = 10 * time.Minute

// newCross fetches the packages into the directory dir. It uses apt with package lists of its own, which need no root, and changes
// nothing of this machine's apt.
func newCross(ctx context.Context, arch, dir string) (*cross, error) {
	t, ok := targets[arch]
	if !ok {
		return nil, fmt.Errorf("no tarball can be made for %q; there are amd64 and arm64", arch)
	}
	cc, err := exec.LookPath(t.gnu + "-gcc")
	if err != nil {
		return nil, fmt.Errorf("%w: install the C compiler for %s (Debian: gcc-%s libc6-dev-%s-cross)", err, arch, t.gnu, t.debian)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("%w: libseccomp and busybox for %s come from Debian's packages; build this tarball on %s, or where there is apt",
			err, arch, arch)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "root")
	if err := removeOld(dir, root); err != nil {
		return nil, err
	}
	for _, d := range []string{"lists/partial", "archives/partial", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	status := filepath.Join(dir, "status") // of no installed package
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	options := []string{
		"-o", "APT::Architecture=" + t.debian, "-o", "APT::Architectures=" + t.debian, "-o", "Dir::State::Lists=" + dir + "/lists",
		"-o", "Dir::State::status=" + status, "-o", "Dir::Cache=" + dir, "-o", "Debug::NoLocking=1", "-q",
	}
	for _, args := range [][]string{{"update"}, {"download", "libseccomp-dev", "busybox-static"}} {
		if err := output(ctx, dir, "apt-get", append(options, args...)...); err != nil {
			return nil, err
		}
	}
	packages, err := fs.Glob(os.DirFS(dir), "*.deb")
	if err != nil || len(packages) != 2 {
		return nil, errors.Join(err, fmt.Errorf("apt-get download fetched %q, not two packages", packages))
	}
	for _, p := range packages {
		if err := output(ctx, dir, "dpkg-deb", "--extract", p, root); err != nil {
			return nil, err
		}
	}
	libraries := filepath.Join(root, "usr/lib", t.gnu)
	return &cross{root: root, env: []string{
		"CC=" + cc, "PKG_CONFIG_LIBDIR=" + libraries + "/pkgconfig", "PKG_CONFIG_SYSROOT_DIR=" + root,
		"CGO_CFLAGS=-O2 -g0", "CGO_LDFLAGS=-L" + libraries,
	}}, nil
}

// removeOld removes the packages of the last build, and their files. apt's lists stay, so that it fetches only what has changed.
func removeOld(dir, root string) error {
	packages, err := fs.Glob(os.DirFS(dir), "*.deb")
	for _, p := range packages {
		err = errors.Join(err, os.Remove(filepath.Join(dir, p)))
	}
	return errors.Join(err, os.RemoveAll(root))
}

// output runs a command. Its output is in the error only.
func output(ctx context.Context, dir, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env = dir, append(os.Environ(), "LC_ALL=C")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
