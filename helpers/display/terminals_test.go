//go:build linux

package display

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"al.essio.dev/pkg/shellescape"
	"github.com/containerd/console"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/results"
)

// The display of a terminal must not change how the terminal behaves: Ctrl-C must reach the run, and keys must stay for the shell.
func TestNew_ChoosesByTheTerminal(t *testing.T) {
	const colour, redraw = "\x1b[32m", "\x1b[J"
	for _, c := range []struct {
		name, term, noColor string
		live, colored       bool
	}{
		{"a terminal", "xterm-256color", "", true, true},
		{"NO_COLOR", "xterm-256color", "1", true, false},
		{"dumb", "dumb", "", false, false},
		{"unknown", "", "", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TERM", c.term)
			t.Setenv("NO_COLOR", c.noColor)
			master, slave := openTerminal(t)
			before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			assert.NilError(t, err)
			d := New(slave, Options{})
			t.Cleanup(func() { d.Done(&results.Run{}, "") })
			d.Prepare("compiling the tests")
			d.Prepare("booting")
			after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			assert.NilError(t, err)
			assert.DeepEqual(t, before, after)
			written := make([]byte, 1000)
			n, err := master.Read(written)
			assert.NilError(t, err)
			assert.Equal(t, bytes.Contains(written[:n], []byte(redraw)), c.live, "%q", written[:n])
			d.Prepare("asking")
			n, err = master.Read(written)
			assert.NilError(t, err)
			assert.Equal(t, bytes.Contains(written[:n], []byte(colour)), c.colored, "%q", written[:n])
		})
	}
}

func TestNew_AFileIsALog(t *testing.T) {
	t.Setenv("TERM", "xterm")
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	assert.NilError(t, err)
	defer f.Close()
	d := New(f, Options{})
	defer d.Done(&results.Run{}, "")
	d.Prepare("compiling the tests")
	assert.Equal(t, read(t, f.Name()), "compiling the tests\n")
}

func openTerminal(t *testing.T) (master io.Reader, slave *os.File) {
	t.Helper()
	m, path, err := console.NewPty()
	assert.NilError(t, err)
	t.Cleanup(func() { m.Close() })
	slave, err = os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	assert.NilError(t, err)
	t.Cleanup(func() { slave.Close() })
	return m, slave
}

// tmux is a real terminal, in which a shell runs.
type tmux struct {
	*testing.T
	socket string
}

func startTmux(t *testing.T, width, height int, command string) *tmux {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("this machine has no tmux: install it to try the live display in a real terminal")
	}
	m := &tmux{t, filepath.Join(t.TempDir(), "tmux")}
	m.run("new-session", "-d", "-s", "s", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height),
		"sh", "-c", command+"; echo THE END; exec sleep 600") // with several arguments, tmux adds no shell of its own
	t.Cleanup(func() { m.run("kill-server") })
	return m
}

func (m *tmux) run(args ...string) string {
	m.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", m.socket, "-f", "/dev/null"}, args...)...).CombinedOutput()
	assert.NilError(m, err, "tmux %v: %s", args, out)
	return string(out)
}

// text returns all that was shown, also what has left the screen.
func (m *tmux) text() string {
	m.Helper()
	var b strings.Builder
	for line := range strings.Lines(m.run("capture-pane", "-t", "s", "-p", "-S", "-")) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// wait waits until something is shown.
func (m *tmux) wait(want string) string {
	m.Helper()
	var text string
	poll.WaitOn(m, func(poll.LogT) poll.Result {
		if text = m.text(); strings.Contains(text, want) {
			return poll.Success()
		}
		return poll.Continue("the terminal does not show %q. It shows\n%s", want, text)
	}, poll.WithTimeout(time.Minute))
	return text
}

// replayCommand returns the shell command that replays the recorded stream.
func replayCommand(t *testing.T, speed int) string {
	t.Helper()
	binary, err := os.Executable()
	assert.NilError(t, err)
	stream, err := filepath.Abs("testdata/stream.json")
	assert.NilError(t, err)
	return shellescape.QuoteCommand([]string{"env", "NO_COLOR=1", replayEnv + "=" + stream, fmt.Sprintf("%s=%d", speedEnv, speed), binary})
}

// prepared matches how long the preparations took.
var prepared = regexp.MustCompile(`(✓ (building|compiling) .*  )\d+\.\ds`)

// A real terminal must show what the terminal of the other tests shows.
func TestTmux_ShowsWhatTheOtherTestsSee(t *testing.T) {
	m := startTmux(t, 80, 24, replayCommand(t, 60))
	got, _, _ := strings.Cut(m.wait("THE END"), "THE END")

	term := &terminal{T: t, width: 80, height: 24}
	showLive(term, read(t, "testdata/stream.json"), Options{}, nil)
	assert.Equal(t, prepared.ReplaceAllString(got, "$1"), prepared.ReplaceAllString(term.text(), "$1"))
}

// tmux folds the lines of a terminal that becomes narrower, as most terminals do. What it moves out of the screen then cannot be
// redrawn any more, so only the screen is asserted.
func TestTmux_ResizedTerminal(t *testing.T) {
	m := startTmux(t, 120, 30, replayCommand(t, 4))
	m.wait("– Lifecycle")
	for _, resized := range []struct{ width, status string }{{"50", "/4, "}, {"100", " of 4 questions ended"}} {
		m.run("resize-window", "-t", "s", "-x", resized.width)
		m.wait(resized.status)
		screen := m.run("capture-pane", "-t", "s", "-p")
		assert.Check(t, cmp.Equal(strings.Count(screen, "▸ Bundle"), 1), "%s columns:\n%s", resized.width, screen)
		assert.Check(t, cmp.Equal(strings.Count(screen, resized.status), 1), "%s columns:\n%s", resized.width, screen)
	}
}

// A display that is killed leaves a terminal that works: the same settings, and a cursor that is seen, on a line of its own.
func TestTmux_KilledDisplay(t *testing.T) {
	m := startTmux(t, 80, 24, "stty -g; "+replayCommand(t, 5)+" & wait $!; stty -g")
	m.wait("▸ Bundle")
	pid := strings.TrimSpace(m.run("display-message", "-t", "s", "-p", "#{pane_pid}"))
	children := strings.Fields(read(t, "/proc/"+pid+"/task/"+pid+"/children"))
	assert.Equal(t, len(children), 1, "%v", children)
	out, err := exec.Command("kill", "-KILL", children[0]).CombinedOutput()
	assert.NilError(t, err, "%s", out)
	text := m.wait("\nTHE END")
	settings := regexp.MustCompile(`(?m)^[0-9a-f]+(:[0-9a-f]+){10,}\n?([0-9a-f:]+\n)?`).FindAllString(text, -1)
	assert.Equal(t, len(settings), 2, text)
	assert.Equal(t, settings[0], settings[1])
	assert.Equal(t, strings.TrimSpace(m.run("display-message", "-t", "s", "-p", "#{cursor_flag}")), "1")
}

// Ctrl-C must end a program that shows itself by this display.
func TestTmux_CtrlC(t *testing.T) {
	m := startTmux(t, 80, 24, "trap : INT; "+replayCommand(t, 5)+"; echo exit code $?")
	m.wait("▸ Bundle")
	m.run("send-keys", "-t", "s", "C-c")
	m.wait("exit code 130")
}
