//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"

	"github.com/google/renameio/v2"

	"cdblab/helpers/dist"
	"cdblab/helpers/release"
	"cdblab/helpers/signals"
)

// distDir is the directory of the tarballs.
const distDir = ".lab/dist"

// distMain makes the tarball for one architecture.
func distMain(args []string) int {
	set := flag.NewFlagSet("lab dist", flag.ExitOnError)
	arch := set.String("arch", runtime.GOARCH, "the architecture of the machine that it is for: amd64 or arm64")
	twice := set.Bool("twice", false, "build it a second time, from a clone and with an empty build cache: fail if a byte differs")
	_ = set.Parse(args)
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	b := &dist.Build{Module: ".", Go: os.Getenv("GO"), Arch: *arch, Log: logf, Stderr: os.Stderr, Earlier: release.BuildStripped}
	var tarball bytes.Buffer
	path := filepath.Join(distDir, b.Name())
	var err error
	if *twice {
		err = b.Committed(ctx)
	}
	if err == nil {
		err = b.Write(ctx, &tarball)
	}
	if err == nil {
		err = os.MkdirAll(distDir, 0o755)
	}
	if err == nil {
		err = renameio.WriteFile(path, tarball.Bytes(), 0o644)
	}
	if err != nil {
		logf("make the tarball: %v", err)
		return 1
	}
	if *twice {
		logf("building it again, from a clone and with an empty build cache")
		if err := b.Again(ctx, tarball.Bytes()); err != nil {
			logf("compare two builds: %v", err)
			return 1
		}
		logf("two builds have the same bytes")
	}
	fmt.Printf("%x  %s\n", sha256.Sum256(tarball.Bytes()), path)
	return 0
}
