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

// A State is what is known of the mutants of a target, a version and a seed. It is stored after each mutant.
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

// Dir returns the directory of a state, below the directory of all of them.
func Dir(all, target, version string, seed uint64) string {
	return filepath.Join(all, fmt.Sprintf("%s-%s-%d", target, version[1:], seed))
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

// Done reports whether a mutant need not run. Of other questions (another source, another Q), only two results hold: a mutant that
// does not build, and one that some of the present questions have killed. A survivor runs again, because they may kill it.
func (s *State) Done(m Mutant, source, questions string) bool {
	r, ok := s.Results[m.ID()]
	switch {
	case !ok:
		return false
	case r.Outcome == NoBuild:
		return true
	case r.Questions == questions && r.Source == source:
		return true
	}
	return r.Outcome != Survived && (questions == "" || r.Questions == questions)
}

// honest returns how long the honest build took with the questions, or 0 if it did not run with them.
func (s *State) honest(source, questions string) time.Duration {
	if h := s.Honest; h != nil && h.Outcome == Survived && h.Source == source && h.Questions == questions {
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
