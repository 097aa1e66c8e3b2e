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

// janitorEnv makes the test binary the janitor of the run that it names.
const janitorEnv = "CDB_JANITOR"

// startJanitor starts a copy of this program that waits for us to end, however we end, and then sweeps the run. A
// panic, a -timeout or a SIGKILL runs no t.Cleanup; the kernel closes our end of the pipe all the same.
//
// It has a session of its own, so that a Ctrl-C at the terminal, which ends us, does not reach it; and none of our
// output, because go test would wait for it.
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

// janitor is the other side: it waits until its standard input ends, and sweeps the run. After a run that ended well
// there is nothing left to sweep.
func janitor(run string) int {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := host.SweepRun(run); err != nil {
		return 1
	}
	return 0
}
