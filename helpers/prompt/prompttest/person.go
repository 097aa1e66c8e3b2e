//go:build linux

// Package prompttest has a person at the terminal of a program under test.
package prompttest

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"gotest.tools/v3/assert"
)

// patience is how long a program may take until it is killed, and the test fails. It is long, for a busy machine.
const patience = 2 * time.Minute

// Person is a person at the terminal of a program.
type Person struct {
	tb     testing.TB
	master console.Console
	output *bufio.Reader
	cmd    *exec.Cmd
}

// SitDown starts the program on a terminal of its own, which has its output. Its standard input is /dev/null, as under go test.
func SitDown(tb testing.TB, cmd *exec.Cmd) *Person {
	tb.Helper()
	return SitDownFor(tb, cmd, patience)
}

// SitDownFor is SitDown with another patience, for a program that boots a machine.
func SitDownFor(tb testing.TB, cmd *exec.Cmd, patience time.Duration) *Person {
	tb.Helper()
	master, path, err := console.NewPty()
	assert.NilError(tb, err)
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	assert.NilError(tb, err)
	defer slave.Close()
	cmd.Stdout, cmd.Stderr = slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	assert.NilError(tb, cmd.Start())
	deadline := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	tb.Cleanup(func() {
		deadline.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		master.Close()
	})
	return &Person{tb, master, bufio.NewReader(master), cmd}
}

// Types types keys. The key of Enter is \r.
func (p *Person) Types(keys string) {
	p.tb.Helper()
	_, err := p.master.Write([]byte(keys))
	assert.NilError(p.tb, err)
}

// Sees waits until the text appears.
func (p *Person) Sees(text string) {
	p.tb.Helper()
	p.SeesOneOf(text)
}

// SeesOneOf waits until one of the texts appears, and returns it.
func (p *Person) SeesOneOf(texts ...string) string {
	p.tb.Helper()
	var seen strings.Builder
	for {
		c, err := p.output.ReadByte()
		assert.NilError(p.tb, err, "none of %q appears at the terminal, but: %q", texts, seen.String())
		seen.WriteByte(c)
		for _, text := range texts {
			if strings.HasSuffix(seen.String(), text) {
				return text
			}
		}
	}
}

// ExitCode waits until the program has ended, and returns its exit code.
func (p *Person) ExitCode() int {
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}
