//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"cdblab/helpers/doctor"
	"cdblab/helpers/release"
	"cdblab/helpers/signals"
	"cdblab/helpers/vm"
)

// doctorMain checks what runs need. The exit code is 1 if a run in the VM would fail; with the argument here, if a run on this
// machine would fail.
func doctorMain(args []string) int {
	var conf vm.Config
	set := flag.NewFlagSet("lab doctor", flag.ExitOnError)
	conf.Flags(set)
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab doctor [FLAG...] [here]   checks what a run needs; "+
			"the exit code is 1 if a run in the VM (here: on this machine) would fail")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	here := set.Arg(0) == "here"
	if set.NArg() > 1 || set.NArg() == 1 && !here {
		set.Usage()
		return 2
	}
	vm.AllowForSlowness() // the probe boot of KVM has a deadline
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	cache, cacheErr := vm.OpenCache()
	if cache == nil {
		logf("%v", cacheErr)
		return 1
	}
	print := func(g doctor.Group) map[doctor.Level]int { return doctor.Print(os.Stdout, g.Title, g.Run(ctx)) }
	every := doctor.Both(cache.Module)
	every.Checks = append(every.Checks, doctor.Check{Name: "RUNC, CONTAINERD", Else: doctor.Missing,
		Run: func(context.Context) (string, error) { return checkNamed(conf.Disk) }})
	both := print(every)
	inVM := print(doctor.InVM(conf, cache, cacheErr, logf))
	onHost := print(doctor.Here())
	if ctx.Err() != nil {
		return 1
	}
	code := 0
	for _, run := range []struct {
		name  string
		asked bool
		count map[doctor.Level]int
	}{{"make lab", !here, inVM}, {"make lab-here", here, onHost}} {
		verdict := "would work"
		if n := both[doctor.Missing] + run.count[doctor.Missing]; n > 0 {
			verdict = fmt.Sprintf("would fail: %d missing", n)
			if run.asked {
				code = 1
			}
		}
		fmt.Printf("%-14s %s; warnings: %d\n", run.name, verdict, both[doctor.Warning]+run.count[doctor.Warning])
	}
	return code
}

// checkNamed checks what RUNC, CONTAINERD, CTR and SHIM name. Whether there is such a release shows when a run builds it.
func checkNamed(disk string) (string, error) {
	if disk != "" {
		if err := checkNoProgram(os.Getenv); err != nil {
			return "", err
		}
	}
	spec, err := release.FromEnvironment()
	if spec.String() == "pinned" {
		return "not set", err
	}
	return spec.String() + "; a run builds a release that is not there", err
}
