//go:build linux

// Package tools is the one table of the programs that the lab tests and of the programs that its questions use.
//
// The lab, the throw-away VM and `make deps` read this table, so all three look for a program in the same places.
package tools

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"cdblab/helpers/rootfs"
)

// A Tool is a program that the lab tests or uses.
type Tool struct {
	Name        string   // as the chapter types it
	Env         string   // environment variable that names another program, outside and in the guest; "" for none
	Search      []string // where it is looked for, in this order: see [Tool.Find]
	GuestPath   string   // its path in the throw-away VM
	VersionArgs []string // arguments that make it print its version
	Remedy      string   // the command that provides it: makeTools or makeDeps
	Need        Need
	Static      bool   // it must be statically linked
	Build       *Build // how `make tools` builds it; nil for a tool of the distribution
}

// Need says how much the lab depends on a tool.
type Need string

const (
	// Required: no run without it.
	Required Need = "required"
	// Recommended: the questions that need it are skipped without it. Every distribution has a package of it, so
	// `make deps` always installs it.
	Recommended Need = "recommended"
	// Optional: the questions that need it are skipped without it. Not every distribution has a package of it, so
	// `make deps` installs it only if the package manager offers it.
	Optional Need = "optional"
)

const (
	makeTools = "make tools" // builds the release that go.mod pins into .lab/bin
	makeDeps  = "make deps"  // installs a package of the distribution
)

// All lists every tool. First the required tools, in the order in which a run reports them.
var All = []Tool{
	pinnedTool("runc", "CDB_RUNC", runcBuild, "--version"),
	pinnedTool("containerd", "CDB_CONTAINERD", containerdBuild, "--version"),
	pinnedTool("ctr", "CDB_CTR", containerdBuild, "--version"),
	pinnedTool("containerd-shim-runc-v2", "CDB_SHIM", containerdBuild, "-v"),
	{
		// The one program of the root filesystem. It must be static: the root filesystem has no libraries. Without
		// arguments it prints its version.
		Name: "busybox", Env: "CDB_BUSYBOX", Static: true, GuestPath: "/usr/bin/busybox", Need: Required, Remedy: makeDeps,
		// The names that distributions give to a static busybox.
		Search: []string{"busybox", "busybox.static", "busybox-static", "/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/bin/busybox.static", "/usr/lib/busybox/busybox-static"},
	},
	helperTool("strace", "/usr/bin/strace", Recommended),
	helperTool("crun", "/usr/bin/crun", Optional),
	helperTool("criu", "/usr/sbin/criu", Optional),
	helperTool("mkfs.erofs", "/usr/bin/mkfs.erofs", Optional),
	helperTool("apparmor_parser", "/usr/sbin/apparmor_parser", Optional),
	helperTool("newuidmap", "/usr/bin/newuidmap", Optional),
	helperTool("newgidmap", "/usr/bin/newgidmap", Optional),
}

// pinnedTool returns a program under test: go.mod pins its version, and `make tools` builds it.
func pinnedTool(name, env string, build Build, versionArgs ...string) Tool {
	if build.Module == containerdBuild.Module {
		build.Package += name
	}
	return Tool{
		Build: &build,
		Name:  name, Env: env, VersionArgs: versionArgs, Search: []string{".lab/bin/" + name},
		GuestPath: "/usr/local/bin/" + name, Need: Required, Remedy: makeTools,
	}
}

// helperTool returns a program that some questions use. An ordinary user's PATH often lacks the sbin directories, and
// the VM is started by an ordinary user; so the usual directories are searched after PATH.
func helperTool(name, guestPath string, need Need) Tool {
	search := []string{name}
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"} {
		search = append(search, dir+"/"+name)
	}
	return Tool{Name: name, Search: search, GuestPath: guestPath, Need: need, Remedy: makeDeps}
}

// A Program is a tool that was found.
type Program struct {
	Name    string // as the chapter types it
	Path    string // absolute
	Version string // first line of the version that it prints; set by [Describe]
	Digest  string // sha256 of the file; set by [Describe]
	Pinned  bool   // go.mod pins it; the environment does not name another one
}

// FindRequired finds the required tools, by name. The error names every tool that is missing, and its remedy.
func FindRequired(module string) (map[string]Program, error) {
	found := map[string]Program{}
	var errs []error
	for _, t := range All {
		if t.Need != Required {
			continue
		}
		p, err := t.Find(module)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found[t.Name] = p
	}
	return found, errors.Join(errs...)
}

