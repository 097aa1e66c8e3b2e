package results

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// attr reads an attr event. helpers/lab writes them. The value of most keys is JSON. go test loses an attr whose line has
// more than 4096 bytes, so a long value has several events: the key of the second and later ones ends with a plus sign.
func (r *Reader) attr(e event, t *test) Change {
	key, continued := strings.CutSuffix(e.Key, "+")
	switch {
	case !continued:
		r.endNote(t)
		t.key, t.value = key, e.Value
	case key == t.key && len(t.value)+len(e.Value) <= maxLine:
		t.value += e.Value
	default: // its first part is missing, or there is no end of it
		r.broken++
		t.key = ""
		return Change{}
	}
	q := t.question
	switch key {
	case "question":
		q.Text = plainText(t.value)
		return Change{Kind: Began, Question: q}
	case "scope":
		q.Scope = plainText(t.value)
	case "source":
		q.Source = plainText(t.value)
	case "answer":
		q.Answer = plainText(t.value)
	case "covers":
		if r.keep(len(t.value)) {
			q.Covers = append(q.Covers, plainText(t.value))
		}
	case "stack":
		var s Stack
		if r.decode(t, &s) {
			r.run.Stack = s.plain()
		}
	case "step", "control":
		var s struct {
			Number int
			Text   string
		}
		if r.decode(t, &s) {
			if r.keep(len(s.Text)) {
				q.Steps = append(q.Steps, &Step{Number: s.Number, Control: key == "control", Text: plainText(s.Text), Subtest: t.path})
			}
			return Change{Kind: Stepped, Question: q}
		}
	case "command":
		var c Command
		if r.decode(t, &c) {
			r.add(t, 0, Item{Command: &Command{Shown: plainText(c.Shown), Script: plainText(c.Script)}})
		}
	case "fact":
		var f Fact
		if r.decode(t, &f) {
			r.add(t, f.Step, Item{Fact: &Fact{plainText(f.Name), plainText(f.Value), f.Step, plainData(f.Data), f.Doubt}})
		}
	case "clause":
		var c Clause
		if r.decode(t, &c) {
			r.add(t, 0, Item{Clause: &Clause{plainText(c.Text), c.Met, plainText(c.Seen)}})
		}
	case "log":
		var l Log
		if r.decode(t, &l) {
			l = Log{plainText(l.Kind), plainText(l.Text), plainText(l.At)}
			if r.add(t, 0, Item{Log: &l}) {
				q.Logs = append(q.Logs, l)
			}
			if l.Kind == "skip" && t.subtest != nil {
				t.subtest.Reason = l.Text
			}
		}
	}
	return Change{}
}

// endNote counts a note that has not been read although all its parts were.
func (r *Reader) endNote(t *test) {
	switch t.key {
	case "stack", "step", "control", "command", "fact", "clause", "log": // the other values are no JSON
		r.broken++
	}
}

// decode reads the JSON value of an attr event. It returns false for a value whose other parts are still to come.
func (r *Reader) decode(t *test, into any) bool {
	if !strings.HasSuffix(t.value, "}") {
		return false // reading a long value again with each part of it would take long
	}
	if err := json.Unmarshal([]byte(t.value), into); err != nil {
		return false
	}
	t.key = ""
	return true
}

// add adds an item to a step of a question; with number 0, to the last one. It returns false if the run can't hold more.
func (r *Reader) add(t *test, number int, item Item) bool {
	if !r.keep(len(t.value)) {
		return false
	}
	steps := t.question.Steps
	s := steps[len(steps)-1]
	if number > 0 {
		if of := t.question.Step(number); of != nil {
			s = of
		}
	}
	s.Items = append(s.Items, item)
	return true
}

// plainData returns the data of a fact with [plainText] as its keys and values.
func plainData(data any) any {
	switch data := data.(type) {
	case string:
		return plainText(data)
	case []any:
		for i := range data {
			data[i] = plainData(data[i])
		}
		return data
	case map[string]any:
		out := map[string]any{}
		for k, v := range data {
			out[plainText(k)] = plainData(v)
		}
		return out
	}
	return nil
}

// plainText returns text without what could change a terminal, or the order of the text on a page: control characters other than
// newline and tab, and characters that set the direction of writing.
func plainText(s string) string {
	plain := true
	for _, c := range s {
		if c < ' ' && c != '\n' && c != '\t' || c >= 0x7f && !unicode.IsPrint(c) || c == utf8.RuneError {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n', c == '\t', unicode.IsPrint(c):
			return c
		case c == '\u00a0': // go-cmp's differences have it among their spaces
			return ' '
		case c == '\r':
			return -1
		}
		return '�'
	}, s)
}
