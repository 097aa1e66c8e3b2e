//go:build linux

package runc

import (
	"regexp"
	"strings"

	"cdblab/helpers/lab"
)

// StableMessage returns the last message of the runtime's stderr in a form on which two runs agree. It replaces pids,
// descriptors, addresses and sizes by N, and drops what a child process of the runtime adds when its parent has given up.
func StableMessage(stderr string) string {
	message, _, _ := strings.Cut(LastLogMessage(lab.Result{Stderr: stderr}), "; nsexec-")
	return numberOfThisRun.ReplaceAllString(message, "${1}N")
}

var numberOfThisRun = regexp.MustCompile(`(\[|/proc/|fd/|usage:? |pid |write |map on )[0-9]+|0x[0-9a-f]+`)
