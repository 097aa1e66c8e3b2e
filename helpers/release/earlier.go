//go:build linux

package release

import (
	"context"
	"errors"
	"fmt"

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
