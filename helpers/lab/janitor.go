//go:build linux

package lab

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"cdblab/helpers/host"
)

// janitorEnv has the number of a run. With it, the test binary is the janitor of that run.
const janitorEnv = "CDB_JANITOR"

// startJanitor starts a copy of this program. The janitor waits until the run's process ends, however it ends, and then sweeps
// the run. A panic, a -timeout or a SIGKILL runs no t.Cleanup, but the kernel closes the process's end of the pipe.
//
// The janitor is in a session (setsid(2)) of its own, so that a Ctrl-C at the terminal ends the run but not the janitor. It
// has no output, because go test would wait until that is closed.
func startJanitor(run string) (stop func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = "cdb-lab-janitor"
	cmd.Env = append(os.Environ(), janitorEnv+"="+run)
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

// janitor is what the janitor's process runs: it waits for the end of its standard input, and sweeps the run. After a run that
// ended in order there is nothing to sweep. It returns the exit code.
func janitor(run string) int {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := host.SweepRun(run); err != nil {
		return 1
	}
	return 0
}
