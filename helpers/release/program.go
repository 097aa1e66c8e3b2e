//go:build linux

package release

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"cdblab/helpers/tools"
)

// A program is what a variable names: a release, or a file that is there.
type program struct {
	given   string     // RUNC=1.2.5
	tool    tools.Tool // of the table
	version string     // v1.2.5, or "" for a file
	path    string     // absolute; "" for a release
}

// file returns the path of the program. It builds a release that is not built yet.
func (p program) file(ctx context.Context, st *store) (string, error) {
	if p.version == "" {
		return p.path, nil
	}
	return st.get(ctx, p)
}

// tested returns the tools that a variable can name.
func tested() []tools.Tool {
	return slices.DeleteFunc(slices.Clone(tools.All), func(t tools.Tool) bool { return t.Build == nil })
}

var startsLikeVersion = regexp.MustCompile(`^v?[0-9]`)

// addPrograms adds the programs that a variable names. The first word of wanted may be missing from the list: another variable
// has named it.
func (s *Spec) addPrograms(variable, value string, wanted []string) error {
	given := variable + "=" + value
	version, path := "", ""
	switch {
	case strings.Contains(value, "/"):
		abs, err := filepath.Abs(value)
		if err != nil {
			return &Error{given, err.Error(), "name an absolute path"}
		}
		path = abs
	case startsLikeVersion.MatchString(value):
		version = "v" + strings.TrimPrefix(value, "v")
		if semver.Canonical(version) != version {
			return &Error{given, "this is no complete version", "write all three numbers, such as 1.2.5, or 1.3.0-rc.1 for a release candidate"}
		}
	default:
		found, err := lookPath(value)
		if err != nil {
			return &Error{given, "this is neither a version nor a program on PATH: " + err.Error(),
				fmt.Sprintf("write a version (%s=1.2.5), the name of a program that is installed, or a path (%s=/usr/bin/%s)",
					variable, variable, wanted[0])}
		}
		path = found
	}
	for _, t := range tested() {
		if !slices.Contains(wanted, t.Name) {
			continue
		}
		p := program{given: given, tool: t, version: version}
		if path != "" {
			p.path = path
			if info, err := os.Stat(path); err == nil && info.IsDir() && variable == "CONTAINERD" {
				p.path = filepath.Join(path, t.Name)
			} else if t.Name != wanted[0] {
				p.path = filepath.Join(filepath.Dir(path), t.Name)
			}
			if _, err := exec.LookPath(p.path); err != nil {
				return &Error{given, fmt.Sprintf("%s is no program: %v", p.path, err), advice(variable, path)}
			}
		}
		s.programs[t.Name] = p
	}
	return nil
}

// advice says what a variable may name, if its path leads to no program.
func advice(variable, path string) string {
	if variable == "CONTAINERD" {
		return "name a directory that has containerd, ctr and containerd-shim-runc-v2, or a containerd beside which they are; " +
			"or name the others with CTR= and SHIM="
	}
	return "name a file that can be executed, or a version such as " + variable + "=1.2.5"
}

// lookPath looks for a program on PATH, and then in the usual directories: the PATH of an ordinary user often lacks the sbin
// directories.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}
