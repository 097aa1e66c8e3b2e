//go:build linux

package runc

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/check"
	"cdblab/helpers/file"
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

// LogLine is a line that the runtime writes with --log and --log-format json.
type LogLine struct {
	Level, Msg string
	Time       time.Time
}

// LogOf runs an operation with --log, and returns the lines of the log.
func (c *Container) LogOf(operation ...string) (lines []LogLine) {
	c.q.Helper()
	path := filepath.Join(c.Root, "log-"+strings.Join(operation, "-"))
	result := c.q.Exec(append([]string{"runc", "--root", c.Root, "--log", path, "--log-format", "json"}, operation...)...)
	for text := range strings.Lines(file.Read(c.q, path)) {
		var line LogLine
		check.DecodeJSON(c.q, text, &line)
		lines = append(lines, line)
	}
	file.Remove(c.q, path) // it must not be taken for a container below the root
	if result.Code != 0 {
		assert.Check(c.q, result.Stderr != "", "the runtime fails, and writes nothing to stderr")
	}
	return lines
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
