//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"cdblab/helpers/dist"
	"cdblab/helpers/host"
	"cdblab/helpers/howto"
	"cdblab/helpers/release"
	"cdblab/helpers/results"
	"cdblab/helpers/slowness"
	"cdblab/helpers/tools"
)

const (
	keptResults  = 20                  // runs keep their results when the machine is swept
	keptReleases = 30 * 24 * time.Hour // after their last use
)

// sweepMain removes every run that is not in progress, also the runs that were kept, the results of all but the newest runs, and
// releases that were not used for a month.
func sweepMain([]string) int {
	code := 0
	if n, err := results.Prune(resultsDir(), keptResults); err != nil {
		logf("remove old results: %v", err)
		code = 1
	} else if n > 0 {
		fmt.Printf("removed the results of %d runs from %s; the newest %d stay\n", n, resultsDir(), keptResults)
	}
	if _, ok := dist.Find(); !ok { // the program of the tarball builds no release, and has no checkout that keeps one
		if removed, err := release.Prune(keptReleases); err != nil {
			logf("remove releases that were not used for a month: %v", err)
			code = 1
		} else if len(removed) > 0 {
			fmt.Printf("removed releases that were not used for a month: %s\n", strings.Join(removed, ", "))
		}
		if n, err := pruneCompared(keptReleases); err != nil {
			logf("remove compared runs that were not used for a month: %v", err)
		} else if n > 0 {
			fmt.Printf("removed %d compared runs that were not used for a month from %s\n", n, compareDir)
		}
	}
	if os.Geteuid() != 0 {
		logf("sweep needs root, because the files of the lab belong to root; you are uid %d. Run: %s", os.Geteuid(), howto.Sweep())
		return 1
	}
	measureSlowness()
	swept, err := host.Sweep(true)
	for _, s := range swept {
		fmt.Println("swept", s)
	}
	if err != nil {
		logf("sweep: %v", err)
		return 1
	}
	if len(swept) == 0 {
		fmt.Println("nothing to sweep")
	}
	return code
}

// measureSlowness measures how slow this machine is, as a run does: the deadlines of a sweep depend on it. The program is the pinned
// runc, because one that is under test may hang.
func measureSlowness() {
	for _, t := range tools.All {
		if t.Name == "runc" {
			t.Env = ""
			if p, err := t.Find("."); err == nil {
				slowness.Set(slowness.Measure(nil, p.Path, "--version"))
			}
		}
	}
}
