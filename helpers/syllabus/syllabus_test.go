package syllabus

import (
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
	return "// The answer.\nfunc " + name + "(t *testing.T) {\n\tq := lab.Question(t, lab.MutatesVM, \"" + text + "\")\n\t_ = q\n}\n"
}

func TestRead_ChapterOrder(t *testing.T) {
	qs, err := Read(chapter(question("TestBundle_D", "D?")))
	assert.NilError(t, err)
	var got []string
	for _, q := range qs {
		got = append(got, q.Section+" "+q.Text)
	}
	// The section's door comes before its further rooms, although their names sort before it.
	assert.DeepEqual(t, got, []string{"Bundle D?", "Lifecycle A?", "Lifecycle B?", "Events C?"})
	assert.DeepEqual(t, qs[0], Question{
		Section: "Bundle", Test: "TestBundle_D", Text: "D?", Scope: "MutatesVM", Doc: "The answer.", File: "bundle_test.go",
		Words: []string{"D?"},
	})
}

func TestRead_RefusesWhatIsNoQuestion(t *testing.T) {
	for _, bad := range []struct{ source, says string }{
		{question("TestTask_D", "D?"), "a question of this section is named TestBundle_"},
		{"// The answer.\nfunc TestBundle_D(t *testing.T) {}\n", "asks no lab.Question"},
		{"func TestBundle_D(t *testing.T) { lab.Question(t, lab.NoRoot, \"D?\") }\n", "has no doc comment"},
		{"func (", "expected"},
	} {
		_, err := Read(chapter(bad.source))
		assert.ErrorContains(t, err, bad.says)
	}
	stray := chapter("")
	stray["task_elsewhere_test.go"] = stray["task_test.go"]
	_, err := Read(stray)
	assert.ErrorContains(t, err, "task_elsewhere_test.go is no file of section Task")
	_, err = Read(fstest.MapFS{})
	assert.ErrorContains(t, err, "no chapter file bundle_test.go")
}

func TestClauses_OfASpecification(t *testing.T) {
	clauses := Clauses("## <a name=\"x\" />Kill\n`kill <id>`\n\nIt MUST [generate an error](#errors).\nIt MAY not.\n" +
		"12. The **container** MUST be `stopped`.\n")
	assert.DeepEqual(t, clauses, []string{"Kill: It MUST generate an error.", "Kill: The container MUST be stopped."})

	asks := func(body string) []Question {
		qs, err := Read(chapter("// The answer.\nfunc TestBundle_D(t *testing.T) {\n\tq := lab.Question(t, lab.MutatesVM, \"D?\")\n" + body + "}\n"))
		assert.NilError(t, err)
		return qs
	}
	both := "q.Demands(\"Kill: It MUST generate an error.\", true, \"none\")\nq.Deviates(\"Kill: The container MUST be stopped.\", \"it runs\")\n"
	table, err := ClauseTable(clauses, asks(both))
	assert.NilError(t, err)
	assert.Equal(t, table, "//   - Kill: It MUST generate an error.\n//     TestBundle_D\n"+
		"//   - Kill: The container MUST be stopped.\n//     Known deviation: it runs.\n//     TestBundle_D\n")
	_, err = ClauseTable(clauses, asks(""))
	assert.ErrorContains(t, err, "no question asks about these 2 clauses")
	_, err = ClauseTable(clauses, asks(both+"q.Proves(\"Kill: Never.\")\n"))
	assert.ErrorContains(t, err, "TestBundle_D asks about a clause that the specification does not have")
}
