//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// What the daemon and the shim do for a task, step by step; of runc they add nothing, for nobody tells runc.
//
// At level debug the daemon starts each shim with -debug. The shim writes to a FIFO in its bundle, which the daemon
// copies into its own log, so that one file tells of both, and a line of the shim's names its pid and its bundle.
// runc's log is another file, log.json in the bundle. It is empty as long as all goes well: an error is told there at
// any level, and the shim reads it and hands it on as the reason. Only a runtime that is itself called with --debug
// tells more, down to the pid of the program.
//
// Hint: a script as the runtime's binary, which calls runc --debug "$@"; `ls -l /proc/PID/fd` of shim and daemon.
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md, "Logging"
func TestEvents_WhatDoDebugLogsAdd(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What do debug logs add?")
	kept := filepath.Join(q.Mkdir("kept"), "log.json")
	// The shim calls it in the bundle. When create fails, the bundle is soon gone, and with it the log.
	talkative := q.WriteWrapper("runc-debug", `"$RUNC" --debug "$@"; code=$?; cp log.json `+kept+`; exit $code`)
	d := ctrd.Start(q, ctrd.WithConfig("[debug]\n  level = \"debug\""))
	log := filepath.Join(q.Dir, "containerd", "log")
	ref := d.PullImage()
	id := q.ID(ctrd.ContainerID)
	d.CreateContainer(ref, id, "sleep", "300")
	d.StartTask(id)
	task := proc.Snapshot(q, d.TaskPID(id))
	shim := proc.Snapshot(q, task.Parent)

	q.Step("the daemon tells of the task, by its id")
	created := lineOf(q, log, "get snapshot mounts", id)
	assert.Check(q, cmp.Equal(created["level"], "debug"))
	told := aboutTask(d, id)
	q.Fact("lines about the task, at debug", len(told))
	q.Fact("of the daemon's", heads(told, false))

	q.Step("it has started the shim with -debug; the shim tells of itself, by its pid and its bundle")
	assert.Check(q, cmp.Contains(shim.Args, "-debug"))
	loop := lineOf(q, log, "starting signal loop", id)
	assert.Check(q, cmp.Equal(loop["pid"], fmt.Sprint(shim.PID)), "the shim's pid, in the log and in /proc/%d/stat", task.PID)
	assert.Check(q, cmp.Equal(loop["path"], proc.Cwd(q, shim.PID)), "the shim's directory")
	began := shim.Start.At(q)
	check.InOrder(q, "get snapshot mounts", logTime(q, created), "the shim begins", began)
	check.InOrder(q, "the shim begins", began, "starting signal loop", logTime(q, loop))
	q.Fact("of the shim's", heads(told, true))
	q.Fact("pid in the line, and the shim's", shim.PID)

	q.Step("where a line names an address or a mount, it is the one that the kernel has")
	if socket, ok := findLine(d.Log(), "connecting to shim "+id, ""); ok {
		path := strings.TrimPrefix(socket["address"], "unix://")
		assert.Check(q, proc.Listens(q, shim, path), "the shim does not listen on %s", path)
		q.Fact("address in the line", "the shim listens there")
	}
	if mount, ok := findLine(d.Log(), "activating mount", id); ok {
		upper := regexp.MustCompile(`upperdir=[^ \]]+`).FindString(mount["mounts"])
		at := check.MountAt(q, filepath.Join(d.Bundle(id), "rootfs"))
		assert.Assert(q, at != nil, "nothing is mounted at the bundle's rootfs")
		assert.Check(q, upper != "" && strings.Contains(at.VFSOptions, upper), "the log speaks of %q, mounted is %s", upper, at.VFSOptions)
		q.Fact("upperdir in the line", "it is mounted at rootfs")
	} else {
		assert.Check(q, !q.Pinned(), "the log has no line about the mount")
	}

	q.Step("the shim's lines come through the FIFO in the bundle: what anyone writes there, the daemon logs")
	fifo := filepath.Join(d.Bundle(id), "log")
	assert.Check(q, slices.Contains(check.FDTargets(shim), fifo), "the shim has %v, and not %s", shim.FDs, fifo)
	assert.Check(q, slices.Contains(check.FDTargets(proc.Snapshot(q, d.PID())), fifo), "the daemon does not hold %s", fifo)
	writeFIFO(q, fifo, "by hand, through "+q.ID("cdb-fifo"))
	proc.WaitFor(q, file.Contains(log, "by hand, through "+q.ID("cdb-fifo")))
	q.Fact("log in the bundle", "held by shim and daemon")

	q.Step("runc is not told: its log in the bundle is empty")
	quiet := file.Read(q, filepath.Join(d.Bundle(id), "log.json"))
	assert.Check(q, cmp.Equal(quiet, ""), "log.json of a task that has started")
	q.Fact("bytes in log.json", len(quiet))

	q.Run("a runtime that is called with --debug tells how the program's process came to be", func(q *lab.Q) {
		second := q.ID("cdb-talkative")
		d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: talkative}, ref, second, "sleep", "300")
		d.StartTask(second)
		entries := runtimeLog(q, filepath.Join(d.Bundle(second), "log.json"))
		assert.Check(q, len(entries) > 0, "log.json is empty")
		q.Fact("log.json has", "lines of level debug")
		forwarded, ok := firstMatch(entries, `forward stage-2 pid \((\d+)\)`)
		if !ok && !q.Pinned() {
			q.Skipf("this runtime's log has no line of a stage 2: look at runc's")
		}
		assert.Check(q, cmp.Equal(forwarded, fmt.Sprint(d.TaskPID(second))), "the pid of stage 2, and the task's")
		q.Fact("pid of stage 2, and the task's", d.TaskPID(second))
		one, _ := firstMatch(entries, `nsexec-1\[(\d+)\]`)
		zero, _ := firstMatch(entries, `nsexec-0\[(\d+)\]`)
		assert.Check(q, one != zero && one != forwarded && zero != "", "stages %s, %s and %s", zero, one, forwarded)
		assert.Check(q, !proc.Alive(proc.PID(check.Int(q, zero))) && !proc.Alive(proc.PID(check.Int(q, one))), "stage 0 (%s) or 1 (%s) is alive", zero, one)
		q.Fact("stages 0 and 1", "processes of their own, which have ended")
	})

	q.Control("the daemon is started again, at level info: a new task has no line of level debug, and its shim no -debug")
	config := filepath.Join(q.Dir, "containerd", "config.toml")
	q.LogCommand("sed -i 's/\"debug\"/\"info\"/' %s", config)
	assert.NilError(q, os.WriteFile(config, []byte(strings.Replace(file.Read(q, config), `"debug"`, `"info"`, 1)+"\n"), 0o644))
	assert.NilError(q, d.Stop())
	d.Start()
	plain := q.ID("cdb-info")
	d.CreateContainer(ref, plain, "sleep", "300")
	d.StartTask(plain)
	silent := proc.Snapshot(q, proc.Snapshot(q, d.TaskPID(plain)).Parent)
	assert.Check(q, !slices.Contains(silent.Args, "-debug"), "the shim's command line: %q", silent.Args)
	writeFIFO(q, filepath.Join(d.Bundle(plain), "log"), "that was all of "+plain) // what the shim has said before, has come, too
	proc.WaitFor(q, file.Contains(log, "that was all of "+plain))
	fewer := slices.DeleteFunc(aboutTask(d, plain), func(l map[string]string) bool { return l["level"] == "" })
	for _, l := range fewer {
		assert.Check(q, l["level"] != "debug", "at level info: %s", l["msg"])
	}
	assert.Check(q, len(fewer) < len(told), "%d lines at level info, %d at debug", len(fewer), len(told))
	q.Fact("lines about the task, at info", len(fewer))

	q.Step("at this level, too, a create that fails leaves its reason in log.json, and ctr prints it")
	failing := q.ID("cdb-failing")
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: talkative}, ref, failing, "no-such-program")
	r := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, failing)
	assert.Check(q, r.Code != 0, "a task of a program that is not there starts:\n%s", r)
	var reasons []string
	for _, e := range runtimeLog(q, kept) {
		if e.Level == "error" {
			reasons = append(reasons, e.Msg)
		}
	}
	assert.Assert(q, cmp.Len(reasons, 1), "errors in log.json")
	assert.Check(q, cmp.Contains(reasons[0], "no-such-program"))
	assert.Check(q, cmp.Contains(r.Stderr, reasons[0]), "what ctr prints has the reason in log.json")
	assert.Check(q, !file.Exists(d.Bundle(failing)), "the bundle is still there: %s", d.Bundle(failing))
	q.Fact("the reason", reasons[0])

	q.Answer("Steps and pids of daemon and shim, in one file. runc's log is another one, and it has only the reason of a failure.")
}

