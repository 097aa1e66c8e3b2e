//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/pipe"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Debug logs add what the daemon and the shim do for a task, step by step. They add nothing about runc, because runc is not called
// with --debug.
//
// At level debug the daemon starts each shim with -debug. The shim writes to a FIFO in its bundle, which the daemon
// copies into its own log, so that one file has the lines of both, and a line of the shim names its pid and its bundle.
// runc's log is another file, log.json in the bundle. It is empty as long as all goes well. runc logs an error there at
// any level, and the shim reads it and reports it as the reason. Only a runtime that is itself called with --debug logs
// more, down to the pid of the program.
//
// Hint: a script as the runtime's binary, which calls runc --debug "$@"; `ls -l /proc/PID/fd` of shim and daemon.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#logging
func TestEvents_WhatDoDebugLogsAdd(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What do debug logs add?")
	defer q.Recover()
	clock := check.StartClock(q)
	logCopy := filepath.Join(q.Mkdir("kept"), "log.json")
	// The shim calls it in the bundle. When create fails, the bundle and the log in it are soon deleted, so the log is
	// copied.
	debugRunc := q.WriteWrapper("runc-debug", `"$RUNC" --debug "$@"; code=$?; cp log.json `+logCopy+`; exit $code`)
	copyLog := q.WriteWrapper("runc-copy-log", `"$RUNC" "$@"; code=$?; cp log.json `+logCopy+`; exit $code`)
	d := ctrd.Start(q, ctrd.WithConfig("[debug]\n  level = \"debug\""))
	log := filepath.Join(q.Dir, "containerd", "log")
	ref := d.PullImage()
	id := q.ID(ctrd.ContainerID)
	d.CreateContainer(ref, id, "sleep", "3600")
	d.StartTask(id)
	task := proc.Snapshot(q, d.TaskPID(id))
	shim := proc.Snapshot(q, task.Parent)

	q.Step("read the daemon's log: it has lines about the task, with its id")
	created := d.WaitForLogLine("get snapshot mounts", id)
	assert.Check(q, cmp.Equal(created["level"], "debug"))
	loop := d.WaitForLogLine("starting signal loop", id) // the last one about the start
	atDebug := d.LogLines(id)
	q.Fact("lines about the task, at debug", len(atDebug))
	q.Fact("messages of the daemon", logMessages(atDebug, false))

	q.Step("read the shim's lines: the daemon has started it with -debug, and it logs lines about itself, with its pid and its bundle")
	assert.Check(q, cmp.Contains(shim.Args, "-debug"))
	assert.Check(q, cmp.Equal(loop["pid"], fmt.Sprint(shim.PID)), "the shim's pid, in the log and in /proc/%d/stat", task.PID)
	assert.Check(q, cmp.Equal(loop["path"], proc.Cwd(q, shim.PID)), "the shim's directory")
	began := shim.Start.At(q)
	clock.InOrder(q, "get snapshot mounts", created.Time(q), "start of the shim", began)
	clock.InOrder(q, "start of the shim", began, "starting signal loop", loop.Time(q))
	q.Fact("messages of the shim", logMessages(atDebug, true))
	q.Fact("pid in the line, and the shim's", shim.PID)

	q.Step("compare the lines with the kernel: where a line names an address or a mount, it is the one that the kernel shows")
	compareLinesWithKernel(q, d, id, shim)

	q.Step("write into the FIFO in the bundle: the daemon logs it, because the shim's lines come through this FIFO")
	fifo := filepath.Join(d.Bundle(id), "log")
	holders := []string{}
	for _, p := range []proc.Process{shim, proc.Snapshot(q, d.PID())} {
		if slices.Contains(check.FDTargets(p), fifo) {
			holders = append(holders, p.Comm)
		}
	}
	assert.Check(q, cmp.DeepEqual(holders, []string{shim.Comm, "containerd"}), "processes that hold %s; the shim holds %v", fifo, shim.FDs)
	writeLine(q, fifo, "by hand, through "+q.ID("cdb-fifo"))
	proc.WaitFor(q, file.Contains(log, "by hand, through "+q.ID("cdb-fifo")))
	q.Fact("log in the bundle: processes that hold it", holders)

	q.Step("read runc's log in the bundle: it is empty, because runc is not called with --debug")
	quiet := file.Read(q, filepath.Join(d.Bundle(id), "log.json"))
	assert.Check(q, cmp.Equal(quiet, ""), "log.json of a task that has started")
	q.Fact("bytes in log.json", len(quiet))

	q.Run("a runtime that is called with --debug tells how the program's process came to be", func(q *lab.Q) {
		readStagesInRuncLog(q, d, ref, debugRunc)
	})

	q.Control("start the daemon again, at level info: a new task has no line of level debug, and its shim no -debug")
	config := filepath.Join(q.Dir, "containerd", "config.toml")
	q.LogCommand("sed -i 's/\"debug\"/\"info\"/' %s", config)
	assert.NilError(q, os.WriteFile(config, []byte(strings.Replace(file.Read(q, config), `"debug"`, `"info"`, 1)+"\n"), 0o644))
	assert.NilError(q, d.Stop())
	d.Start()
	plain := q.ID("cdb-info")
	d.CreateContainer(ref, plain, "sleep", "3600")
	d.StartTask(plain)
	infoShim := proc.Snapshot(q, proc.Snapshot(q, d.TaskPID(plain)).Parent)
	assert.Check(q, !slices.Contains(infoShim.Args, "-debug"), "the shim's command line: %q", infoShim.Args)
	// When this line is in the daemon's log, all lines that the shim wrote before are, too.
	writeLine(q, filepath.Join(d.Bundle(plain), "log"), "that was all of "+plain)
	proc.WaitFor(q, file.Contains(log, "that was all of "+plain))
	atInfo := slices.DeleteFunc(d.LogLines(plain), func(l ctrd.LogLine) bool { return l["level"] == "" })
	for _, l := range atInfo {
		assert.Check(q, l["level"] != "debug", "at level info: %s", l["msg"])
	}
	assert.Check(q, len(atInfo) < len(atDebug), "%d lines at level info, %d at debug", len(atInfo), len(atDebug))
	q.Fact("lines about the task, at info", len(atInfo))

	q.Step("start a task whose program is missing: without --debug, too, runc leaves the reason in log.json, and ctr prints it")
	failing := q.ID("cdb-failing")
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: copyLog}, ref, failing, "no-such-program")
	r := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, failing)
	assert.Check(q, r.Code != 0, "a task of a missing program starts:\n%s", r)
	recordRuncReason(q, readRuncLog(q, logCopy), r)
	assert.Check(q, !file.Exists(d.Bundle(failing)), "the bundle is still there: %s", d.Bundle(failing))

	q.Answer("Debug logs add what the daemon and the shim do, with pids, in one file. runc's log is another file, and it has only " +
		"the reason of a failure.")
}

