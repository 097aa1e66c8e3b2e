// Package howto names the commands that messages offer to the reader: those of the Makefile in a checkout, or those of the program
// cdblab where the lab came as a tarball.
package howto

import (
	"os"

	"al.essio.dev/pkg/shellescape"
)

// Env has the path of the program cdblab. The program sets it.
const Env = "CDB_CDBLAB"

// InTarball reports whether the lab came as a tarball.
func InTarball() bool { return os.Getenv(Env) != "" }

// Sweep is the command that removes what runs have left.
func Sweep() string {
	if InTarball() {
		return "sudo " + os.Getenv(Env) + " sweep"
	}
	return "make sweep"
}

// Syllabus is the command that lists the questions.
func Syllabus() string {
	if InTarball() {
		return os.Getenv(Env) + " syllabus"
	}
	return "make syllabus"
}

// Run is the command that asks the questions: in the throw-away VM, or with the tarball on this machine.
func Run() string {
	if InTarball() {
		return RunHere()
	}
	return "make lab"
}

// RunOnly is the command that asks the question of one test. It can be pasted, whatever the name is.
func RunOnly(test string) string {
	only := shellescape.Quote("^" + test + "$")
	if InTarball() {
		return RunHereOnly(only)
	}
	return Run() + " Q=" + only
}

// RunHere is the command that asks the questions on this machine.
func RunHere() string { return RunHereOnly("") }

// RunHereOnly is the command that asks the questions that match a regular expression on this machine.
func RunHereOnly(questions string) string {
	switch {
	case !InTarball() && questions == "":
		return "make lab-here"
	case !InTarball():
		return "make lab-here Q=" + questions
	case questions == "":
		return "sudo " + os.Getenv(Env) + " run"
	}
	return "sudo " + os.Getenv(Env) + " run -run " + questions
}

// With is a command with an environment variable, such as "CDB_KEEP=1".
func With(variable, command string) string {
	if InTarball() {
		return "sudo env " + variable + command[len("sudo"):]
	}
	return variable + " " + command
}

// Install is what to do if a program of the distribution is missing.
func Install() string {
	if InTarball() {
		return "install it, if the distribution has it"
	}
	return "install it (make deps does, if the distribution has it)"
}
