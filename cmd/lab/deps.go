//go:build linux

package main

import (
	"fmt"

	"cdblab/helpers/tools"
)

// depsMain prints each tool that comes with a package of the distribution and is missing on this machine: how much
// the lab needs it, and its name, one tool a line. scripts/deps.sh reads the lines.
func depsMain([]string) int {
	for _, t := range tools.All {
		if t.FromPackage() && !t.Installed(".") {
			fmt.Println(t.Need, t.Name)
		}
	}
	return 0
}