// compareLinesWithKernel compares the log's lines about the shim's socket and about the mount of the rootfs with what the kernel shows.
func compareLinesWithKernel(q *lab.Q, d *ctrd.Daemon, id string, shim proc.Process) {
	if socket, ok := d.FindLogLine("connecting to shim "+id, ""); ok {
		path := strings.TrimPrefix(socket["address"], "unix://")
		listens := proc.Listens(q, shim, path)
		assert.Check(q, listens, "the shim does not listen on %s", path)
		q.Fact("address in the line: the shim listens there", listens)
	} else { // containerd 1.7 does not write it
		assert.Check(q, !ctrd.Knows(q, "containerd", "connecting to shim %s"), "the log has no line \"connecting to shim %s\"", id)
	}
	if mount, ok := d.FindLogLine("activating mount", id); ok {
		upper := regexp.MustCompile(`upperdir=[^ \]]+`).FindString(mount["mounts"])
		at := check.MountAt(q, filepath.Join(d.Bundle(id), "rootfs"))
		assert.Assert(q, at != nil, "nothing is mounted at the bundle's rootfs")
		mounted := upper != "" && strings.Contains(at.VFSOptions, upper)
		assert.Check(q, mounted, "the log names %q, the mount has %s", upper, at.VFSOptions)
		q.Fact("upperdir in the line: it is mounted at rootfs", mounted)
	} else { // containerd 2.0 and 1.7 do not write it
		assert.Check(q, !ctrd.Knows(q, "containerd", "activating mount"), "the log has no line about the mount")
	}
}

