//go:build linux

package main

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/results"
)

// A selection is what go test's -run selects. A/x|B is [[A x] [B]]: alternatives, each with an expression for each level of a name.
type selection [][]*regexp.Regexp

// parseSelection splits an expression as package testing does, at each | and / outside of brackets.
func parseSelection(run string) (selection, error) {
	run = strings.ReplaceAll(run, " ", "_") // so are the names of subtests
	out := selection{nil}
	begin, square, round := 0, 0, 0
	var errs []error
	end := func(i int) {
		level, err := regexp.Compile(run[begin:i])
		out[len(out)-1], errs = append(out[len(out)-1], level), append(errs, err)
		begin = i + 1
	}
	for i := 0; i < len(run); i++ {
		switch c := run[i]; {
		case c == '\\':
			i++
		case c == '[':
			square++
		case c == ']':
			square = max(0, square-1)
		case square > 0:
		case c == '(':
			round++
		case c == ')':
			round--
		case round == 0 && (c == '/' || c == '|'):
			end(i)
			if c == '|' {
				out = append(out, nil)
			}
		}
	}
	end(len(run))
	return out, errors.Join(errs...)
}

// has reports whether go test runs a test or subtest of this name.
func (s selection) has(name string) bool {
	elements := strings.Split(name, "/")
	return slices.ContainsFunc(s, func(levels []*regexp.Regexp) bool {
		for i, level := range levels[:min(len(levels), len(elements))] {
			if !level.MatchString(elements[i]) {
				return false
			}
		}
		return true
	})
}

// cut removes the questions and the subtests of a run that are not selected.
func (s selection) cut(run *results.Run) {
	run.Questions = slices.DeleteFunc(run.Questions, func(q *results.Question) bool { return !s.has(q.Test) })
	for _, q := range run.Questions {
		q.Subtests = slices.DeleteFunc(q.Subtests, func(t *results.Subtest) bool { return !s.has(q.Test + "/" + t.Name) })
		q.Steps = slices.DeleteFunc(q.Steps, func(t *results.Step) bool { return t.Subtest != "" && !s.has(q.Test+"/"+t.Subtest) })
	}
}
