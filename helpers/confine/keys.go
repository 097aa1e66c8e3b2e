//go:build linux

package confine

import (
	"strconv"
	"strings"
)

// scanKey reads the number after a key in a file that has a key and a number in each line. It reports whether the key is there.
func scanKey(text, key string, n *uint64) bool {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+" "); ok {
			var err error
			*n, err = strconv.ParseUint(value, 10, 64)
			return err == nil
		}
	}
	return false
}
