//go:build linux

package main

import (
	"context"
	"errors"
	"flag"

	"cdblab/helpers/results"
)

// A runner makes the runs that are compared.
type runner struct {
	questions string // regular expression that selects questions; "" for all
}

func (r *runner) flags(set *flag.FlagSet) {
	set.StringVar(&r.questions, "run", "", "compare only the questions that match this regular `expression`")
}

func (r *runner) run(ctx context.Context, variables string) (*results.Run, error) {
	return nil, errors.New("not yet")
}
