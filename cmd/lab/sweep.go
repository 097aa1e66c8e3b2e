//go:build linux

package main

import (
	"fmt"
	"os"

	"cdblab/helpers/host"
	"cdblab/helpers/results"
)

// keptResults is how many runs keep their results when the machine is swept.
const keptResults = 20

// sweepMain removes every run that is not in progress, also the runs that were kept, and the results of all but the newest runs.
func sweepMain([]string) int {
	if n, err := results.Prune(results.Dir, keptResults); err != nil {
		logf("remove old results: %v", err)
	} else if n > 0 {
		fmt.Printf("removed the results of %d runs from %s; the newest %d stay\n", n, results.Dir, keptResults)
	}
	if os.Geteuid() != 0 {
		logf("sweep needs root, because the files of the lab belong to root; you are uid %d. Run: sudo make sweep", os.Geteuid())
		return 1
	}
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
	return 0
}
