//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"al.essio.dev/pkg/shellescape"

	"cdblab/helpers/release"
	"cdblab/helpers/signals"
)

// releaseMain runs a command that tests what variables name, as env(1) does: lab release RUNC=1.2.5 go test …. It builds the
// releases first. Without a command it prints the CDB_* variables.
//
// With env $(lab release …) go test …, a shell would test the pinned programs after a failure of lab release.
func releaseMain(args []string) int {
	words := args
	for i, arg := range args {
		if !strings.Contains(arg, "=") {
			words = args[:i]
			break
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	err := release.Resolve(ctx, words...)
	stop()
	if err != nil {
		logf("%v", err)
		return 1
	}
	command := args[len(words):]
	if len(command) == 0 {
		for _, name := range release.CDBVariables() {
			if value := os.Getenv(name); value != "" {
				fmt.Println(name + "=" + shellescape.Quote(value))
			}
		}
		return 0
	}
	path, err := exec.LookPath(command[0])
	if err == nil {
		err = syscall.Exec(path, command, os.Environ())
	}
	logf("run %s: %v", command[0], err)
	return 127
}
