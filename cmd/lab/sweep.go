//go:build linux

package main

import (
	"fmt"
	"os"

	"cdblab/helpers/host"
)

// sweepMain removes every run that is not under way, also those that were kept.
func sweepMain([]string) int {
	if os.Geteuid() != 0 {
		say("what the lab leaves belongs to root; you are uid %d. Run: sudo make sweep", os.Geteuid())
		return 1
	}
	swept, err := host.Sweep(true)
	for _, s := range swept {
		fmt.Println("swept", s)
	}
	if err != nil {
		say("sweep: %v", err)
		return 1
	}
	if len(swept) == 0 {
		fmt.Println("nothing to sweep")
	}
	return 0
}
