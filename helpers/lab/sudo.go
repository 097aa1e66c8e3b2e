//go:build linux

package lab

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
)

// checkSudo returns an error if the caller has set a CDB_* variable that sudo has not passed on. Without this check
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

// dropped returns an error that names the CDB_* variables in given, the environment of sudo, that this process does not have.
func dropped(sudo string, given []string) error {
	var variables []string
	for _, variable := range given {
		name, _, _ := strings.Cut(variable, "=")
		if _, passed := os.LookupEnv(name); !passed && strings.HasPrefix(name, "CDB_") {
			variables = append(variables, variable)
		}
	}
	if variables == nil {
		return nil
	}
	slices.Sort(variables)
	name, _, _ := strings.Cut(variables[0], "=")
	return fmt.Errorf("%s did not pass on the variables that it was started with:\n    %s\n"+
		"  Let make pass them on:   make lab-here\n"+
		"  Or name each once more:  %s %s=value …\n"+
		"  Or unset it before:      unset %s", sudo, strings.Join(variables, "\n    "), sudo, name, name)
}
