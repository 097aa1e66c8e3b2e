//go:build linux

package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// programVariables are the variables that name programs under test, and which ones. CONTAINERD names three programs, because
// daemon, client and shim of a release belong together. CTR and SHIM name one of them alone.
var programVariables = []struct {
	name  string
	tools []string // names in the table of helpers/tools. The first one is the program that the variable is called after
}{
	{"RUNC", []string{"runc"}},
	{"CONTAINERD", []string{"containerd", "ctr", "containerd-shim-runc-v2"}},
	{"CTR", []string{"ctr"}},
	{"SHIM", []string{"containerd-shim-runc-v2"}},
}

// vmVariables are the settings of the VM. helpers/vm reads each one with the prefix CDB_, and checks its value.
var vmVariables = []string{"KERNEL", "CGROUP", "MEM", "CPUS", "ACCEL", "DISK", "FIRMWARE", "USER_DATA", "DISK_PINNED"}

// A Spec is what a run tests, as a user types it on make's command line: RUNC=1.2.5 CONTAINERD=1.7.29 CGROUP=v1. The Spec
// without words is the stack that go.mod pins.
type Spec struct {
	words    []string           // as they were given
	settings []string           // CDB_CGROUP=v1
	programs map[string]program // by the name in the table of helpers/tools
}

// Parse reads words such as RUNC=1.2.5. It checks the names and the values, and that the programs that are no releases are
// there. It starts no program, so that a user hears of a mistake at once.
func Parse(words []string) (Spec, error) {
	spec := Spec{words: slices.Clone(words), programs: map[string]program{}}
	values := map[string]string{}
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !ok || !slices.Contains(Variables(), name) {
			return Spec{}, &Error{word, "expected a variable and its value", "write for example RUNC=1.2.5; the variables are " +
				strings.Join(Variables(), ", ")}
		}
		if _, twice := values[name]; twice {
			return Spec{}, &Error{word, name + " has a value already", "name it once"}
		}
		if value == "" {
			return Spec{}, &Error{word, "the value is empty", fmt.Sprintf("give %s a value, or leave it out (unset %s)", name, name)}
		}
		values[name] = value
		if slices.Contains(vmVariables, name) {
			spec.settings = append(spec.settings, "CDB_"+word)
		}
	}
	// In the order of the table: CTR and SHIM replace what CONTAINERD has named.
	for _, v := range programVariables {
		value, ok := values[v.name]
		if !ok {
			continue
		}
		wanted := slices.DeleteFunc(slices.Clone(v.tools), func(tool string) bool {
			return v.name == "CONTAINERD" && (tool == "ctr" && values["CTR"] != "" || tool == "containerd-shim-runc-v2" && values["SHIM"] != "")
		})
		if err := spec.addPrograms(v.name, value, wanted); err != nil {
			return Spec{}, err
		}
	}
	return spec, nil
}

// Variables returns the names of the variables that a [Spec] may have.
func Variables() []string {
	var names []string
	for _, v := range programVariables {
		names = append(names, v.name)
	}
	return append(names, vmVariables...)
}

// CDBVariables returns the names of the CDB_* variables that a [Spec] may set.
func CDBVariables() []string {
	var names []string
	for _, t := range tested() {
		names = append(names, t.Env)
	}
	for _, v := range vmVariables {
		names = append(names, "CDB_"+v)
	}
	return names
}

// String returns the words of the spec, or "pinned" for the spec without words.
func (s Spec) String() string {
	if len(s.words) == 0 {
		return "pinned"
	}
	return strings.Join(s.words, " ")
}

// Environ returns the environment for a run that tests the spec: base with the CDB_* variables of the spec, and without the
// variables that they replace. It builds the releases that are not built yet.
func (s Spec) Environ(ctx context.Context, base []string) ([]string, error) {
	var st *store
	if len(s.programs) > 0 {
		var err error
		if st, err = openStore(); err != nil {
			return nil, err
		}
	}
	return s.environ(ctx, st, base)
}

func (s Spec) environ(ctx context.Context, st *store, base []string) ([]string, error) {
	assignments, err := s.assignments(ctx, st)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(slices.Clone(base), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.ContainsFunc(assignments, func(a string) bool { return strings.HasPrefix(a, name+"=") }) ||
			slices.Contains(Variables()[:len(programVariables)], name)
	})
	for _, e := range base {
		if err := s.conflict(e, assignments); err != nil {
			return nil, err
		}
	}
	return append(out, assignments...), nil
}

// assignments returns only the CDB_* variables of the spec. It builds the releases that are not built yet.
func (s Spec) assignments(ctx context.Context, st *store) ([]string, error) {
	out := slices.Clone(s.settings)
	for _, t := range tested() {
		p, ok := s.programs[t.Name]
		if !ok {
			continue
		}
		path, err := p.file(ctx, st)
		if err != nil {
			return nil, err
		}
		out = append(out, t.Env+"="+path)
	}
	return out, nil
}

// conflict returns an error if the environment names another program than the spec. A program that the user has named, and
// that is not tested, is worse than an error.
func (s Spec) conflict(entry string, assignments []string) error {
	name, value, _ := strings.Cut(entry, "=")
	for _, t := range tested() {
		p, ok := s.programs[t.Name]
		if !ok || t.Env != name || value == "" || slices.Contains(assignments, entry) {
			continue
		}
		return &Error{p.given, fmt.Sprintf("the environment names another %s: %s", t.Name, entry), "unset " + name + ", or leave out " + p.given}
	}
	return nil
}
