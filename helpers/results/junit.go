package results

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The elements of a JUnit report. No library that is kept writes the properties of a test case, which have question and answer:
// go-junit-report's last release is of 2023 and lacks them, and gotestsum's package is internal.
type (
	junitSuites struct {
		XMLName xml.Name `xml:"testsuites"`
		junitCount
		Suites []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string `xml:"name,attr"`
		Timestamp string `xml:"timestamp,attr,omitempty"`
		junitCount
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitCount struct {
		Tests    int    `xml:"tests,attr"`
		Failures int    `xml:"failures,attr"`
		Errors   int    `xml:"errors,attr"`
		Skipped  int    `xml:"skipped,attr"`
		Time     string `xml:"time,attr"`
	}
	junitCase struct {
		Classname  string          `xml:"classname,attr"`
		Name       string          `xml:"name,attr"`
		Time       string          `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Skipped    *junitMessage   `xml:"skipped"`
		Failure    *junitMessage   `xml:"failure"`
		Error      *junitMessage   `xml:"error"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"` // its first line, which is all that some programs show
		Text    string `xml:",cdata"`
	}
)

// WriteJUnit writes a run as a JUnit report, with a test case for each question. A run that fails as a whole, or whose stream is
// incomplete, has a further case with an error: a report without it would be green.
func WriteJUnit(w io.Writer, run *Run) error {
	suite := junitSuite{Name: "cdblab"}
	if !run.Begin.IsZero() {
		suite.Timestamp = run.Begin.UTC().Format(time.RFC3339)
	}
	if s := run.Stack; s != nil {
		suite.Properties = []junitProperty{{"kernel", s.Kernel}, {"machine", s.Machine}, {"cgroup", s.Cgroup}}
		for _, p := range s.Programs {
			suite.Properties = append(suite.Properties, junitProperty{p.Name, p.Version})
		}
	}
	for _, q := range run.Asked() {
		suite.Cases = append(suite.Cases, newJUnitCase(q))
	}
	if c := runCase(run); c != nil {
		suite.Cases = append(suite.Cases, *c)
	}
	suite.junitCount = countCases(suite.Cases, run.End.Sub(run.Begin))
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", " ")
	if err := encoder.Encode(junitSuites{junitCount: suite.junitCount, Suites: []junitSuite{suite}}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func newJUnitCase(q *Question) junitCase {
	c := junitCase{
		Classname: strings.TrimSuffix("cdblab."+q.Section(), "."), Name: q.Test, Time: seconds(q.Elapsed),
		Properties: []junitProperty{{"question", q.Text}},
	}
	if q.Answer != "" {
		c.Properties = append(c.Properties, junitProperty{"answer", q.Answer})
	}
	text := strings.Join(q.Messages(), "\n")
	switch q.Verdict {
	case Failed:
		c.Failure = newJUnitMessage(text, "the question failed without a message")
	case Skipped:
		reason := ""
		for _, s := range q.Skips() {
			reason = s.Reason
		}
		c.Skipped = newJUnitMessage(reason, "the question was skipped without a reason")
	case Unfinished:
		c.Error = newJUnitMessage(text, "the question has no verdict: the stream ends before it does")
	}
	return c
}

// runCase returns the case of the run as a whole, or nil if the questions have said everything.
func runCase(run *Run) *junitCase {
	ofQuestions := run.Verdict == Failed && run.Count(Failed) > 0 && !run.FailedAtEnd
	if len(run.Problems) == 0 && run.NotBegun() == 0 && (run.Verdict == Answered || ofQuestions) {
		return nil
	}
	text := strings.Join(slices.Concat(run.Problems, run.lastOutput()), "\n")
	return &junitCase{
		Classname: "cdblab", Name: "the run as a whole", Time: seconds(0),
		Error: newJUnitMessage(text, "the run failed without a message"),
	}
}

func newJUnitMessage(text, otherwise string) *junitMessage {
	if strings.TrimSpace(text) == "" {
		text = otherwise
	}
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return &junitMessage{Message: first, Text: text}
}

func countCases(cases []junitCase, d time.Duration) junitCount {
	count := junitCount{Tests: len(cases), Time: seconds(d)}
	for _, c := range cases {
		switch {
		case c.Failure != nil:
			count.Failures++
		case c.Error != nil:
			count.Errors++
		case c.Skipped != nil:
			count.Skipped++
		}
	}
	return count
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