// writeLine writes a line into a FIFO.
func writeLine(q *lab.Q, path, line string) {
	q.Helper()
	q.LogCommand("echo '%s' > %s", line, path)
	pipe.WriteLine(q, path, line)
}

// readStagesInRuncLog starts a task with debugRunc, which calls runc --debug, and compares the pids of the stages of runc init in log.json
// with the processes.
func readStagesInRuncLog(q *lab.Q, d *ctrd.Daemon, ref, debugRunc string) {
	second := q.ID("cdb-talkative")
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: debugRunc}, ref, second, "sleep", "3600")
	d.StartTask(second)
	entries := readRuncLog(q, filepath.Join(d.Bundle(second), "log.json"))
	levels := map[string]bool{}
	for _, e := range entries {
		levels[e.Level] = true
	}
	assert.Check(q, levels["debug"], "log.json has no line of level debug, among %d lines", len(entries))
	q.Fact("log.json: levels of its lines", slices.Sorted(maps.Keys(levels)))
	const forward = "forward stage-2 pid ("
	forwarded, ok := firstSubmatch(entries, regexp.QuoteMeta(forward)+`(\d+)\)`)
	if !ok && !runc.Knows(q, forward) {
		q.Skipf("the log of this runtime has no line about a stage 2: run the question with runc (unset CDB_RUNC)")
	}
	assert.Check(q, cmp.Equal(forwarded, fmt.Sprint(d.TaskPID(second))), "the pid of stage 2, and the task's")
	q.Fact("pid of stage 2, and the task's", d.TaskPID(second))
	stage1, _ := firstSubmatch(entries, `nsexec-1\[(\d+)\]`)
	stage0, _ := firstSubmatch(entries, `nsexec-0\[(\d+)\]`)
	assert.Check(q, stage1 != stage0 && stage1 != forwarded && stage0 != "", "stages %s, %s and %s", stage0, stage1, forwarded)
	alive := slices.DeleteFunc([]string{stage0, stage1}, func(stage string) bool { return !proc.Alive(proc.PID(check.Int(q, stage))) })
	assert.Check(q, cmp.Len(alive, 0), "processes of stage 0 and 1 that are alive")
	q.Fact("processes of stage 0 and 1 that are alive", alive)
}

// recordRuncReason asserts that runc's log has one error, which names the program, and that ctr prints it.
func recordRuncReason(q *lab.Q, log []runcLogEntry, r lab.Result) {
	var reasons []string
	for _, e := range log {
		assert.Check(q, e.Level != "debug", "runc without --debug logs: %s", e.Msg)
		if e.Level == "error" {
			reasons = append(reasons, e.Msg)
		}
	}
	assert.Assert(q, cmp.Len(reasons, 1), "errors in log.json")
	assert.Check(q, cmp.Contains(reasons[0], "no-such-program"))
	assert.Check(q, cmp.Contains(r.Stderr, reasons[0]), "ctr prints the reason that is in log.json")
	q.Fact("the reason", reasons[0])
}

// logMessages returns the messages of the log lines that the shim wrote, or of those that the daemon wrote. Of the same
// message several times in a row it returns one.
func logMessages(lines []ctrd.LogLine, fromShim bool) []string {
	var out []string
	for _, l := range lines {
		if l.IsFromShim() == fromShim {
			out = append(out, fmt.Sprintf("%q", l["msg"]))
		}
	}
	return slices.Compact(out)
}

// runcLogEntry is an entry of runc's log in JSON.
type runcLogEntry struct{ Level, Msg string }

func readRuncLog(q *lab.Q, path string) []runcLogEntry {
	q.Helper()
	var out []runcLogEntry
	for line := range strings.Lines(file.Read(q, path)) {
		var e runcLogEntry
		assert.NilError(q, json.Unmarshal([]byte(line), &e), line)
		out = append(out, e)
	}
	return out
}

// firstSubmatch returns the pattern's first group in the first entry whose message matches.
func firstSubmatch(entries []runcLogEntry, pattern string) (string, bool) {
	re := regexp.MustCompile(pattern)
	for _, e := range entries {
		if m := re.FindStringSubmatch(e.Msg); m != nil {
			return m[1], true
		}
	}
	return "", false
}
