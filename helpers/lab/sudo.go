//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
)

// checkSudo returns an error for each CDB_* variable that the caller has set, and that sudo has not passed on. Without this check
// a run would test another program than the one that the caller has named. sudo passes none of them on by itself, and sudo-rs
// ignores -E.
func checkSudo() error {
	for pid := os.Getppid(); pid > 1; {
		p, err := procfs.NewProc(pid)
		if err != nil {
			return nil // the process has ended, or /proc hides it
		}
		stat, err := p.Stat()
		if err != nil {
			return nil
		}
		if slices.Contains([]string{"sudo", "sudo-rs", "doas"}, stat.Comm) {
			given, err := p.Environ()
			if err != nil {
				return nil // guard refuses an ordinary user
			}
			return dropped(stat.Comm, given)
		}
		pid = stat.PPID
	}
	return nil
}

// dropped returns an error for each CDB_* variable in given, the environment of sudo, that this process does not have.
func dropped(sudo string, given []string) error {
	var errs []error
	for _, variable := range given {
		name, value, _ := strings.Cut(variable, "=")
		if _, passed := os.LookupEnv(name); passed || !strings.HasPrefix(name, "CDB_") {
			continue
		}
		errs = append(errs, fmt.Errorf("%s=%s was set for %s, which did not pass it on\n"+
			"  Name it after sudo:    sudo %s=… go test …\n"+
			"  Or let make do that:   make lab-here\n"+
			"  Or unset it:           unset %s", name, value, sudo, name, name))
	}
	return errors.Join(errs...)
}
