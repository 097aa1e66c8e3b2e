package results

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	// Version 2 of encoding/json. It is several times as fast where a part of the file is left as it is, and a fleet has gigabytes.
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Format is the number of the format of facts.json. It changes when an older lab would misunderstand a newer file.
const Format = 1

// factsFile is what facts.json has of a run: nothing that differs between two runs of the same stack, such as times and paths.
// So the file can be committed, and its difference can be read.
type factsFile struct {
	Format int         `json:"format"`
	Stack  *factsStack `json:"stack,omitempty"`
	// FailedAtEnd is that of [Run]. A lab that does not know the key reads the rest.
	FailedAtEnd bool            `json:"failedAtEnd,omitempty"`
	Questions   []factsQuestion `json:"questions"`
}

type factsStack struct {
	Kernel   string         `json:"kernel"`
	Machine  string         `json:"machine"`
	Cgroup   string         `json:"cgroup"`
	Chapter  string         `json:"chapter,omitempty"`
	Programs []factsProgram `json:"programs"`
	Node     pairs          `json:"node,omitempty"`
}

// factsProgram is a [Program] without its path, which belongs to one machine.
type factsProgram struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Pinned  bool   `json:"pinned"`
	Package string `json:"package,omitempty"`
}

type factsQuestion struct {
	Test    string         `json:"test"`
	Text    string         `json:"question"`
	Verdict Verdict        `json:"verdict"`
	Answer  string         `json:"answer,omitempty"`
	Others  []factsSubtest `json:"subtests,omitempty"` // those that were not answered
	Steps   []factsStep    `json:"steps"`
}

type factsSubtest struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
}

type factsStep struct {
	Number  int      `json:"number"`
	Control bool     `json:"control,omitempty"`
	Text    string   `json:"text,omitempty"`
	Subtest string   `json:"subtest,omitempty"`
	Facts   pairs    `json:"facts,omitempty"`
	Doubt   []string `json:"doubt,omitempty"` // names of those facts that are in doubt: see [Fact]
	Clauses []Clause `json:"clauses,omitempty"`
}

// pairs are names with values. In the file they are one object, in their order, so that a fact is one line.
type pairs [][2]string

