//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"

	"cdblab/helpers/host"
	"cdblab/helpers/proc"
)

// KillProcess sends SIGKILL to a process by its pid, without the runtime.
func (q *Q) KillProcess(p proc.Process) {
	q.Helper()
	q.LogCommand("kill -KILL %d", p.PID)
	if err := unix.Kill(int(p.PID), unix.SIGKILL); err != nil {
		q.Fatalf("kill process %d: %v", p.PID, err)
	}
}

// TakeInventory returns the host's inventory, as far as the question can have changed it.
func (q *Q) TakeInventory() host.Inventory {
	q.Helper()
	p, err := host.TakeInventoryOf(q.Owner)
	if err != nil {
		q.Fatal(err)
	}
	return p
}

// LookPathOrSkip returns the path of a program that is not under test. Without it, the question or subtest is skipped.
func (q *Q) LookPathOrSkip(name string) string {
	q.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		q.Skipf("no %s on this machine: install it to see this part (make deps does, where the distribution has it)", name)
	}
	return path
}

// WriteWrapper writes a shell script that is called in place of the runtime or the shim, and returns its path. In the
// script, $RUNC and $SHIM are the programs under test. The script has to outlive the tasks: a question writes it before it
// starts a daemon of its own.
func (q *Q) WriteWrapper(name, script string) string {
	q.Helper()
	path := filepath.Join(q.Mkdir(name), name)
	text := fmt.Sprintf("#!/bin/sh\nRUNC=%s SHIM=%s\n%s\n", q.UnderTest("runc").Path, q.UnderTest("containerd-shim-runc-v2").Path, script)
	q.LogCommandAs("cat > "+path+"   # "+strings.ReplaceAll(script, "\n", "; "), "mkdir -p "+filepath.Dir(path)+" && cat > "+path+" <<'END'\n"+text+"END\nchmod +x "+path)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		q.Fatalf("write the wrapper %s: %v", path, err)
	}
	return path
}

// SendLine writes a line into the FIFO /told of a container, as soon as the container's script has opened it for reading.
func (q *Q) SendLine(init proc.Process, line string) {
	q.Helper()
	path := fmt.Sprintf("/proc/%d/root/told", init.PID)
	q.LogCommand("echo '%s' > %s", line, path)
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return poll.Continue("no process reads the FIFO: %v", err)
		}
		defer f.Close()
		if _, err := f.WriteString(line + "\n"); err != nil {
			return poll.Error(err)
		}
		return poll.Success()
	})
}
