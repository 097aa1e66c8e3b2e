//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"cdblab/helpers/host"
)

// describeState describes what the question has made so far, and the commands with which a reader can look at it.
func (q *Q) describeState() string {
	var b strings.Builder
	show := func(title string, lines []string) {
		for i, line := range lines {
			if i > 0 {
				title = ""
			}
			fmt.Fprintf(&b, "     %-12s %s\n", title, line)
		}
	}
	processes := q.processesOfRun()
	var lines []string
	for _, p := range processes {
		lines = append(lines, describeProcess(q, p))
	}
	show("processes", lines)
	made := host.OwnedBy(host.Diff(q.before, q.TakeInventory()), q.Owner)
	show("cgroups", cgroupsOf(made))
	for _, kind := range []string{"mount", "FIFO", "socket file"} {
		show(kind+"s", pick(made, kind, func(c host.Change) string { return c.Name }))
	}
	show("files", filesIn(q.Dir))

	fmt.Fprintln(&b, "     To look at it:")
	commands := slices.Concat(q.newSetUp(), q.env.suggested, []string{"find " + q.Dir + " -maxdepth 3"})
	commands = append(commands, processCommands(processes)...)
	commands = append(commands, cgroupCommands(made)...)
	for _, c := range commands {
		fmt.Fprintln(&b, "       "+c)
	}
	return b.String()
}

// processCommands returns commands that show a process: the last one in a container, if there is any.
func processCommands(processes []host.Process) []string {
	inContainer := slices.DeleteFunc(slices.Clone(processes), func(p host.Process) bool { return !strings.Contains(p.Cgroup, host.Cgroup) })
	if len(inContainer) > 0 {
		processes = inContainer
	}
	if len(processes) == 0 {
		return nil
	}
	pid := processes[len(processes)-1].PID
	commands := []string{fmt.Sprintf("cat /proc/%d/status /proc/%d/mountinfo; ls -l /proc/%d/ns /proc/%d/fd", pid, pid, pid, pid)}
	if len(inContainer) > 0 {
		commands = append(commands, fmt.Sprintf("nsenter -t %d -m -u -i -n -p sh", pid))
	}
	return commands
}

// cgroupCommands returns commands that show the innermost cgroup. In v1 it is the one of the pids controller.
func cgroupCommands(changes []host.Change) []string {
	dir, ofPids := "", false
	for _, c := range changes {
		if isPids := strings.HasPrefix(c.Name, "pids:"); c.Kind == "cgroup" && (isPids || !ofPids) {
			dir, ofPids = c.Description, isPids
		}
	}
	if dir == "" {
		return nil
	}
	return []string{"ls " + dir + "; cat " + dir + "/cgroup.procs"}
}

// newSetUp returns the commands that a second terminal needs and that no earlier stop of the question has shown.
func (q *Q) newSetUp() []string {
	all := q.notes.setup
	fresh := all[min(q.notes.steps.setUpShown, len(all)):]
	q.notes.steps.setUpShown = len(all)
	return fresh
}

// processesOfRun lists the processes of the run, sorted by pid: those of the question, and those that it shares with others, such
// as a daemon.
func (q *Q) processesOfRun() []host.Process {
	q.Helper()
	all, err := host.Processes()
	if err != nil {
		q.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(p host.Process) bool { return !p.OwnedBy(q.session.run.Owner) })
	slices.SortFunc(all, func(a, b host.Process) int { return int(a.PID) - int(b.PID) })
	return all
}

// describeProcess returns a line about a process. A program such as sleep 3600 does not wait for the reader, so the line says
// when it ends.
func describeProcess(q *Q, p host.Process) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
	argv := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
	command := printable(strings.Join(argv, " "))
	if command == "" {
		command = printable(p.Comm)
	}
	line := fmt.Sprintf("%-7d %s   (child of %d)", p.PID, command, p.Parent)
	if len(argv) == 2 && filepath.Base(argv[0]) == "sleep" {
		if seconds, err := strconv.Atoi(argv[1]); err == nil {
			left := time.Until(p.Start.At(q).Add(time.Duration(seconds) * time.Second))
			line += fmt.Sprintf("   ends by itself in %v", left.Round(time.Second))
		}
	}
	return line
}

// printable returns the beginning of a command line without the characters that control a terminal: a process may have any name.
func printable(command string) string {
	const most = 90
	runes := []rune(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, command))
	if len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return string(runes)
}

// cgroupsOf returns the cgroups among the changes, each once. A cgroup of v1 exists in many hierarchies.
func cgroupsOf(changes []host.Change) []string {
	count := map[string]int{}
	var paths []string
	for _, c := range changes {
		if _, path, _ := strings.Cut(c.Name, ":"); c.Kind == "cgroup" {
			if count[path]++; count[path] == 1 {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	for i, path := range paths {
		if n := count[path]; n > 1 {
			paths[i] += fmt.Sprintf("   (in %d hierarchies)", n)
		}
	}
	return paths
}

// pick returns a field of the changes of a kind.
func pick(changes []host.Change, kind string, field func(host.Change) string) []string {
	var out []string
	for _, c := range changes {
		if c.Kind == kind {
			out = append(out, field(c))
		}
	}
	return out
}

// filesIn returns a line with the entries of a directory.
func filesIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	line := dir + ":"
	for _, e := range entries {
		line += " " + e.Name()
		if e.IsDir() {
			line += "/"
		}
	}
	return []string{line}
}
