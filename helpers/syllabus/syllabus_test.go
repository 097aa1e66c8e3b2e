package syllabus

import (
	"os"
	"slices"
	"testing"
	"testing/fstest"

	"gotest.tools/v3/assert"
)

func chapter(bundle string) fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("package p\n" + s)} }
	return fstest.MapFS{
		"bundle_test.go":         file(bundle),
		"lifecycle_test.go":      file(question("TestLifecycle_A", "A?")),
		"lifecycle_kill_test.go": file(question("TestLifecycle_B", "B?")),
		"task_test.go":           file(""),
		"events_test.go":         file(question("TestEvents_C", "C?")),
	}
}

func question(name, text string) string {
	return "// The answer.\nfunc " + name + "(t *testing.T) {\n\tq := session.Question(t, lab.MutatesVM, \"" + text + "\")\n\t_ = q\n}\n"
}

func TestRead_ListsQuestionsInTheOrderOfTheChapter(t *testing.T) {
	qs, err := Read(chapter(question("TestBundle_D", "D?")))
	assert.NilError(t, err)
	var got []string
	for _, q := range qs {
		got = append(got, q.Section+" "+q.Text)
	}
	// The section's first file comes before its topics, although their names are sorted before it.
	assert.DeepEqual(t, got, []string{"Bundle D?", "Lifecycle A?", "Lifecycle B?", "Events C?"})
	assert.DeepEqual(t, qs[0], Question{
		Section: "Bundle", Test: "TestBundle_D", Text: "D?", Scope: "MutatesVM", Doc: "The answer.", File: "bundle_test.go",
	})
}

func TestChapter_HasQuestionsOfTheSyllabus(t *testing.T) {
	questions, err := Read(os.DirFS("../.."))
	assert.NilError(t, err)
	for _, test := range Chapter {
		assert.Check(t, slices.ContainsFunc(questions, func(q Question) bool { return q.Test == test }), "the syllabus has no %s", test)
	}
	for _, section := range Sections { // the first question of a section is the chapter's own
		first := questions[slices.IndexFunc(questions, func(q Question) bool { return q.Section == section.Name })].Test
		assert.Check(t, slices.Contains(Chapter, first), "the chapter has no %s", first)
	}
}

func TestRead_RefusesFilesAndTestsThatAreNoQuestions(t *testing.T) {
	for _, bad := range []struct{ source, wantError string }{
		{question("TestTask_D", "D?"), "a question of this section is named TestBundle_"},
		{"// The answer.\nfunc TestBundle_D(t *testing.T) {}\n", "asks no session.Question"},
		{"func TestBundle_D(t *testing.T) { session.Question(t, lab.NoRoot, \"D?\") }\n", "has no doc comment"},
		{"func (", "expected"},
		{deviates("seen"), "bundle_test.go: TestBundle_D: DeviatesUnless of the clause \"Kill: It MUST.\": expected the deviation as a string"},
		{deviates("\"ignored: \"+strings.Join(ignored, \" \")"), "expected the deviation as a string literal"},
	} {
		_, err := Read(chapter(bad.source))
		assert.ErrorContains(t, err, bad.wantError)
	}
	stray := chapter("")
	stray["task_elsewhere_test.go"] = stray["task_test.go"]
	_, err := Read(stray)
	assert.ErrorContains(t, err, "task_elsewhere_test.go is no file of section Task")
	_, err = Read(fstest.MapFS{})
	assert.ErrorContains(t, err, "no chapter file bundle_test.go")
}

// deviates returns the source of a question that records a known deviation, with the expression as what is seen.
func deviates(seen string) string {
	return "// The answer.\nfunc TestBundle_D(t *testing.T) {\n\tq := session.Question(t, lab.NoRoot, \"D?\")\n" +
		"\tq.Clause(\"Kill: It MUST.\", lab.DeviatesUnless(false, " + seen + "))\n}\n"
}

func TestClauseTable_ListsTheQuestionsOfEachClause(t *testing.T) {
	clauses := Clauses("## <a name=\"x\" />Kill\n`kill <id>`\n\nIt MUST [generate an error](#errors).\nIt MAY not.\n"+
		"12. The **container** MUST be `stopped`.\nBy default, it is not.\n", "MUST")
	assert.DeepEqual(t, clauses, []string{"Kill: It MUST generate an error.", "Kill: The container MUST be stopped."})
	assert.DeepEqual(t, Clauses("# Files\nBy default, none.\nIt MUST.\nIt MAY.\n", "MUST", "By default"),
		[]string{"Files: By default, none.", "Files: It MUST."})

	asks := func(body string) []Question {
		qs, err := Read(chapter("// The answer.\nfunc TestBundle_D(t *testing.T) {\n" +
			"\tq := session.Question(t, lab.MutatesVM, \"D?\")\n" + body + "}\n"))
		assert.NilError(t, err)
		return qs
	}
	both := "q.Clause(\"Kill: It MUST \"+\"generate an error.\", lab.MetIf(true, \"none\"))\n" +
		"q.Clause(\"Kill: The container MUST be stopped.\", lab.DeviatesUnless(false, \"it runs\"))\n" +
		"q.Clause(\"Kill: The container MUST be stopped.\", lab.DeviatesUnless(false, \"it is \"+\"paused\"))\n"
	table, err := ClauseTable(clauses, asks(both))
	assert.NilError(t, err)
	assert.Equal(t, table, "//   - Kill: It MUST generate an error.\n//     TestBundle_D\n"+
		"//   - Kill: The container MUST be stopped.\n//     Known deviation: it runs.\n//     Known deviation: it is paused.\n"+
		"//     TestBundle_D\n")
	_, err = ClauseTable(clauses, asks(""))
	assert.ErrorContains(t, err, "no question asks about these 2 clauses")
	_, err = ClauseTable(clauses, asks(both+"q.Clause(\"Kill: Never.\", lab.Met)\n"))
	assert.ErrorContains(t, err, "TestBundle_D asks about a clause that the specification does not have")
}

func TestAnchors_AreThoseOfGitHub(t *testing.T) {
	const page = "# <a name=\"lifecycle\" />The `life` cycle\ntext\n## shim/engine, [A link](#x): it's _for_ 1_2\n## The modes ##\n"
	assert.DeepEqual(t, Anchors(page), []string{"lifecycle", "the-life-cycle", "shimengine-a-link-its-for-1_2", "the-modes"})
}

// Read finds the fields in calls of q.Covers, and in the tables and functions that the question uses.
func TestRead_FindsFieldsInTheQuestionAndInItsTables(t *testing.T) {
	qs, err := Read(chapter("// The answer.\nfunc TestBundle_D(t *testing.T) {\n\tq := session.Question(t, lab.MutatesVM, \"D?\")\n" +
		"q.Covers(\"hostname\")\nfor _, r := range rows { q.Covers(r.fields...) }\nuse(moreRows())\n}\n" +
		"var rows = []row{{lab.Fields{\"process.cwd\", \"process.env\"}}}\n" +
		"func moreRows() lab.Fields { return lab.Fields{\"root.path\"} }\n" +
		"var unused = lab.Fields{\"domainname\"}\n"))
	assert.NilError(t, err)
	assert.DeepEqual(t, qs[0].Covers, []string{"hostname", "process.cwd", "process.env", "root.path"})
}
