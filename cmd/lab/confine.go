//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"cdblab/helpers/confine"
	"cdblab/helpers/host"
	"cdblab/helpers/signals"
)

// confineMain runs a command as root in namespaces and cgroups of its own, and sweeps the machine after it. lab mutants and lab
// sabotage start it.
// It ends the command when its standard input ends: sudo may stand between both, and passes not every signal on.
func confineMain(args []string) int {
	if len(args) > 0 && args[0] == "-inner" {
		return confine.Inner(args[1:])
	}
	c := confine.Command{Stop: os.Stdin}
	set := flag.NewFlagSet("lab confine", flag.ExitOnError)
	set.DurationVar(&c.Deadline, "deadline", time.Hour, "after which the command is cut off")
	set.DurationVar(&c.Grace, "grace", 30*time.Second, "from SIGTERM to SIGKILL")
	jobs := set.Int("jobs", 1, "how many commands share the memory of the machine")
	why := set.String("why", "", "the `file` that gets why the command was cut off; it is empty if the command ended by itself")
	_ = set.Parse(args)
	if set.NArg() == 0 || *jobs < 1 {
		set.Usage()
		return 2
	}
	// A Ctrl-C reaches the caller as well, which ends the standard input.
	signal.Notify(make(chan os.Signal, 1), signals.Stop()...)
	self, err := os.Executable()
	if err == nil {
		c.Limits, err = confine.DefaultLimits(*jobs)
	}
	if err != nil {
		logf("%v", err)
		return 125
	}
	c.Args, c.Inner = set.Args(), []string{self, "confine", "-inner"}
	measureSlowness()
	code, cutOff, err := c.Run()
	// The lab of the command has cleaned up, unless it was killed.
	swept, sweepErr := host.Sweep(false)
	for _, s := range swept {
		fmt.Println("lab: swept", s)
	}
	if sweepErr != nil {
		// A leftover would count against the next command.
		err = errors.Join(err, fmt.Errorf("sweep after the command: %w", sweepErr))
	}
	if err != nil {
		logf("%v", err)
		return 125
	}
	if *why != "" {
		if err := os.WriteFile(*why, []byte(cutOff), 0o644); err != nil {
			logf("%v", err)
			return 125
		}
	}
	return code
}

// confineArgs returns the command, with its first arguments, that runs a command confined.
func confineArgs(asRoot string) ([]string, error) {
	self, err := os.Executable()
	args := []string{self, "confine", "-grace", (30 * time.Second).String()}
	if asRoot != "" {
		args = append([]string{asRoot}, args...)
	}
	return args, err
}
