//go:build linux

package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"cdblab/helpers/tools"
)

// BuildEarlier builds the releases that questions use beside the programs under test, as far as they are not built yet. After an
// error it goes on with the next program.
func BuildEarlier(ctx context.Context) error {
	st, err := openStore()
	if err != nil {
		return err
	}
	return st.buildAll(ctx, tools.Earlier)
}

func (s *store) buildAll(ctx context.Context, releases []tools.Release) error {
	var errs []error
	for _, r := range releases {
		for _, t := range r.Tools() {
			if ctx.Err() != nil {
				return errors.Join(append(errs, context.Cause(ctx))...)
			}
			_, err := s.get(ctx, program{given: fmt.Sprintf("%s %s", r.Name, r.Version), tool: t, version: "v" + r.Version})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// BuildStripped builds the program t of an earlier release as the file out, without a symbol table. env has the variables of the build,
// such as GOARCH. goCommand is the go command, or "".
//
// The tarball has such programs. Of those of tools.Earlier, it would be 45 MB larger with the symbols. A program without them runs the
// same code, and its build information still says which release it is.
func BuildStripped(ctx context.Context, goCommand string, t tools.Tool, version string, env []string, out string) (err error) {
	dir, err := os.MkdirTemp("", "cdblab-release-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := t.OfRelease("v" + version)
	b.LDFlags = strings.TrimSpace(b.LDFlags + " -s -w")
	p := program{given: t.Name + " " + version, tool: t, version: "v" + version}
	return gocmd(cmp.Or(goCommand, "go")).build(ctx, p, &b, dir, out, env...)
}
