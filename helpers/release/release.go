//go:build linux

// Package release provides any release of runc and containerd by its number.
//
// On make's command line RUNC, CONTAINERD, CTR and SHIM name what is tested, by a version (1.2.5), by the name of a program
// (crun) or by a path. This package builds the releases and says in which files the programs are. The variables CDB_RUNC,
// CDB_CONTAINERD, CDB_CTR and CDB_SHIM hand these files on; helpers/tools reads them.
package release

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
)

// Resolve replaces RUNC, CONTAINERD, CTR and SHIM in the environment of this process by the CDB_* variables, which hold paths.
// It builds what is not built yet. The words, such as RUNC=1.2.5 or CGROUP=v1, replace variables of the environment. If nothing
// is named, Resolve does nothing.
func Resolve(ctx context.Context, words ...string) error {
	spec, err := FromEnvironment(words...)
	if err != nil {
		return err
	}
	environ, err := spec.Environ(ctx, os.Environ())
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range programVariables {
		errs = append(errs, os.Unsetenv(v.name))
	}
	for _, e := range environ {
		if name, value, _ := strings.Cut(e, "="); strings.HasPrefix(name, "CDB_") {
			errs = append(errs, os.Setenv(name, value))
		}
	}
	return errors.Join(errs...)
}

// FromEnvironment returns the [Spec] that RUNC, CONTAINERD, CTR and SHIM in the environment of this process describe, with words that
// replace them. Like [Parse], it starts no program.
func FromEnvironment(words ...string) (Spec, error) {
	words = slices.Clone(words) // the caller's may be the begin of a longer slice
	for _, v := range programVariables {
		value, ok := os.LookupEnv(v.name)
		if ok && !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, v.name+"=") }) {
			words = append(words, v.name+"="+value)
		}
	}
	return Parse(words)
}

// An Error says which value was given, what is wrong with it, and what the reader can do.
type Error struct {
	Tried string // RUNC=1.2.99: get github.com/opencontainers/runc@v1.2.99
	Seen  string
	Do    string
}

func (e *Error) Error() string { return e.Tried + ": " + e.Seen + "\n  what to do: " + e.Do }
