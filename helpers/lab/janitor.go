//go:build linux

package lab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"cdblab/helpers/host"
	"cdblab/helpers/slowness"
)

// janitorName is the name under which this program is the janitor of a run, and asks no question.
const janitorName = "cdb-lab-janitor"

// startJanitor starts a copy of this program. The janitor waits until the run's process ends, however it ends, and then sweeps
// the run. A panic, a -timeout or a SIGKILL runs no t.Cleanup, but the kernel closes the process's end of the pipe.
//
// The janitor reads from the pipe which run it sweeps, and how slow this machine is. The mark of the run has its random id. An
// environment variable could be set by a caller, and would be inherited.
//
// The janitor is in a session (setsid(2)) of its own, so that a Ctrl-C at the terminal ends the run but not the janitor. It
// has no output, because go test would wait until that is closed.
func startJanitor(run host.Owner) (stop func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// Before the start, so that the janitor knows it also if this process is killed at once. A pipe holds more than this.
	if _, err := fmt.Fprintf(w, "%s %d\n", run.Mark(), slowness.Factor()); err != nil {
		return nil, fmt.Errorf("tell the janitor its run: %w", err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = janitorName
	cmd.Env = cleanEnviron()
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the janitor: %w", err)
	}
	return func() {
		w.Close()
		_ = cmd.Wait()
	}, nil
}

// janitor is what the janitor's process runs: it waits for the end of its standard input, and sweeps the run that the first line
// names. After a run that ended in order there is nothing to sweep. It returns the exit code.
func janitor() int {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadString('\n')
	if err != nil {
		return 1
	}
	var mark string
	var factor int
	if _, err := fmt.Sscan(line, &mark, &factor); err != nil {
		return 1
	}
	run, err := host.ParseMark(mark)
	if err != nil {
		return 1
	}
	slowness.Set(factor)
	_, _ = io.Copy(io.Discard, in)
	if err := host.SweepRun(run); err != nil {
		return 1
	}
	return 0
}
