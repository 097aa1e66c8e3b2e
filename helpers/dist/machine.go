//go:build linux

package dist

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/host"
	"cdblab/helpers/tools"
)

// A Choice is a program that the questions are asked about.
type Choice struct {
	Tool    tools.Tool
	Path    string
	Pinned  bool
	Package string // the machine's package that it comes from, with its version; "" for none
	Missing bool   // the machine has none, so the pinned one is asked about
}

// Choose returns the programs that the questions are asked about: those that the environment names, then those of the machine, then
// those of the tarball. With pinned, those of the machine are left out.
func (t Tree) Choose(ctx context.Context, pinned bool) []Choice {
	var out []Choice
	for _, tool := range tools.All {
		if tool.Env == "" {
			continue
		}
		c := Choice{Tool: tool, Path: os.Getenv(tool.Env)}
		if path := lookup(c.Path); path != "" { // the questions run in another directory, and report a program that is missing
			c.Path = path
		}
		ofMachine := tool.Build != nil && !pinned // the questions need a static busybox, which few machines have
		if c.Path == "" && ofMachine {
			c.Path = find(tool.Name)
			c.Missing = c.Path == ""
		}
		if c.Path == "" {
			c.Path, c.Pinned = t.path(filepath.Join(BinDir, tool.Name)), true
		} else {
			c.Package = packageOf(ctx, c.Path)
		}
		out = append(out, c)
	}
	return out
}

// Environ returns the variables by which the questions find the programs. Programs that the user's CDB_PINNED names are held to all
// assertions, too.
func (t Tree) Environ(choices []Choice) []string {
	var env, pinned []string
	for _, c := range choices {
		env = append(env, c.Tool.Env+"="+c.Path)
		if c.Package != "" {
			env = append(env, c.Tool.PackageEnv()+"="+c.Package)
		}
		if c.Pinned {
			pinned = append(pinned, c.Tool.Env)
		}
	}
	if more := os.Getenv(tools.PinnedEnv); more != "" {
		pinned = append(pinned, more)
	}
	releases := cmp.Or(os.Getenv(tools.ReleasesEnv), t.path(ReleasesDir))
	if abs, err := filepath.Abs(releases); err == nil { // as in Choose
		releases = abs
	}
	return append(env, tools.PinnedEnv+"="+strings.Join(pinned, ","), tools.ReleasesEnv+"="+releases)
}

var usualDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// standardDirs are searched after PATH. A variable, so that a test can have a machine without programs.
var standardDirs = usualDirs

// find returns the path of a program of the machine, or "". The PATH that sudo sets often lacks /usr/local/sbin and the like.
func find(name string) string {
	if path := lookup(name); path != "" {
		return path
	}
	for _, dir := range standardDirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

// lookup returns the absolute path of a program that is named as on a command line, or "".
func lookup(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		if abs, err := filepath.Abs(path); err == nil {
			return abs
		}
	}
	return ""
}

// packageManagers are commands that print the package of a file, and its version. The last argument is the file. The output of the
// first may need a second command, which gets the package.
var packageManagers = [][]string{
	{"rpm", "-qf", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}"},
	{"pacman", "-Qo", "--quiet"},
	{"apk", "info", "--who-owns", "--quiet"},
}

// packageOf returns the package of a file, with its version, or "" if no package manager of this machine knows the file.
func packageOf(ctx context.Context, file string) string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	names := []string{file}
	if real, err := filepath.EvalSymlinks(file); err == nil && real != file {
		names = append(names, real)
	}
	for _, name := range slices.Clone(names) {
		if rest, ok := strings.CutPrefix(name, "/usr"); ok {
			names = append(names, rest) // dpkg knows a file by the path that its package has, and /bin became a link to /usr/bin
		}
	}
	for _, name := range names {
		if out := firstLine(ctx, "dpkg-query", "--search", name); out != "" {
			pkg, _, _ := strings.Cut(out, ": ")
			return firstLine(ctx, "dpkg-query", "--show", "--showformat", "${Package} ${Version}", pkg)
		}
		for _, manager := range packageManagers {
			if out := firstLine(ctx, manager[0], append(manager[1:], name)...); out != "" {
				return out
			}
		}
	}
	return ""
}

// firstLine returns the first line that a command prints, or "" if it fails or is not there.
func firstLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// Describe says which programs the questions are asked about, a line each, with the package that each comes from.
func Describe(version string, choices []Choice) string {
	var b strings.Builder
	if version != "" {
		fmt.Fprintln(&b, version)
	}
	for _, c := range choices {
		from := c.Package
		switch {
		case c.Pinned && c.Missing:
			from = "this machine has none, so the one of the tarball is asked about"
		case c.Pinned:
			from = "of the tarball"
		case from == "":
			from = "of no package"
		}
		fmt.Fprintf(&b, "  %-24s %s (%s)\n", c.Tool.Name, c.Path, from)
	}
	if info, err := os.Stat(host.ContainerdConfig); err == nil {
		fmt.Fprintf(&b, "  %-24s %s of %s is read by one question, about pods; the lab starts containerd with a configuration of its own\n",
			"configuration", host.ContainerdConfig, info.ModTime().Format(time.DateOnly))
	}
	return b.String()
}