// WriteFacts writes the facts.json of a run.
func WriteFacts(w io.Writer, run *Run) error {
	file := factsFile{Format: Format, FailedAtEnd: run.FailedAtEnd, Questions: []factsQuestion{}}
	if s := run.Stack; s != nil {
		file.Stack = &factsStack{Kernel: s.Kernel, Machine: s.Machine, Cgroup: s.Cgroup, Chapter: s.Chapter}
		for _, p := range s.Programs {
			file.Stack.Programs = append(file.Stack.Programs, factsProgram{p.Name, p.Version, p.Digest, p.Pinned, p.Package})
		}
		for _, p := range s.Node {
			file.Stack.Node = append(file.Stack.Node, [2]string{p.Name, p.Value})
		}
	}
	for _, q := range run.Asked() {
		file.Questions = append(file.Questions, newFactsQuestion(q))
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // the file is read by people as well
	encoder.SetIndent("", " ")
	return encoder.Encode(file)
}

func newFactsQuestion(q *Question) factsQuestion {
	out := factsQuestion{Test: q.Test, Text: q.Text, Verdict: q.Verdict, Answer: q.Answer, Steps: []factsStep{}}
	for _, s := range q.Subtests {
		if s.Verdict != Answered {
			out.Others = append(out.Others, factsSubtest{s.Name, s.Verdict})
		}
	}
	for _, s := range q.Steps {
		step := factsStep{Number: s.Number, Control: s.Control, Text: s.Text, Subtest: s.Subtest}
		for _, item := range s.Items {
			if item.Fact != nil {
				step.Facts = append(step.Facts, [2]string{item.Fact.Name, item.Fact.Value})
				if item.Fact.Doubt {
					step.Doubt = append(step.Doubt, item.Fact.Name)
				}
			}
			if item.Clause != nil {
				step.Clauses = append(step.Clauses, *item.Clause)
			}
		}
		if s.Number > 0 || len(step.Facts)+len(step.Clauses) > 0 {
			out.Steps = append(out.Steps, step)
		}
	}
	return out
}

// readFacts reads a facts.json. What the file lacks stays empty: commands, messages, times. The function reads a question.
func readFacts(data []byte, question func([]byte) (*Question, error)) (*Run, error) {
	var file struct {
		Format      int              `json:"format"`
		Stack       *factsStack      `json:"stack"`
		FailedAtEnd bool             `json:"failedAtEnd"`
		Questions   []jsontext.Value `json:"questions"`
	}
	// Two facts may have the same name. The rest of the lab reads JSON by encoding/json, which allows both.
	err := jsonv2.Unmarshal(data, &file, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	isObject := bytes.HasPrefix(bytes.TrimSpace(data), []byte("{"))
	if syntax := (*jsontext.SyntacticError)(nil); errors.As(err, &syntax) || err != nil && !isObject {
		return nil, fmt.Errorf("it is no JSON, or it is cut short: %w", err)
	}
	if file.Format != Format {
		return nil, fmt.Errorf("it has format %d, and this lab reads format %d\n  what to do: if the run's %s is there, "+
			"make the file again with this lab: lab report DIRECTORY; otherwise read it with the lab that has written it",
			file.Format, Format, StreamFile)
	}
	run := &Run{Verdict: Answered, FailedAtEnd: file.FailedAtEnd}
	if run.FailedAtEnd {
		run.Verdict = Failed
	}
	if s := file.Stack; s != nil {
		stack := Stack{Kernel: s.Kernel, Machine: s.Machine, Cgroup: s.Cgroup, Chapter: s.Chapter}
		for _, p := range s.Programs {
			stack.Programs = append(stack.Programs,
				Program{Name: p.Name, Version: p.Version, Digest: p.Digest, Pinned: p.Pinned, Package: p.Package})
		}
		for _, p := range s.Node {
			stack.Node = append(stack.Node, Property{p[0], p[1]})
		}
		run.Stack = stack.plain()
	}
	for _, raw := range file.Questions {
		q, questionErr := question(raw)
		if err = errors.Join(err, questionErr); err != nil {
			break
		}
		run.Questions = append(run.Questions, q)
		if q.Verdict == Failed || q.Verdict == Unfinished {
			run.Verdict = q.Verdict
		}
	}
	if err != nil {
		return nil, fmt.Errorf("it is no facts.json of format %d: %w", Format, err)
	}
	return run, nil
}

// readQuestion reads a question of a facts.json.
func readQuestion(data []byte) (*Question, error) {
	var q factsQuestion
	if err := json.Unmarshal(data, &q); err != nil {
		return nil, err
	}
	return q.question(), nil
}

// question returns the question. The file may come from anywhere, so no text of it may change a terminal.
func (q factsQuestion) question() *Question {
	out := &Question{
		Test: plainText(q.Test), Text: plainText(q.Text), Verdict: Verdict(plainText(string(q.Verdict))), Answer: plainText(q.Answer),
		Steps: []*Step{{}},
	}
	for _, s := range q.Others {
		out.Subtests = append(out.Subtests, &Subtest{Name: plainText(s.Name), Verdict: Verdict(plainText(string(s.Verdict)))})
	}
	for _, s := range q.Steps {
		step := out.Steps[0]
		if s.Number > 0 {
			step = &Step{Number: s.Number, Control: s.Control, Text: plainText(s.Text), Subtest: plainText(s.Subtest)}
			out.Steps = append(out.Steps, step)
		}
		for _, f := range s.Facts {
			step.Items = append(step.Items, Item{Fact: &Fact{
				Name: plainText(f[0]), Value: plainText(f[1]), Step: s.Number, Doubt: slices.Contains(s.Doubt, f[0]),
			}})
		}
		for _, c := range s.Clauses {
			step.Items = append(step.Items, Item{Clause: &Clause{plainText(c.Text), c.Met, plainText(c.Seen)}})
		}
	}
	return out
}

// MarshalJSON writes the pairs as an object.
func (p pairs) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, pair := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		_ = encoder.Encode(pair[0]) // a string can always be encoded
		b.WriteByte(':')
		_ = encoder.Encode(pair[1])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads an object in the order in which it is written. Two pairs may have the same name.
func (p *pairs) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	var words []string
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		word, ok := token.(string)
		if !ok && token != json.Delim('{') && token != json.Delim('}') {
			return fmt.Errorf("facts are names with strings, and not %v", token)
		}
		if ok {
			words = append(words, word)
		}
	}
	if len(words)%2 != 0 {
		return errors.New("a fact has no value")
	}
	for pair := range slices.Chunk(words, 2) {
		*p = append(*p, [2]string{pair[0], pair[1]})
	}
	return nil
}
