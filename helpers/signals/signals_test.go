//go:build linux

package signals

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/skip"
)

// TestMain is also the program under test: it prints what it heeds, and starts a child that shows what it inherits.
func TestMain(m *testing.M) {
	if os.Getenv("CDB_TEST_SIGNALS") == "" {
		os.Exit(m.Run())
	}
	if err := PassOnNone(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("heeds", Stop())
	out, err := exec.Command("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status").Output()
	if err != nil {
		os.Exit(1)
	}
	// Signal 32 is the C library's own: the children of a program that uses posix_spawn(3), such as make, ignore it.
	fmt.Print(strings.ReplaceAll(string(out), "0000000080000000", "0000000000000000"))
	os.Exit(0)
}

// A caller such as nohup, or perf, or a shell without job control, ignores and blocks signals. Children begin with none, and
// this program still ignores what its caller wants ignored.
func TestPassOnNone(t *testing.T) {
	skip.If(t, exec.Command("env", "--block-signal=WINCH", "true").Run() != nil, "env(1) of coreutils 8.31 or later starts the program")
	const none = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
	for name, row := range map[string]struct {
		env    []string
		heeded string
	}{
		"nothing":          {nil, "interrupt terminated hangup"},
		"nohup":            {[]string{"--ignore-signal=HUP"}, "interrupt terminated"},
		"a background job": {[]string{"--ignore-signal=INT", "--ignore-signal=QUIT"}, "terminated hangup"},
		"blocked":          {[]string{"--block-signal=WINCH", "--block-signal=USR1"}, "interrupt terminated hangup"},
		"blocked and ignored": {
			[]string{"--block-signal=HUP", "--ignore-signal=HUP", "--ignore-signal=TSTP", "--ignore-signal=PIPE"}, "interrupt terminated",
		},
	} {
		t.Run(name, func(t *testing.T) {
			// The tests themselves may have been started by nohup, or as a background job.
			cmd := exec.Command("env", slices.Concat([]string{"--default-signal"}, row.env, []string{os.Args[0]})...)
			cmd.Env = append(os.Environ(), "CDB_TEST_SIGNALS=1")
			out, err := cmd.CombinedOutput()
			assert.NilError(t, err, "%s", out)
			assert.Check(t, cmp.Equal(string(out), "heeds ["+row.heeded+"]\n"+none))
		})
	}
}
