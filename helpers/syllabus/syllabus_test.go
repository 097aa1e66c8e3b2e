package syllabus

import (
	"testing"
	"testing/fstest"

	"gotest.tools/v3/assert"
)

func chapter(bundle string) fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("package p\n" + s)} }
	return fstest.MapFS{
		"bundle_test.go":        file(bundle),
		"lifecycle_test.go":     file(question("TestLifecycle_A", "A?")),
		"lifecycle_aaa_test.go": file(question("TestLifecycle_B", "B?")),
		"task_test.go":          file(""),
		"events_test.go":        file(question("TestEvents_C", "C?")),
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
	assert.DeepEqual(t, qs[0], Question{"Bundle", "TestBundle_D", "D?", "MutatesVM", "The answer.", "bundle_test.go"})
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
	_, err := Read(fstest.MapFS{})
	assert.ErrorContains(t, err, "no chapter file bundle_test.go")
}
