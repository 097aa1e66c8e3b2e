// Package trial asks the questions of a program that may be broken in any way, and judges what they have noticed.
//
// `make mutants` and `make sabotage` run the questions confined, with [Lab]. `make released` has broken programs that harm no
// machine: it runs them by itself, and uses [Expect] as `make sabotage` does.
package trial
