//go:build linux

// Package sabotage checks that a program under test which breaks a promise fails the lab: the question whose promise it breaks has
// to fail, with a message that shows the broken promise.
//
// The table of the lies is testdata/sabotage.toml. `make sabotage` reads it. A lie is a few lines of shell around the real program, or
// an edit of the program's source where a wrapper cannot lie. First a control: programs that tell no lie must leave the lab green.
package sabotage
