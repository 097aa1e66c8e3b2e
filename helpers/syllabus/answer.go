package syllabus

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
)

// verb is a verb of package fmt in the text of an answer.
var verb = regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z%]`)

// answer returns the text of a call q.Answer("text", values…). A run fills in the values that it has observed, and the source does
// not have them: an ellipsis stands for each. Other calls have no answer.
func answer(call *ast.CallExpr) []string {
	if !isMethod(call, "Answer") || len(call.Args) == 0 {
		return nil
	}
	text := verb.ReplaceAllStringFunc(literalParts(call.Args[0]), func(verb string) string {
		if verb == "%%" {
			return "%"
		}
		return "…"
	})
	return []string{text}
}

// literalParts returns the string literals of an expression, with an ellipsis for each other part.
func literalParts(e ast.Expr) string {
	if sum, ok := e.(*ast.BinaryExpr); ok {
		return literalParts(sum.X) + literalParts(sum.Y)
	}
	if text := literal(e); text != "" {
		return text
	}
	return "…"
}

// TextWithAnswers returns the list of questions with their answers, in the form for a terminal. A question whose answer depends
// on what a run observes has several: each is introduced by "or". A question that computes its whole answer has the first
// paragraph of its doc comment.
func TextWithAnswers(questions []Question) string {
	var b strings.Builder
	section := ""
	for _, q := range questions {
		if q.Section != section {
			section = q.Section
			fmt.Fprintf(&b, "\n%s\n", section)
		}
		answers := q.Answers
		if len(answers) == 0 {
			paragraph, _, _ := strings.Cut(q.Doc, "\n\n")
			answers = []string{paragraph}
		}
		fmt.Fprintf(&b, "\n  %s\n      %s\n", q.Text, q.Test)
		for i, a := range answers {
			if i > 0 {
				a = "or: " + a
			}
			b.WriteString(wrap(a, "      ", 100))
		}
	}
	return b.String()
}

// wrap breaks a text into lines of at most width characters after the indent.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			b.WriteString(indent + line + "\n")
			line = ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return b.String() + indent + line + "\n"
}
