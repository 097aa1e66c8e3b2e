//go:build linux

package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// KillProcess sends SIGKILL to a process, without the runtime. That it has ended by itself meanwhile is no error.
func (q *Q) KillProcess(p proc.Process) {
	q.Helper()
	q.LogCommand("kill -KILL %d", p.PID)
	if err := proc.Kill(p.Identity); err != nil {
		q.Fatal(err)
	}
}

// SendLine writes a line into the FIFO /told of a container, as soon as the container's script has opened the FIFO for reading.
func (q *Q) SendLine(init proc.Process, line string) {
	q.Helper()
	path := fmt.Sprintf("/proc/%d/root/told", init.PID)
	q.LogCommand("echo '%s' > %s", line, path)
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return poll.Continue("no process reads the FIFO %s yet: %v", path, err)
		}
		defer f.Close()
		if _, err := f.WriteString(line + "\n"); err != nil {
			return poll.Error(err)
		}
		return poll.Success()
	})
}