// Find finds the program that the environment variable t.Env names. If the variable is not set, Find looks at the
// places in t.Search: a bare name is looked up in PATH, a relative path lies below the directory module.
//
// The error is a [*NotFoundError].
func (t Tool) Find(module string) (Program, error) {
	path, err := t.named()
	if path == "" && err == nil {
		path, err = t.search(module)
	}
	if err != nil {
		return Program{}, err
	}
	return Program{Name: t.Name, Path: path, Pinned: t.Pinned()}, nil
}

// Installed reports whether t is there, either where t.Env says or at one of the places in t.Search.
func (t Tool) Installed(module string) bool {
	if path, err := t.named(); path != "" && err == nil {
		return true
	}
	_, err := t.search(module)
	return err == nil
}

// FromPackage reports whether t comes with a package of the distribution, which `make deps` installs.
func (t Tool) FromPackage() bool { return t.Remedy == makeDeps }

// PackageEnv returns the environment variable that has the distribution's package of the program, and its version. It is for the
// reader of the results only.
func (t Tool) PackageEnv() string {
	if t.Env == "" {
		return ""
	}
	return t.Env + "_PACKAGE"
}

// PinnedEnv is the environment variable that lists the variables of the tools that are pinned although their variable
// names them. In the throw-away VM all tools are named, because they are at other paths there.
const PinnedEnv = "CDB_PINNED"

// Pinned reports whether t is the version that go.mod pins, not another one that the environment names.
func (t Tool) Pinned() bool {
	return os.Getenv(t.Env) == "" || slices.Contains(strings.Split(os.Getenv(PinnedEnv), ","), t.Env)
}

// NotFoundError reports that a tool was not found.
type NotFoundError struct {
	Seen  string // what was seen
	Do    string // what the reader can do about it
	cause error
}

func (e *NotFoundError) Error() string { return e.Seen + "\n    " + e.Do }

func (e *NotFoundError) Unwrap() error { return e.cause }

// named returns the program that the environment variable names, or "" if the variable is not set.
func (t Tool) named() (string, error) {
	value := ""
	if t.Env != "" {
		value = os.Getenv(t.Env)
	}
	if value == "" {
		return "", nil
	}
	path, err := exec.LookPath(value) // a bare name, too: CDB_RUNC=crun
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		do := fmt.Sprintf("name one, or unset %s to test the pinned %s", t.Env, t.Name)
		if t.Build != nil {
			do += fmt.Sprintf(". To test a release by its number, write: make lab %s=1.2.3", strings.TrimPrefix(t.Env, "CDB_"))
		}
		return "", &NotFoundError{Seen: fmt.Sprintf("%s=%s names no executable: %v", t.Env, value, err), Do: do, cause: err}
	}
	if err := t.checkStatic(path); err != nil {
		return "", &NotFoundError{
			Seen:  fmt.Sprintf("%s=%s cannot be the rootfs: %v", t.Env, value, err),
			Do:    "name a static one (Debian: busybox-static)",
			cause: err,
		}
	}
	return path, nil
}

// search looks at the places in t.Search.
func (t Tool) search(module string) (string, error) {
	var tried []string
	var last error
	for _, place := range t.Search {
		if strings.Contains(place, "/") && !filepath.IsAbs(place) {
			place = filepath.Join(module, place)
			if abs, err := filepath.Abs(place); err == nil {
				place = abs
			}
		}
		path, err := exec.LookPath(place)
		if err == nil {
			err = t.checkStatic(path)
		}
		if err == nil && t.Build != nil {
			if err := t.Build.check(path, module); err != nil {
				return "", &NotFoundError{
					Seen:  fmt.Sprintf("%s is stale: %v", path, err),
					Do:    fmt.Sprintf("run `make tools`, or name your own: %s=/path/to/%s", t.Env, t.Name),
					cause: err,
				}
			}
		}
		if err == nil {
			return filepath.Abs(path)
		}
		tried, last = append(tried, err.Error()), err
	}
	e := &NotFoundError{cause: last}
	switch {
	case t.Remedy == makeTools:
		e.Seen = fmt.Sprintf("%s is not built (%s)", t.Name, strings.Join(tried, "; "))
		e.Do = fmt.Sprintf("run `make tools`, or name your own: %s=/path/to/%s", t.Env, t.Name)
	case t.Static:
		e.Seen = fmt.Sprintf("no static %s for the rootfs: %s", t.Name, strings.Join(tried, "; "))
		e.Do = fmt.Sprintf("run `make deps`, or name one: %s=/path/to/%s", t.Env, t.Name)
	default:
		e.Seen = fmt.Sprintf("%s is not installed: %s", t.Name, strings.Join(tried, "; "))
		e.Do = "run `make deps`"
	}
	return "", e
}

func (t Tool) checkStatic(path string) error {
	if !t.Static {
		return nil
	}
	return rootfs.CheckStatic(path)
}
