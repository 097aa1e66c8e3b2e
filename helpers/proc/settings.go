//go:build linux

package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Settings returns what a process has from the runtime that made it, as the kernel shows it. A program that changes nothing of
// this by itself, such as sleep, keeps it. So two processes with the same configuration have equal settings.
//
// The keys are names of the kernel: of lines in /proc/PID/status ("CapBnd") and /proc/PID/limits ("Max open files"), and of
// files of /proc/PID.
func Settings(tb testing.TB, pid PID) map[string]string {
	tb.Helper()
	class, priority := IOPriority(tb, pid)
	settings := map[string]string{
		"cwd": Cwd(tb, pid), "oom_score_adj": File(tb, pid, "oom_score_adj"), "personality": File(tb, pid, "personality"),
		"environ":              strings.Join(strings.FieldsFunc(File(tb, pid, "environ"), func(r rune) bool { return r == 0 }), " "),
		"scheduler":            fmt.Sprintf("policy %s, nice %s", StatField(tb, pid, 41), StatField(tb, pid, 19)),
		"I/O priority":         fmt.Sprintf("class %d, priority %d", class, priority),
		"controlling terminal": fmt.Sprint(Stat(tb, pid).TTY),
	}
	status, err := os.ReadFile(filepath.Join(path(pid, "status")))
	assert.NilError(tb, err)
	for _, key := range []string{
		"Uid", "Gid", "Groups", "Umask", "NoNewPrivs", "Seccomp", "Seccomp_filters", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
		"Cpus_allowed_list", "Mems_allowed_list", "SigBlk", "SigIgn",
	} {
		if value, ok := statusField(string(status), key); ok { // an older kernel has no Seccomp_filters
			settings[key] = value
		}
	}
	_, limits, _ := strings.Cut(File(tb, pid, "limits"), "\n") // the first line has the titles of the columns
	for line := range strings.Lines(limits) {
		// "Max open files            1024                 4096                 files": two spaces or more between the columns.
		if name, values, ok := strings.Cut(line, "  "); ok {
			settings[name] = strings.Join(strings.Fields(values), " ")
		}
	}
	return settings
}
