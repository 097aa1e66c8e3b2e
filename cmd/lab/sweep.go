//go:build linux

package main

import (
	"fmt"
	"os"

	"cdblab/helpers/host"
)

// sweepMain removes every run that is not in progress, also the runs that were kept.
func sweepMain([]string) int {
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
