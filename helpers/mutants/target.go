//go:build linux

package mutants

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"

	"cdblab/helpers/tools"
)

// A Target is a program of which mutants are made.
type Target struct {
	Name    string
	Tool    tools.Tool // how it is built, and the variable that names it to the lab
	Modules []string   // the modules that are mutated; the first one has the program
	// Init has the files that only `runc init` executes. They count as executed if the profile has nothing of InitMain, and so
	// nothing of runc init.
	Init     *regexp.Regexp
	InitMain string
}

// Targets are the programs of which mutants can be made, by the names that TARGET= has.
var Targets = []Target{
	{
		// The runtime's cgroups were a package of runc itself up to 1.2, and are a module since.
		Name: "runc", Tool: tool("runc"), Modules: []string{"github.com/opencontainers/runc", "github.com/opencontainers/cgroups"},
		Init: regexp.MustCompile(`^github\.com/opencontainers/runc/libcontainer/(` +
			`(init|rootfs|standard_init|setns_init|console)_linux\.go|(apparmor|capabilities|keys|seccomp|system)/)`),
		InitMain: "github.com/opencontainers/runc/libcontainer/standard_init_linux.go",
	},
	containerdTarget("containerd", "containerd"),
	containerdTarget("shim", "containerd-shim-runc-v2"),
	containerdTarget("ctr", "ctr"),
}

func containerdTarget(name, program string) Target {
	t := tool(program)
	return Target{Name: name, Tool: t, Modules: []string{t.Build.Module}}
}

func tool(name string) tools.Tool {
	return tools.All[slices.IndexFunc(tools.All, func(t tools.Tool) bool { return t.Name == name })]
}

// FindTarget returns the target with a name.
func FindTarget(name string) (Target, error) {
	var names []string
	for _, t := range Targets {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return Target{}, fmt.Errorf("TARGET=%s names no program of which mutants can be made\n"+
		"  what to do: name one of %s", name, strings.Join(names, ", "))
}

// Version returns the version of the target's module that the go.mod in a directory requires.
func (t Target) Version(dir string) (string, error) {
	path := filepath.Join(dir, "go.mod")
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	mod, err := modfile.Parse(path, data, nil)
	if err != nil {
		return "", err
	}
	for _, r := range mod.Require {
		if r.Mod.Path == t.Modules[0] {
			return r.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s: run this in the root directory of the module cdblab", path, t.Modules[0])
}

// owns reports whether a package, or a file of one, is of a module that is mutated.
func (t Target) owns(path string) bool {
	return slices.ContainsFunc(t.Modules, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
}