// logPair is a key and a value of a line in logfmt.
var logPair = regexp.MustCompile(`([a-z.-]+)=("(?:[^"\\]|\\.)*"|\S*)`)

func logLine(line string) map[string]string {
	out := map[string]string{}
	for _, m := range logPair.FindAllStringSubmatch(line, -1) {
		value := m[2]
		if plain, err := strconv.Unquote(value); err == nil {
			value = plain
		}
		out[m[1]] = value
	}
	return out
}

func logTime(q *lab.Q, line map[string]string) time.Time {
	q.Helper()
	t, err := time.Parse(time.RFC3339Nano, line["time"])
	assert.NilError(q, err)
	return t
}

// findLine finds the first line of a log with this message, which names id.
func findLine(log, msg, id string) (map[string]string, bool) {
	for line := range strings.Lines(log) {
		if l := logLine(line); l["msg"] == msg && strings.Contains(line, id) {
			return l, true
		}
	}
	return nil, false
}

// lineOf waits for a line: those of a shim come a moment later.
func lineOf(q *lab.Q, log, msg, id string) map[string]string {
	q.Helper()
	var found map[string]string
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		data, err := os.ReadFile(log)
		if err != nil {
			return poll.Error(err)
		}
		l, ok := findLine(string(data), msg, id)
		if !ok {
			return poll.Continue("%s has no line %q about %s", log, msg, id)
		}
		found = l
		return poll.Success()
	})
	return found
}

