//go:build linux

package main

import (
	"context"
	"fmt"
	"os/signal"

	"cdblab/helpers/node"
	"cdblab/helpers/signals"
)

// nodeMain makes the disk image of a node, and prints its path: lab node SUITE=trixie CGROUP=v1.
func nodeMain(args []string) int {
	variant, mirror, err := node.ParseVariant(args)
	if err != nil {
		logf("%v", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	path, err := node.Image(ctx, variant, mirror, logf)
	if err != nil {
		logf("%v", err)
		return 1
	}
	fmt.Println(path)
	return 0
}
