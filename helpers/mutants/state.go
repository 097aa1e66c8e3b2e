//go:build linux

package mutants

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// A State is what is known of the mutants of a campaign. It is stored after each mutant.
type State struct {
	Target  string `json:"target"`
	Version string `json:"version"`
	Seed    uint64 `json:"seed"`
	// Mutants are the mutants that were drawn, in their order. They stay the same when the questions change.
	Mutants []Mutant          `json:"mutants"`
	Results map[string]Result `json:"results"` // by the id of the mutant
	Honest  *Result           `json:"honest,omitempty"`
	path    string
}

// OpenState reads the state in a directory, or begins one.
func OpenState(dir, target, version string, seed uint64) (*State, error) {
	s := &State{Target: target, Version: version, Seed: seed, path: filepath.Join(dir, "state.json")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(s.path)
	if err == nil {
		if err = json.Unmarshal(data, s); err != nil {
			err = fmt.Errorf("read %s: %w\n  what to do: remove this file, and all mutants run again", s.path, err)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if s.Results == nil {
		s.Results = map[string]Result{}
	}
	return s, err
}

// Save stores the state. A run that is killed leaves the old state or the new one.
func (s *State) Save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(s.path, append(data, '\n'), 0o644)
}

// Done reports whether a mutant need not run, within a deadline, of the questions with the digest source. A survivor of other questions
// runs again, because these may kill it. So does a delay with which they failed, because these may have been mended. And one that was
// cut off within a shorter deadline may only have been slow.
func (s *State) Done(m Mutant, source string, deadline time.Duration) bool {
	r := s.Results[m.ID()]
	switch r.Outcome {
	case NotRun:
		return false
	case NoBuild:
		return true
	case Hung:
		if deadline > r.Deadline {
			return false
		}
	}
	return r.Source == source || r.Outcome != Survived && m.Kind != Delayed
}

// honest returns how long the honest build took with the questions, or 0 if it did not run with them.
func (s *State) honest(source string) time.Duration {
	if h := s.Honest; h != nil && h.Outcome == Survived && h.Source == source {
		return h.Took
	}
	return 0
}

// Counted returns the first n mutants that build, or may build, and how many more have to be drawn to have n.
func (s *State) Counted(n int) (counted []Mutant, missing int) {
	for _, m := range s.Mutants {
		if len(counted) < n && s.Results[m.ID()].Outcome != NoBuild {
			counted = append(counted, m)
		}
	}
	return counted, n - len(counted)
}

// Forget removes the results of all mutants.
func (s *State) Forget() { s.Results, s.Honest = map[string]Result{}, nil }
