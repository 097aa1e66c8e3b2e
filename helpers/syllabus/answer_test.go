package syllabus

import (
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// answered returns a question of the section Bundle whose body ends with these lines.
func answered(body string) string {
	return "// The answer\n// of the comment.\n//\n// Hint: none.\nfunc TestBundle_D(t *testing.T) {\n" +
		"\tq := session.Question(t, lab.MutatesVM, \"D?\")\n" + body + "}\n"
}

func TestRead_FindsTheAnswersWithAnEllipsisForEachValue(t *testing.T) {
	for body, want := range map[string][]string{
		`q.Answer("Yes: " + "it is.")`:                       {"Yes: it is."},
		`q.Answer("At %d of %q, 100 %%.", at, name)`:         {"At … of …, 100 %."},
		`q.Answer("It runs at " + at + ".")`:                 {"It runs at …."},
		`if x { q.Answer("Yes.") } else { q.Answer("No.") }`: {"Yes.", "No."},
		`q.Answer(text)`:                                     {"…"},
		`q.Fact("subject: attribute", "no answer")`:          nil,
	} {
		qs, err := Read(chapter(answered(body)))
		assert.NilError(t, err)
		assert.Check(t, cmp.DeepEqual(qs[0].Answers, want), body)
	}
}

func TestTextWithAnswers_HasAnAnswerBelowEachQuestion(t *testing.T) {
	qs, err := Read(chapter(answered(`if x { q.Answer("Yes.") } else { q.Answer("No.") }`)))
	assert.NilError(t, err)
	assert.Equal(t, TextWithAnswers(qs[:1]), "\nBundle\n\n  D?\n      TestBundle_D\n      Yes.\n      or: No.\n")
	qs, err = Read(chapter(answered("")))
	assert.NilError(t, err)
	assert.Equal(t, TextWithAnswers(qs[:1]), "\nBundle\n\n  D?\n      TestBundle_D\n      The answer of the comment.\n")
}

func TestWrap_BreaksLinesBetweenWords(t *testing.T) {
	assert.Equal(t, wrap("one two\nthree äöü four", "  ", 9), "  one two\n  three äöü\n  four\n")
}
