//go:build linux

package prompt

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/prompt/prompttest"
)

// programEnv makes the test binary a program that asks at its terminal: a process has only one controlling terminal.
const programEnv = "PROMPT_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) == "" {
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

func program() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), programEnv+"=1")
	return cmd
}

func TestWait_AnEmptyLineGoesOn(t *testing.T) {
	p := prompttest.SitDown(t, program())
	p.Sees("> ")
	p.Types("\r")
	p.Sees("go on: true")
}

func TestWait_EndsByQAndAtTheEndOfTheInput(t *testing.T) {
	for _, keys := range []string{"q\r", "\x04"} {
		p := prompttest.SitDown(t, program())
		p.Sees("> ")
		p.Types(keys)
		p.Sees("go on: false")
	}
}

// The command has the terminal as its standard input, and the prompt comes back after it, whatever its exit code is.
func TestWait_RunsCommands(t *testing.T) {
	p := prompttest.SitDown(t, program())
	p.Sees("> ")
	p.Types("read word; echo $word$word; exit 3\r")
	p.Sees("\n")
	p.Types("lab\r")
	p.Sees("lablab")
	p.Sees("exit status 3")
	p.Sees("> ")
	p.Types("\r")
	p.Sees("go on: true")
}

// With exec: a Ctrl-C at the moment at which dash forks is lost until the child ends.
func TestWait_CtrlCEndsTheCommandOnly(t *testing.T) {
	p := prompttest.SitDown(t, program())
	p.Sees("> ")
	p.Types("echo be''gins; exec sleep 1000\r")
	p.Sees("begins")
	p.Types("\x03")
	p.Sees("signal: interrupt")
	p.Sees("> ")
	p.Types("\r")
	p.Sees("go on: true")
}

func TestOpen_NamesWhatIsMissing(t *testing.T) {
	cmd := program()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.CombinedOutput()
	assert.ErrorContains(t, err, "exit status 3")
	assert.Assert(t, strings.Contains(string(out), "this process has no terminal: open /dev/tty"), "%s", out)
}
