package released

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"cdblab/helpers/results"
	"cdblab/helpers/trial"
)

// A Verdict is what the lab does with a bug.
type Verdict string

// The verdicts. Only Noticed is a success. Unnoticed and NotShown are no failures.
const (
	Noticed   Verdict = "noticed"         // red with the broken version for the right reason, green with the fixed one
	Missed    Verdict = "MISSED"          // green with the broken version, or skipped with this one alone
	Wrong     Verdict = "WRONG REASON"    // red with the broken version, and no failure has the message
	FixedRed  Verdict = "FIXED IS RED"    // red with the fixed version
	Fault     Verdict = "NOT RUN"         // a version could not be built, or a run did not come to its end
	Unnoticed Verdict = "known unnoticed" // the table says why
	NotShown  Verdict = "not shown here"  // this machine cannot show it
)

// A Row is a bug, and what the lab did with it.
type Row struct {
	Bug     Bug
	Verdict Verdict
	Why     string // the failure with the broken version, or what is not as it should be
}

// A Runner asks the questions of a bug with one version of its module, and returns what the run observed.
type Runner func(ctx context.Context, b Bug, version string) (*results.Run, error)

// Check runs one bug after the other. progress is called after each. cgroupV2 is true if the runs have cgroup v2 with all
// controllers.
func Check(ctx context.Context, bugs []Bug, cgroupV2 bool, run Runner, progress func(Row)) []Row {
	var rows []Row
	for _, b := range bugs {
		if ctx.Err() != nil {
			break
		}
		row := Row{Bug: b}
		switch {
		case b.Unnoticed != "":
			row.Verdict, row.Why = Unnoticed, b.Unnoticed
		case b.Needs == NeedsV2 && !cgroupV2:
			row.Verdict, row.Why = NotShown, "it needs cgroup v2: WHERE=vm has it"
		case b.Needs == NeedsV1 && cgroupV2:
			row.Verdict, row.Why = NotShown, "it needs cgroup v1: CGROUP=v1 WHERE=vm has it"
		default:
			row.Verdict, row.Why = check(ctx, b, run)
		}
		rows = append(rows, row)
		progress(row)
	}
	return rows
}

// check runs both versions of a bug.
func check(ctx context.Context, b Bug, run Runner) (Verdict, string) {
	var runs [2]*results.Run
	for i, version := range []string{b.Broken, b.Fixed} {
		var err error
		if runs[i], err = run(ctx, b, version); err != nil {
			return Fault, fmt.Sprintf("%s: %v", b.Variable(version), err)
		}
	}
	return Judge(b, runs[0], runs[1])
}

// Judge says what the lab does with a bug, and why, by the runs with the broken and with the fixed version.
func Judge(b Bug, broken, fixed *results.Run) (Verdict, string) {
	var answered []string // with the fixed version
	skipped := ""
	for _, name := range b.Tests() {
		q := fixed.Question(name)
		switch {
		case q == nil:
			return Fault, "no question has the name " + name
		case q.Verdict == results.Skipped:
			skipped = cmp.Or(skipped, trial.SkipReason(q))
		case q.Verdict != results.Answered:
			return FixedRed, fmt.Sprintf("%s: %s", name, strings.Join(q.Messages(), "\n"))
		default:
			answered = append(answered, name)
		}
	}
	if len(answered) == 0 {
		return NotShown, skipped
	}
	if fixed.Verdict != results.Answered { // the lab has compared the host before and after
		return FixedRed, "the lab itself: " + trial.LastWord(fixed.Lines)
	}
	finding, why := trial.Expect(broken, answered, regexp.MustCompile(b.Message)) // Read has checked it
	switch finding {
	case trial.Noticed:
		return Noticed, why
	case trial.Otherwise:
		return Wrong, why
	case trial.NotShown:
		return Missed, fmt.Sprintf("skipped with %s, answered with %s: %s", b.Broken, b.Fixed, why)
	case trial.Missing:
		return Fault, why
	}
	if skipped != "" {
		return NotShown, skipped // that question may notice it elsewhere
	}
	return Missed, "all of its questions are green with " + b.Broken
}

// Failed reports whether a row makes the whole check fail.
func (r Row) Failed() bool {
	return slices.Contains([]Verdict{Missed, Wrong, FixedRed, Fault}, r.Verdict)
}

// Score says how many of the bugs that could be shown are noticed, and how many of those that a run shows each time.
func Score(rows []Row) string {
	count := map[Verdict]int{}
	certain, noticed := 0, 0
	for _, r := range rows {
		count[r.Verdict]++
		if r.Bug.Counts() && r.Verdict != NotShown {
			certain++
			if r.Verdict == Noticed {
				noticed++
			}
		}
	}
	shown := len(rows) - count[NotShown]
	return fmt.Sprintf("%d of %d released bugs noticed: red with the broken version for the right reason, green with the fixed one. "+
		"%d missed, %d red for another reason, %d red with the fixed version, %d not run, %d known to be unnoticed. "+
		"%d more cannot be shown here.\n"+
		"Of the bugs that a run shows each time (D and W), and of which both versions can be built: %d of %d noticed, %d %%.",
		count[Noticed], shown, count[Missed], count[Wrong], count[FixedRed], count[Fault], count[Unnoticed], count[NotShown],
		noticed, certain, 100*noticed/max(certain, 1))
}

// Write writes the table of the rows.
func Write(out io.Writer, rows []Row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "bug\tdet\tmodule\tbroken\tfixed\tverdict\twhy")
	for _, r := range rows {
		b := r.Bug
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.ID, b.Det, b.Module, b.Broken, cmp.Or(b.Fixed, "none"), r.Verdict, trial.Short(r.Why))
	}
	return w.Flush()
}
