//go:build linux

package runc

import (
	"path/filepath"
	"strconv"
	"strings"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// LastLogMessage returns the message of the last line that the runtime logged on stderr.
func LastLogMessage(r lab.Result) string {
	lines := strings.Split(strings.TrimSpace(r.Stderr), "\n")
	return LogMessage(lines[len(lines)-1])
}

// LogMessage returns the message of a line of the runtime's log, or the line itself where it has no msg="…".
func LogMessage(line string) string {
	if _, msg, ok := strings.Cut(line, `msg="`); ok {
		return strings.ReplaceAll(strings.TrimSuffix(msg, `"`), `\"`, `"`)
	}
	return line
}

// ResolveFD returns the file that p is about to open by path. `runc init` opens one of its own descriptors again: as
// /proc/self/fd/N, or as N below a descriptor of that directory. The file is then the one to which descriptor N refers.
func ResolveFD(p proc.Process, path string) string {
	fd, err := strconv.Atoi(filepath.Base(path))
	if err != nil {
		return path
	}
	return p.FDs[fd]
}
