//go:build linux

package runc

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"gotest.tools/v3/assert"

	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Recorder is a script that is called in place of runc. It records each call, and then executes runc.
type Recorder struct {
	Path string // of the script

	log string
}

// Call is one call of runc.
type Call struct {
	PID, Parent proc.PID
	Args        []string
}

// WriteRecorder writes the script. The script has to outlive the tasks, because the shim calls it as long as there is a
// task: a question writes it before it starts a daemon.
func WriteRecorder(q *lab.Q) Recorder {
	q.Helper()
	dir := q.Mkdir("wrapper")
	r := Recorder{Path: filepath.Join(dir, "runc"), log: filepath.Join(dir, "calls")}
	script := "#!/bin/sh\necho \"$$ $PPID $*\" >> " + r.log + "\nexec " + shellescape.Quote(q.UnderTest("runc").Path) + " \"$@\"\n"
	assert.NilError(q, os.WriteFile(r.Path, []byte(script), 0o755))
	q.LogCommandAs("cat > wrapper/runc   # #!/bin/sh; echo $$ $PPID $* >> calls; exec runc \"$@\"",
		"mkdir -p wrapper && cat > wrapper/runc <<'END'\n"+script+"END\nchmod 755 wrapper/runc")
	return r
}

// Calls returns the calls so far, in order.
func (r Recorder) Calls(q *lab.Q) []Call {
	q.Helper()
	if !file.Exists(r.log) {
		return nil
	}
	var out []Call
	for line := range strings.Lines(file.Read(q, r.log)) {
		f := strings.Fields(line)
		assert.Assert(q, len(f) >= 2, "expected a pid and its parent's at the beginning of this line of %s: %q", r.log, line)
		out = append(out, Call{PID: proc.PID(check.Int(q, f[0])), Parent: proc.PID(check.Int(q, f[1])), Args: f[2:]})
	}
	return out
}

// Command returns runc's command, such as create. It is the first argument that is neither a global option nor the value of
// one.
func (c Call) Command() string {
	globalOptions := []string{"--root", "--log", "--log-format"}
	for i, a := range c.Args {
		if !strings.HasPrefix(a, "-") && (i == 0 || !slices.Contains(globalOptions, c.Args[i-1])) {
			return a
		}
	}
	return ""
}

// Option returns the value of an option, or "" if the call has no such option.
func (c Call) Option(name string) string {
	if i := slices.Index(c.Args, name); i >= 0 && i+1 < len(c.Args) {
		return c.Args[i+1]
	}
	return ""
}

// String returns the command with its arguments, without the global options. The shim hands over the process of an exec in a
// temporary file, whose directory and name depend on the machine and on chance.
func (c Call) String() string {
	at := slices.Index(c.Args, c.Command())
	return processFile.ReplaceAllString(strings.Join(c.Args[max(0, at):], " "), "--process FILE")
}

var processFile = regexp.MustCompile(`--process \S*/runc-process[0-9]+`)

// Commands returns the command of each call, in order.
func Commands(calls []Call) []string {
	out := []string{}
	for _, c := range calls {
		out = append(out, c.Command())
	}
	return out
}
