//go:build linux

package mutants

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// VerdictsFile has what people have found out about survivors.
const VerdictsFile = "testdata/mutants.csv"

// A Verdict says why a mutant survives.
type Verdict struct {
	Verdict string // one of the words in verdictWords
	Reason  string
}

// The words of a verdict.
const (
	Equivalent       = "equivalent"        // it does what the program does, as far as anything can tell
	OutOfScope       = "out of scope"      // the lab cannot look at this here: CRIU, systemd
	MissingAssertion = "missing assertion" // a question has to be stricter
)

var verdictWords = []string{Equivalent, OutOfScope, MissingAssertion}

// verdictColumns are the columns of the file. There is no line number: a verdict holds for other versions as well.
var verdictColumns = []string{"file", "function", "change", "verdict", "reason"}

// Verdicts are the verdicts by file, function and change.
type Verdicts map[[3]string]Verdict

// Of returns the verdict about a mutant.
func (v Verdicts) Of(m Mutant) Verdict { return v[[3]string{m.ShortFile(), m.Func, m.Change}] }

// ReadVerdicts reads the file. A file that is missing has no verdicts.
func ReadVerdicts(path string) (Verdicts, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Verdicts{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := parseVerdicts(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

func parseVerdicts(r io.Reader) (Verdicts, error) {
	lines := csv.NewReader(r)
	lines.FieldsPerRecord = len(verdictColumns)
	rows, err := lines.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || !slices.Equal(rows[0], verdictColumns) {
		return nil, fmt.Errorf("the first line has to be %s", strings.Join(verdictColumns, ","))
	}
	v := Verdicts{}
	for i, row := range rows[1:] {
		if !slices.Contains(verdictWords, row[3]) {
			return nil, fmt.Errorf("row %d: the verdict is %q, expected one of: %s", i+2, row[3], strings.Join(verdictWords, ", "))
		}
		if row[4] == "" {
			return nil, fmt.Errorf("row %d: the verdict has no reason: say why", i+2)
		}
		key := [3]string{row[0], row[1], row[2]}
		if _, twice := v[key]; twice {
			return nil, fmt.Errorf("row %d: there is a verdict about this mutant already: remove one", i+2)
		}
		v[key] = Verdict{row[3], row[4]}
	}
	return v, nil
}
