//go:build linux

package lab

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cdblab/helpers/rootfs"
)

// Tool is a program under test.
type Tool struct {
	Name    string // as the chapter types it
	Path    string // absolute
	Version string // first line of what it says of itself
	Digest  string // sha256 of the file
	Pinned  bool   // it is the one that go.mod pins, not one that the environment names
}

// toolSpecs say where each tool is looked for: in the environment variable first, then where `make tools` puts it.
var toolSpecs = []struct {
	name, env string
	version   []string
}{
	{"runc", "CDB_RUNC", []string{"--version"}},
	{"containerd", "CDB_CONTAINERD", []string{"--version"}},
	{"ctr", "CDB_CTR", []string{"--version"}},
	{"containerd-shim-runc-v2", "CDB_SHIM", []string{"-v"}},
	{"busybox", "CDB_BUSYBOX", nil},
}

// underTest has the tools of this run by name.
var underTest = map[string]Tool{}

// UnderTest returns a tool of this run by its name (runc, containerd, ctr, containerd-shim-runc-v2, busybox).
func UnderTest(name string) Tool { return underTest[name] }

// Pinned says whether all of runc, containerd, ctr and the shim are those that go.mod pins.
func Pinned() bool {
	for name, t := range underTest {
		if name != "busybox" && !t.Pinned {
			return false
		}
	}
	return true
}

// Image is the reference of the image that the task questions pull.
const Image = "docker.io/library/busybox:latest"

// ImageRef returns [Image], or the image that CDB_IMAGE names, which is then pulled from where it really is.
func ImageRef() (ref string, ours bool) {
	if r := os.Getenv("CDB_IMAGE"); r != "" {
		return r, false
	}
	return Image, true
}

// findTools finds every tool, or says for each that is missing how to get it.
func findTools() (map[string]Tool, error) {
	found := map[string]Tool{}
	var errs []error
	for _, s := range toolSpecs {
		path, err := findTool(s.name, s.env)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found[s.name] = Tool{Name: s.name, Path: path, Pinned: pinned(s.env)}
	}
	return found, errors.Join(errs...)
}

// pinnedEnv lists the variables of the tools that are the pinned ones, although a variable names them: in the throw-away
// VM they are at another place.
const pinnedEnv = "CDB_PINNED"

func pinned(env string) bool {
	return os.Getenv(env) == "" || slices.Contains(strings.Split(os.Getenv(pinnedEnv), ","), env)
}

func findTool(name, env string) (string, error) {
	if named := os.Getenv(env); named != "" {
		path, err := exec.LookPath(named)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return "", fmt.Errorf("%s=%s names no executable: %w\n    name one, or unset %s to test the pinned %s", env, named, err, env, name)
		}
		if name == "busybox" {
			if err := rootfs.Static(path); err != nil {
				return "", fmt.Errorf("%s=%s cannot be the rootfs: %w\n    name a static one (Debian: busybox-static)", env, named, err)
			}
		}
		return path, nil
	}
	if name == "busybox" {
		return findBusybox()
	}
	path, err := filepath.Abs(filepath.Join(".lab", "bin", name))
	if err == nil {
		_, err = exec.LookPath(path)
	}
	if err != nil {
		return "", fmt.Errorf("%s is not built (%w)\n    run: make tools        or name your own: %s=/path/to/%s", name, err, env, name)
	}
	return path, nil
}

// findBusybox looks for a static busybox under the names that distributions give it.
func findBusybox() (string, error) {
	var tried []string
	for _, name := range []string{"busybox", "busybox.static", "busybox-static", "/bin/busybox", "/sbin/busybox", "/usr/lib/busybox/busybox-static"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = rootfs.Static(path)
		}
		if err == nil {
			return filepath.Abs(path)
		}
		tried = append(tried, err.Error())
	}
	return "", fmt.Errorf("no static busybox for the rootfs: %s\n    run: make deps         or name one: CDB_BUSYBOX=/path/to/busybox", strings.Join(tried, "; "))
}

// describe asks each tool for its version and takes its digest, all at once.
func describe(tools map[string]Tool) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, s := range toolSpecs {
		t := tools[s.name]
		wg.Go(func() {
			t.Version, t.Digest = version(t.Path, s.version)+tags(t.Path), digest(t.Path)
			mu.Lock()
			defer mu.Unlock()
			tools[s.name] = t
		})
	}
	wg.Wait()
}

// version is what a tool says of itself. One that does not answer may still be what somebody wants to test.
func version(path string, args []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	// The shim puts its name and a colon first, and says the version on the second line.
	line := strings.TrimSpace(strings.ReplaceAll(string(out), "containerd-shim-runc-v2:\n", ""))
	line, _, _ = strings.Cut(line, "\n")
	if line = strings.TrimSpace(line); line == "" {
		line = "says nothing of its version"
	}
	if err != nil {
		return fmt.Sprintf("%s (%v)", line, err)
	}
	return line
}

// tags are the build tags of a Go program, which say what was left out of it; "" where it has none, or is no Go program.
func tags(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return " (build tags " + s.Value + ")"
		}
	}
	return ""
}

func digest(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}
