//go:build linux

// Package mutants measures how many faults of a program under test the questions notice.
//
// A [Mutant] is the pinned program with one small fault: a statement is missing, a condition is negated, a flag or a constant is
// another one. The lab runs against it. If no question fails, the mutant survives: an assertion is missing, or the fault changes
// nothing that the lab looks at. [Verdicts] in testdata/mutants.csv say which.
//
// Read the files in this order: target.go (what is mutated), mutant.go, mutate.go (the kinds of faults), cover.go (which lines the
// questions execute), choose.go, source.go and build.go (a copy of the module, and the go command), run.go, state.go, campaign.go,
// verdict.go, table.go.
package mutants
