// Package released checks the lab against bugs that runc and containerd have released: it must be red with the broken version,
// for the right reason, and green with the fixed one.
//
// The table of the bugs is testdata/released-bugs.toml. `make released` reads it, builds the versions and asks the questions.
package released

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/mod/semver"
)

// A Bug is a bug that reached users.
type Bug struct {
	ID        string   `toml:"id"`        // of this table
	Refs      []string `toml:"refs"`      // CVE, advisory, issue or pull request
	Module    string   `toml:"module"`    // runc, containerd, or crun, which cannot be built here
	Broken    string   `toml:"broken"`    // a version that has the bug
	Fixed     string   `toml:"fixed"`     // a version near to it that does not; "" if no release has a fix
	Det       Det      `toml:"det"`       // what it takes to see the bug
	Sees      string   `toml:"sees"`      // what a user sees, in a sentence
	Questions []string `toml:"questions"` // the tests that are expected to notice it, or one subtest: TestX/subtest
	Message   string   `toml:"message"`   // a regular expression: the failure that makes a run red for the right reason
	Needs     string   `toml:"needs"`     // what a machine must have to show it; "" for any
	Unnoticed string   `toml:"unnoticed"` // why no question notices it; "" if one must
}

// Det is what it takes to see a bug: it decides whether the lab should notice it.
type Det string

// The values of Det.
const (
	Deterministic Det = "D" // a run shows it each time
	Wrapper       Det = "W" // a run shows it each time, with a program around the runtime that kills or waits
	Race          Det = "R" // a run shows it by chance
	Environment   Det = "E" // it takes an environment that the lab does not make, such as SELinux or a containerd in a user namespace
)

// What a bug may need: that cgroup v2 has all controllers, or that v1 has some.
const (
	NeedsV2 = "cgroup v2"
	NeedsV1 = "cgroup v1"
)

// Read reads the table. An error names the bug and the key.
func Read(in io.Reader) ([]Bug, error) {
	var table struct {
		Bug []Bug `toml:"bug"`
	}
	if err := toml.NewDecoder(in).DisallowUnknownFields().Decode(&table); err != nil {
		return nil, fmt.Errorf("the table of released bugs: %w", err)
	}
	seen := map[string]bool{}
	for _, b := range table.Bug {
		if err := b.check(); err != nil {
			return nil, fmt.Errorf("the table of released bugs: bug %q: %w", b.ID, err)
		}
		if seen[b.ID] {
			return nil, fmt.Errorf("the table of released bugs: bug %q is there twice", b.ID)
		}
		seen[b.ID] = true
	}
	return table.Bug, nil
}

func (b *Bug) check() error {
	for key, value := range map[string]string{"id": b.ID, "sees": b.Sees} {
		if value == "" {
			return fmt.Errorf("the key %s is missing", key)
		}
	}
	if !slices.Contains([]Det{Deterministic, Wrapper, Race, Environment}, b.Det) {
		return fmt.Errorf("det is %q, expected D, W, R or E", b.Det)
	}
	if err := b.checkVersions(); err != nil {
		return err
	}
	if len(b.Refs) == 0 {
		return fmt.Errorf("the key refs is missing")
	}
	if b.Needs != "" && b.Needs != NeedsV2 && b.Needs != NeedsV1 {
		return fmt.Errorf("needs is %q, expected %q, %q or nothing", b.Needs, NeedsV2, NeedsV1)
	}
	if b.Unnoticed != "" {
		return nil
	}
	if len(b.Questions) == 0 || b.Message == "" {
		return fmt.Errorf("expected questions and a message, or the key unnoticed with the reason")
	}
	for _, q := range b.Questions {
		if !strings.HasPrefix(q, "Test") {
			return fmt.Errorf("%q is no name of a question's test", q)
		}
		if strings.Contains(q, "/") && len(b.Questions) > 1 {
			return fmt.Errorf("%q is a subtest, expected it to be the only entry of questions", q)
		}
	}
	_, err := regexp.Compile(b.Message)
	return err
}

// checkVersions checks the module and its versions. A bug without a pair of versions that can be built needs a reason why no question
// notices it.
func (b *Bug) checkVersions() error {
	if !slices.Contains([]string{"runc", "containerd", "crun"}, b.Module) {
		return fmt.Errorf("module is %q, expected runc, containerd or crun", b.Module)
	}
	if b.Unnoticed == "" && !b.HasPair() {
		return fmt.Errorf("no question can be asked with both versions, expected the key unnoticed with the reason")
	}
	for _, version := range []string{b.Broken, b.Fixed} {
		v := "v" + version
		if complete := semver.Canonical(v) == v || b.Module == "crun" && semver.IsValid(v); version != "" && !complete { // crun has a 1.28
			return fmt.Errorf("%q is no complete version, expected one such as 1.2.5", version)
		}
	}
	if b.Broken == "" {
		return fmt.Errorf("the key broken is missing")
	}
	if b.Fixed != "" && semver.Compare("v"+b.Broken, "v"+b.Fixed) >= 0 {
		return fmt.Errorf("broken is %s and fixed is %s, expected the fixed version to be the later one", b.Broken, b.Fixed)
	}
	return nil
}

// HasPair reports whether a broken and a fixed version can be built: the Go module proxy does not have crun.
func (b *Bug) HasPair() bool { return b.Fixed != "" && b.Module != "crun" }

// Counts reports whether the lab should notice the bug: a run shows it each time, and a pair can be built.
func (b *Bug) Counts() bool { return b.HasPair() && (b.Det == Deterministic || b.Det == Wrapper) }

// Variable is the variable of make that names a version of the bug's module: RUNC=1.1.11.
func (b *Bug) Variable(version string) string { return strings.ToUpper(b.Module) + "=" + version }

// Pattern returns the regular expression for go test's -run that selects the bug's questions.
func (b *Bug) Pattern() string {
	if test, subtest, ok := strings.Cut(strings.Join(b.Questions, "|"), "/"); ok {
		return "^" + test + "$/^" + subtest + "$"
	}
	return "^(" + strings.Join(b.Questions, "|") + ")$"
}

// Tests returns the tests of the bug's questions, without subtests.
func (b *Bug) Tests() []string {
	var out []string
	for _, q := range b.Questions {
		test, _, _ := strings.Cut(q, "/")
		out = append(out, test)
	}
	return out
}

// Select returns the bugs that the words name: an id, a reference, or a version such as RUNC=1.1.11, broken or fixed. Without
// words it returns all. It is an error if a word selects no bug.
func Select(bugs []Bug, words []string) ([]Bug, error) {
	if len(words) == 0 {
		return bugs, nil
	}
	var out []Bug
	used := map[string]bool{}
	for _, b := range bugs {
		names := append([]string{b.ID, b.Variable(b.Broken), b.Variable(b.Fixed)}, b.Refs...)
		selected := false
		for _, w := range words {
			if slices.Contains(names, w) {
				used[w], selected = true, true
			}
		}
		if selected {
			out = append(out, b)
		}
	}
	for _, w := range words {
		if !used[w] {
			return nil, fmt.Errorf("%s selects no released bug\n"+
				"  what to do: name an id, a reference or a version of testdata/released-bugs.toml", w)
		}
	}
	return out, nil
}