// aboutTask lists the lines of the daemon's log which name the task.
func aboutTask(d *ctrd.Daemon, id string) []map[string]string {
	var out []map[string]string
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, id) {
			out = append(out, logLine(line))
		}
	}
	return out
}

// heads are the messages of lines, those of a shim's, which give its runtime and a pid, or the others.
func heads(lines []map[string]string, shims bool) []string {
	var out []string
	for _, l := range lines {
		if shim := l["runtime"] != "" && l["pid"] != ""; shim == shims && !slices.Contains(out, l["msg"]) {
			out = append(out, fmt.Sprintf("%q", l["msg"]))
		}
	}
	return slices.Compact(out)
}

type runtimeEntry struct{ Level, Msg string }

// runtimeLog reads a log of the runtime's.
func runtimeLog(q *lab.Q, path string) []runtimeEntry {
	q.Helper()
	var out []runtimeEntry
	for line := range strings.Lines(file.Read(q, path)) {
		var e runtimeEntry
		assert.NilError(q, json.Unmarshal([]byte(line), &e), line)
		out = append(out, e)
	}
	return out
}

// firstMatch is what the first entry which matches has in the pattern's group.
func firstMatch(entries []runtimeEntry, pattern string) (string, bool) {
	re := regexp.MustCompile(pattern)
	for _, e := range entries {
		if m := re.FindStringSubmatch(e.Msg); m != nil {
			return m[1], true
		}
	}
	return "", false
}

// writeFIFO writes a line to a FIFO that somebody reads; where nobody does, it fails.
func writeFIFO(q *lab.Q, path, line string) {
	q.Helper()
	q.LogCommand("echo '%s' > %s", line, path)
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	assert.NilError(q, err, "nobody reads %s", path)
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	assert.NilError(q, err)
}
