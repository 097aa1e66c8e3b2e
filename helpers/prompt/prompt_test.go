//go:build linux

package prompt

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"gotest.tools/v3/assert"
)

// helperEnv makes the test binary a program that asks at its terminal, because a process has only one controlling terminal.
const helperEnv = "PROMPT_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "" {
		os.Exit(m.Run())
	}
	terminal, err := Open()
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	goOn := terminal.Wait("> ", func(argv ...string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) })
	fmt.Println("go on:", goOn)
}

// person is a person at the terminal of a program.
type person struct {
	t      *testing.T
	master console.Console
	lines  *bufio.Reader
	cmd    *exec.Cmd
}

// sitDown starts a program that asks, on a terminal of its own.
func sitDown(t *testing.T) *person {
	t.Helper()
	master, path, err := console.NewPty()
	assert.NilError(t, err)
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	assert.NilError(t, err)
	defer slave.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.Stdout, cmd.Stderr = slave, slave // and standard input is /dev/null, as under go test
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	assert.NilError(t, cmd.Start())
	deadline := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		deadline.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		master.Close()
	})
	return &person{t, master, bufio.NewReader(master), cmd}
}

// types types keys.
func (p *person) types(keys string) {
	p.t.Helper()
	_, err := p.master.Write([]byte(keys))
	assert.NilError(p.t, err)
}

// sees waits until the text appears.
func (p *person) sees(text string) {
	p.t.Helper()
	var seen strings.Builder
	for !strings.HasSuffix(seen.String(), text) {
		c, err := p.lines.ReadByte()
		assert.NilError(p.t, err, "%q does not appear at the terminal, but: %q", text, seen.String())
		seen.WriteByte(c)
	}
}

func TestWait_AnEmptyLineGoesOn(t *testing.T) {
	p := sitDown(t)
	p.sees("> ")
	p.types("\r")
	p.sees("go on: true")
}

func TestWait_EndsByQAndAtTheEndOfTheInput(t *testing.T) {
	for _, keys := range []string{"q\r", "\x04"} {
		p := sitDown(t)
		p.sees("> ")
		p.types(keys)
		p.sees("go on: false")
	}
}

// The command has the terminal as its standard input, and the prompt comes back after it, whatever its exit code is.
func TestWait_RunsCommands(t *testing.T) {
	p := sitDown(t)
	p.sees("> ")
	p.types("read word; echo $word$word; exit 3\r")
	p.sees("\n")
	p.types("lab\r")
	p.sees("lablab")
	p.sees("exit status 3")
	p.sees("> ")
	p.types("\r")
	p.sees("go on: true")
}

// With exec: a Ctrl-C at the moment at which dash forks is lost until the child ends.
func TestWait_CtrlCEndsTheCommandOnly(t *testing.T) {
	p := sitDown(t)
	p.sees("> ")
	p.types("echo be''gins; exec sleep 100\r")
	p.sees("begins")
	p.types("\x03")
	p.sees("signal: interrupt")
	p.sees("> ")
	p.types("\r")
	p.sees("go on: true")
}

func TestOpen_NamesWhatIsMissing(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.CombinedOutput()
	assert.ErrorContains(t, err, "exit status 3")
	assert.Assert(t, strings.Contains(string(out), "this process has no terminal: open /dev/tty"), "%s", out)
}
