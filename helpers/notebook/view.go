package notebook

import (
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"cdblab/helpers/results"
	"cdblab/helpers/syllabus"
)

// view is what the page shows of a run.
type view struct {
	Run      *results.Run
	Verdict  string
	Counts   string
	Begin    string
	Elapsed  string
	Sections []section
	Waiting  []string    // tests of questions whose turn had not come when the run ended
	Others   []*question // tests that are no questions
	Lines    output      // what was printed outside of questions
}

// section is a section of the chapter, with those of its questions that the run has asked.
type section struct {
	Name, About string
	Questions   []*question
}

// question is a question as the page shows it.
type question struct {
	*results.Question
	Chapter  bool // it is one of the five that the chapter itself asks
	Sign     string
	Elapsed  string
	File     string // its source file; "" if it is not known
	Counts   string // of steps, controls and facts
	Errors   []results.Log
	Skips    []results.Log
	SetUp    []block // step 0
	Rows     []row
	Pictures []picture
	Printed  output // by a question that was not answered
}

// output is the end of what was printed.
type output struct {
	Lines   []string
	Dropped int // how many lines were printed before
}

// maxLines is how many lines of an output the page has. A VM may print its whole console.
const maxLines = 1000

func endOf(lines []string) output {
	n := max(len(lines)-maxLines, 0)
	return output{lines[n:], n}
}

func newView(run *results.Run) *view {
	v := &view{
		Run: run, Verdict: words[run.Verdict], Counts: counts(run), Lines: endOf(run.Lines),
		Elapsed: duration(run.End.Sub(run.Begin)),
	}
	if !run.Begin.IsZero() {
		v.Begin = run.Begin.Format("2006-01-02 15:04:05 MST")
	}
	bySection := map[string][]*question{}
	for _, q := range run.Questions {
		if q.Text == "" && q.Verdict == results.Unfinished && len(q.Output) == 0 {
			v.Waiting = append(v.Waiting, q.Test)
			continue
		}
		if q.Text == "" {
			v.Others = append(v.Others, newQuestion(q))
			continue
		}
		bySection[q.Section()] = append(bySection[q.Section()], newQuestion(q))
	}
	for _, s := range syllabus.Sections {
		if qs := bySection[s.Name]; len(qs) > 0 {
			slices.SortStableFunc(qs, func(a, b *question) int { return a.place(s) - b.place(s) })
			v.Sections = append(v.Sections, section{s.Name, s.About, qs})
		}
		delete(bySection, s.Name)
	}
	var rest []*question
	for _, q := range run.Questions { // in the order of the run
		if qs := bySection[q.Section()]; q.Text != "" && len(qs) > 0 {
			rest = append(rest, qs...)
			delete(bySection, q.Section())
		}
	}
	if len(rest) > 0 {
		v.Sections = append(v.Sections, section{"Other", "questions of no section that this version of the lab has", rest})
	}
	v.shareScripts()
	return v
}

// minShared is from how many bytes on a script stands on the page once. The link to it has 60.
const minShared = 200

// shareScripts finds the scripts that are on the page already. A tenth of the page would be the same config.json again and again.
func (v *view) shareScripts() {
	first, shared := map[string]*command{}, 0
	for _, q := range v.questions() {
		for c := range q.commands() {
			f := first[c.Script]
			switch {
			case !c.Folded || len(c.Script) < minShared:
			case f == nil:
				first[c.Script] = c
			default:
				if f.ID == "" {
					shared++
					f.ID = fmt.Sprintf("script-%d", shared)
				}
				c.Same = f.ID
			}
		}
	}
}

// questions are the questions of all sections, in the order of the page.
func (v *view) questions() []*question {
	var out []*question
	for _, s := range v.Sections {
		out = append(out, s.Questions...)
	}
	return out
}

// commands are the commands of a question, in the order of the page.
func (q *question) commands() iter.Seq[*command] {
	return func(yield func(*command) bool) {
		all := slices.Clone(q.SetUp)
		for _, r := range q.Rows {
			if r.Experiment != nil {
				all = append(all, r.Experiment.Blocks...)
			}
			for _, c := range r.Controls {
				all = append(all, c.Blocks...)
			}
		}
		for _, b := range all {
			if b.Command != nil && !yield(b.Command) {
				return
			}
		}
	}
}

