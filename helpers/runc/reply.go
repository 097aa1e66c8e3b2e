//go:build linux

package runc

import (
	"fmt"
	"strings"
)

// Failure returns why a command failed: what it wrote after its last colon, which is the error number in words, or its exit
// code if it wrote nothing.
func (r Reply) Failure() string {
	if r.Out == "" {
		return fmt.Sprintf("exit code %d", r.Code)
	}
	return strings.TrimSpace(r.Out[strings.LastIndex(r.Out, ": ")+1:])
}
