//go:build linux

package main

import (
	"context"
	"os/signal"
	"slices"

	"cdblab/helpers/release"
	"cdblab/helpers/signals"
)

// releasesMain builds the earlier releases that questions use. With -optional a failure is only printed: the questions skip what
// needs the release, and all others are asked.
func releasesMain(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	err := release.BuildEarlier(ctx)
	if err == nil {
		return 0
	}
	logf("%v", err)
	if slices.Contains(args, "-optional") && ctx.Err() == nil {
		logf("what needs these releases is skipped; `make releases` tries again")
		return 0
	}
	return 1
}
