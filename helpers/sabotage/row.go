//go:build linux

package sabotage

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"cdblab/helpers/trial"
)

// A Verdict is what the lab does with a lie.
type Verdict string

// The verdicts. Only Caught is a success. Unnoticed and NotShown are no failures.
const (
	Caught       Verdict = "caught"            // by its question, with the message
	NotCaught    Verdict = "NOT CAUGHT"        // all questions are green, or its own is skipped because of the lie
	ByAnother    Verdict = "CAUGHT BY ANOTHER" // its own question is green
	OtherMessage Verdict = "OTHER MESSAGE"     // its own question fails, and no failure has the message
	CutOff       Verdict = "CUT OFF"           // the run was ended by force, and its question had not failed
	Fault        Verdict = "NOT RUN"           // the program could not be built, or the question was not asked
	Unnoticed    Verdict = "known unnoticed"   // the table says why
	NotShown     Verdict = "not shown here"    // this machine cannot show it
)

// A Row is a lie, and what the lab did with it.
type Row struct {
	Lie     Lie
	Verdict Verdict
	By      string // the question that caught it; "" if none did
	Why     string // the failure, or what is not as it should be
}

// Failed reports whether a row makes the whole check fail.
func (r Row) Failed() bool {
	return !slices.Contains([]Verdict{Caught, Unnoticed, NotShown}, r.Verdict)
}

// Judge says what the lab does with a lie, by a run of the lie's question. shown is true if the control has answered the question:
// this machine can show it.
func Judge(l Lie, o trial.Outcome, shown bool) Row {
	finding, why := trial.Expect(o.Run, []string{l.Question}, regexp.MustCompile(l.Message)) // Read has checked it
	row := Row{Lie: l, Why: why}
	switch {
	case finding == trial.Noticed:
		row.Verdict, row.By = Caught, l.Question
	case o.CutOff != "":
		row.Verdict, row.Why = CutOff, strings.TrimSpace(o.CutOff+". "+why)
	case finding == trial.Otherwise:
		row.Verdict, row.By = OtherMessage, l.Question
	case finding == trial.NotShown && shown:
		row.Verdict, row.Why = NotCaught, "skipped because of the lie: "+why
	case finding == trial.NotShown:
		row.Verdict = NotShown
	case finding == trial.Missing:
		row.Verdict, row.Why = Fault, "the question was not asked: "+trial.LastWord(o.Run.Lines)
	case o.Code != 0: // its questions are green, and the lab itself has compared the host before and after
		row.Verdict, row.By, row.Why = ByAnother, "the lab itself", trial.LastWord(o.Run.Lines)
	default:
		row.Verdict, row.Why = NotCaught, "the question is green"
	}
	return row
}

// judgeOthers says what the other questions do with a lie that its own question has not caught, by a run of all questions.
func judgeOthers(row Row, o trial.Outcome) Row {
	if q := trial.FirstFailed(o.Run); q != nil {
		row.Verdict, row.By, row.Why = ByAnother, q.Test, trial.Failure(q)
	} else if o.Code == 0 {
		row.Why += ", and no other question fails"
	}
	return row
}

// Score says how many of the lies are caught.
func Score(rows []Row) string {
	count := map[Verdict]int{}
	for _, r := range rows {
		count[r.Verdict]++
	}
	return fmt.Sprintf("%d of %d lies caught by the question whose promise they break, with the expected message. "+
		"%d not caught, %d caught by another question, %d with another message, %d cut off, %d not run, %d known to be unnoticed. "+
		"%d more cannot be shown here.", count[Caught], len(rows)-count[NotShown],
		count[NotCaught], count[ByAnother], count[OtherMessage], count[CutOff], count[Fault], count[Unnoticed], count[NotShown])
}

// Write writes the table of the rows.
func Write(out io.Writer, rows []Row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "lie\tprogram\tquestion\tcaught by\tmessage")
	for _, r := range rows {
		by := string(r.Verdict)
		switch r.Verdict {
		case Caught:
			by = "its question"
		case ByAnother:
			by += ": " + r.By
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Lie.Name, r.Lie.Program, r.Lie.Question, by, trial.Short(r.Why))
	}
	return w.Flush()
}
