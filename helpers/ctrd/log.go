//go:build linux

package ctrd

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// LogLine is a line of containerd's log, which is in logfmt: the value of each key.
type LogLine map[string]string

// logPair matches a key and its value in logfmt.
var logPair = regexp.MustCompile(`([a-z.-]+)=("(?:[^"\\]|\\.)*"|\S*)`)

func parseLogLine(line string) LogLine {
	out := LogLine{}
	for _, m := range logPair.FindAllStringSubmatch(line, -1) {
		value := m[2]
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		out[m[1]] = value
	}
	return out
}

// Time returns the time of the line.
func (l LogLine) Time(tb testing.TB) time.Time {
	tb.Helper()
	t, err := time.Parse(time.RFC3339Nano, l["time"])
	if err != nil {
		tb.Fatalf("read the time of the log line %v: %v", l, err)
	}
	return t
}

// IsFromShim reports whether a shim wrote the line: such a line names its runtime and its pid.
func (l LogLine) IsFromShim() bool { return l["runtime"] != "" && l["pid"] != "" }

// Log returns what the daemon has logged so far. It includes the log lines of its shims.
func (d *Daemon) Log() string {
	d.q.Helper()
	data, err := os.ReadFile(d.logPath())
	if err != nil {
		d.q.Fatalf("read containerd's log: %v", err)
	}
	return string(data)
}

// LogLines returns the lines of the daemon's log that contain text.
func (d *Daemon) LogLines(text string) []LogLine {
	d.q.Helper()
	return logLines(d.Log(), text)
}

func logLines(log, text string) []LogLine {
	var out []LogLine
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			out = append(out, parseLogLine(line))
		}
	}
	return out
}

// The messages of containerd's log about an event, at the level trace.
const (
	Published = "event published" // containerd itself has published it
	Forwarded = "event forwarded" // a shim has published it
)

// LoggedTopics returns the topics of the events that a part of containerd's log has with this message, in order.
func LoggedTopics(log, msg string) []string {
	out := []string{}
	for _, l := range logLines(log, msg) {
		out = append(out, l["topic"])
	}
	return out
}

// FindLogLine returns the first line of the daemon's log that has this message and contains text.
func (d *Daemon) FindLogLine(msg, text string) (LogLine, bool) {
	d.q.Helper()
	return findLogLine(d.Log(), msg, text)
}

func findLogLine(log, msg, text string) (LogLine, bool) {
	for _, l := range logLines(log, text) {
		if l["msg"] == msg {
			return l, true
		}
	}
	return nil, false
}

// WaitForLogLine waits until the daemon's log has a line with this message that contains text, and returns the line.
// The lines of a shim appear in the daemon's log a moment after the shim has written them.
func (d *Daemon) WaitForLogLine(msg, text string) LogLine {
	d.q.Helper()
	var found LogLine
	proc.WaitFor(d.q, func(poll.LogT) poll.Result {
		data, err := os.ReadFile(d.logPath())
		if err != nil {
			return poll.Error(err)
		}
		line, ok := findLogLine(string(data), msg, text)
		if !ok {
			return poll.Continue("%s has no line with message %q that contains %s", d.logPath(), msg, text)
		}
		found = line
		return poll.Success()
	})
	return found
}
