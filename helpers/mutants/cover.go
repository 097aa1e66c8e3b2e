//go:build linux

package mutants

import (
	"go/token"
	"regexp"

	"golang.org/x/tools/cover"
)

// A Profile says which statements the questions execute. A nil profile says that they execute all.
type Profile struct {
	blocks map[string][]cover.ProfileBlock // file → blocks
	byName *regexp.Regexp                  // files that count as executed although the profile does not say so; nil for none
}

// ReadProfile reads a profile of a target in the format of go tool cover.
func ReadProfile(path string, target Target) (*Profile, error) {
	files, err := cover.ParseProfiles(path)
	if err != nil {
		return nil, err
	}
	p := &Profile{blocks: map[string][]cover.ProfileBlock{}, byName: target.Init}
	for _, f := range files {
		p.blocks[f.FileName] = f.Blocks
	}
	if p.any(target.InitMain) {
		p.byName = nil // runc init has written its counters
	}
	return p, nil
}

// Executes reports whether the questions execute the statement at a position of a file.
func (p *Profile) Executes(file string, at token.Position) bool {
	if p == nil {
		return true
	}
	for _, b := range p.blocks[file] {
		afterStart := at.Line > b.StartLine || at.Line == b.StartLine && at.Column >= b.StartCol
		beforeEnd := at.Line < b.EndLine || at.Line == b.EndLine && at.Column < b.EndCol
		if afterStart && beforeEnd && b.Count > 0 {
			return true
		}
	}
	return p.byName != nil && p.byName.MatchString(file)
}

// any reports whether the questions execute anything of a file.
func (p *Profile) any(file string) bool {
	for _, b := range p.blocks[file] {
		if b.Count > 0 {
			return true
		}
	}
	return false
}

// mayExecute reports whether the questions may execute something of a file.
func (p *Profile) mayExecute(file string) bool {
	return p == nil || p.any(file) || p.byName != nil && p.byName.MatchString(file)
}

// Count returns how many files the questions execute, and how many count as executed only by their name.
func (p *Profile) Count() (executed, byName int) {
	for file := range p.blocks {
		switch {
		case p.any(file):
			executed++
		case p.mayExecute(file):
			byName++
		}
	}
	return executed, byName
}