// words are the verdicts of a run in a sentence.
var words = map[results.Verdict]string{
	results.Answered:   "The run has passed.",
	results.Failed:     "The run has failed.",
	results.Skipped:    "The run was skipped.",
	results.Unfinished: "The run has not ended, or its stream is cut.",
}

// signs stand beside the verdict's word, so that colour is not the only difference.
var signs = map[results.Verdict]string{
	results.Answered: "✓", results.Failed: "✗", results.Skipped: "–", results.Unfinished: "…",
}

func counts(run *results.Run) string {
	var parts []string
	for _, v := range []results.Verdict{results.Answered, results.Failed, results.Skipped, results.Unfinished} {
		if n := run.Count(v); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, v))
		}
	}
	if len(parts) == 0 {
		return "no question was asked"
	}
	return strings.Join(parts, ", ")
}

func duration(d time.Duration) string {
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func newQuestion(q *results.Question) *question {
	out := &question{
		Question: q, Chapter: slices.Contains(syllabus.Chapter, q.Test), Sign: signs[q.Verdict], Elapsed: duration(q.Elapsed),
		Pictures: picturesOf(q),
	}
	if m := sourcePattern.FindStringSubmatch(q.Source); m != nil {
		out.File = m[1]
	}
	for _, l := range q.Logs {
		switch {
		case l.Kind == "error", l.Kind == "log" && q.Verdict == results.Failed:
			out.Errors = append(out.Errors, l)
		case l.Kind == "skip":
			out.Skips = append(out.Skips, l)
		}
	}
	if q.Verdict == results.Failed || q.Verdict == results.Unfinished {
		out.Printed = endOf(q.Output)
	}
	var steps []*results.Step
	for _, s := range q.Steps {
		if s.Number == 0 {
			out.SetUp = append(out.SetUp, blocks(s.Items)...)
		} else {
			steps = append(steps, s)
		}
	}
	out.Rows = rows(steps)
	out.Counts = strings.Join([]string{
		plural(len(steps)-q.Controls(), "step"), plural(q.Controls(), "control"), plural(len(q.Facts()), "fact"),
	}, ", ")
	return out
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// sourcePattern matches the place of a question: a file, and the line in it.
var sourcePattern = regexp.MustCompile(`^([a-z0-9_]+_test\.go):([0-9]+)$`)

// place returns a number by which questions of a section are in the order of the chapter: its own questions first, then by topic,
// and by line.
func (q *question) place(s syllabus.Section) int {
	if q.Chapter {
		return slices.Index(syllabus.Chapter, q.Test)
	}
	line := 0
	if m := sourcePattern.FindStringSubmatch(q.Source); m != nil {
		line, _ = strconv.Atoi(m[2])
	}
	topic := strings.TrimSuffix(strings.TrimPrefix(q.File, strings.ToLower(s.Name)+"_"), "_test.go")
	index := slices.Index(s.Topics, topic)
	if index < 0 {
		index = len(s.Topics)
	}
	return (index+1)*1_000_000 + min(line, 999_999)
}

// row is an experiment, and the controls that were made after it.
type row struct {
	Experiment *step
	Controls   []*step
}

// step is a step of an experiment, or a control.
type step struct {
	*results.Step
	Label  string // "1", or "control"
	Blocks []block
}

// block is a part of a step: a command, facts that follow each other, a clause, or a message.
type block struct {
	Command *command
	Facts   []*results.Fact
	Clause  *results.Clause
	Log     *results.Log
}

// command is a command as the page shows it.
type command struct {
	Shown  string // on one line
	Script string // what is copied
	Folded bool   // Script is too long for the line
	ID     string // of the script, if other commands have the same one
	Same   string // the ID of the same script, which the page has further above
}

// rows sets each control beside the step that it belongs to: the one before it. Controls before the first step stand beside that.
func rows(steps []*results.Step) []row {
	var out []row
	number := 0
	for _, s := range steps {
		shown := &step{Step: s, Label: "control", Blocks: blocks(s.Items)}
		switch last := len(out) - 1; {
		case s.Control && last >= 0:
			out[last].Controls = append(out[last].Controls, shown)
		case s.Control:
			out = append(out, row{Controls: []*step{shown}})
		default:
			number++
			shown.Label = strconv.Itoa(number)
			if last == 0 && out[0].Experiment == nil {
				out[0].Experiment = shown
			} else {
				out = append(out, row{Experiment: shown})
			}
		}
	}
	return out
}

func blocks(items []results.Item) []block {
	var out []block
	for _, item := range items {
		last := len(out) - 1
		switch {
		case item.Fact != nil && last >= 0 && out[last].Facts != nil:
			out[last].Facts = append(out[last].Facts, item.Fact)
		case item.Fact != nil:
			out = append(out, block{Facts: []*results.Fact{item.Fact}})
		case item.Command != nil:
			out = append(out, block{Command: newCommand(item.Command)})
		case item.Clause != nil:
			out = append(out, block{Clause: item.Clause})
		case item.Log != nil:
			out = append(out, block{Log: item.Log})
		}
	}
	return out
}

// maxLine is how many characters of a command the page shows before it folds the rest.
const maxLine = 240

func newCommand(c *results.Command) *command {
	shown := c.Shown
	if shown == "" {
		shown = c.Script
	}
	line, _, more := strings.Cut(shown, "\n")
	if len(line) > maxLine {
		line, more = strings.ToValidUTF8(line[:maxLine], ""), true
	}
	if more {
		line += " …"
	}
	// What only keeps a command off the reader's terminal has room on the line: hundreds of commands have it.
	folded := line != c.Script && line+" </dev/null" != c.Script
	return &command{Shown: line, Script: onFewerLines(c.Script), Folded: folded}
}

// The lines of a value of a config.json that is indented: the first and the last, and between them the members of an object, the elements
// of a list, or those of a list of strings.
var (
	jsonBegins  = regexp.MustCompile(`^\s*(?:` + jsonText + `: )?[\[{]$`)
	jsonEnds    = regexp.MustCompile(`^\s*[\]}],?$`)
	jsonMember  = regexp.MustCompile(`^\s*` + jsonText + `: ` + jsonValue + `,?$`)
	jsonElement = regexp.MustCompile(`^\s*` + jsonValue + `,?$`)
	jsonString  = regexp.MustCompile(`^\s*` + jsonText + `,?$`)
)

const (
	jsonText  = `"(?:[^"\\]|\\.)*"`
	jsonValue = `(?:` + jsonText + `|[-\w.+]+|\[.*\]|\{.*\})`
)

// onFewerLines puts each value of a config.json on one line that has room there, and each list of strings. The page shows hundreds of
// them, and a reader has to see more than their brackets. Lines of a shell script are as they were.
func onFewerLines(script string) string {
	var open [][]string // the values that have begun, and what of them was read
	var out []string
	add := func(line ...string) {
		if n := len(open); n > 0 {
			open[n-1] = append(open[n-1], line...)
		} else {
			out = append(out, line...)
		}
	}
	for line := range strings.SplitSeq(script, "\n") {
		switch n := len(open); {
		case jsonBegins.MatchString(line):
			open = append(open, []string{line})
		case n > 0 && jsonEnds.MatchString(line):
			value := append(open[n-1], line)
			open = open[:n-1]
			add(onOneLine(value)...)
		default:
			add(line)
		}
	}
	for _, unended := range open {
		out = append(out, unended...)
	}
	return strings.Join(out, "\n")
}

// onOneLine returns the lines of a value as one line, if that is JSON and has room on the page.
func onOneLine(lines []string) []string {
	const width = 140
	items, isStrings := lines[1:len(lines)-1], true
	one, isItem := lines[0], jsonMember
	if strings.HasSuffix(one, "[") {
		isItem = jsonElement
	}
	for i, item := range items {
		if !isItem.MatchString(item) || strings.HasSuffix(item, ",") != (i < len(items)-1) {
			return lines
		}
		isStrings = isStrings && jsonString.MatchString(item)
		if i > 0 {
			one += " "
		}
		one += strings.TrimSpace(item)
	}
	one += strings.TrimSpace(lines[len(lines)-1])
	if len(items) == 0 || len(one) > width && !isStrings {
		return lines
	}
	return []string{one}
}
