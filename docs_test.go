//go:build linux && !vmlab

package cdblab

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"sigs.k8s.io/yaml"

	"cdblab/helpers/bundle"
	"cdblab/helpers/syllabus"
)

// specification returns the directory of the runtime specification, at the version that go.mod pins.
func specification(t *testing.T) string {
	t.Helper()
	return moduleDir(t, "github.com/opencontainers/runtime-spec")
}

// moduleDir returns the directory of a module, at the version that go.mod pins.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	assert.NilError(t, err)
	return strings.TrimSpace(string(out))
}

// moduleVersion returns the version of a module that go.mod pins, without the v.
func moduleVersion(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module).Output()
	assert.NilError(t, err)
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "v")
}

func questions(t *testing.T) []syllabus.Question {
	t.Helper()
	qs, err := syllabus.Read(os.DirFS("."))
	assert.NilError(t, err)
	return qs
}

// A question tests each MUST of the specification's runtime.md and runtime-linux.md. The table in the package documentation lists the
// questions of each clause.
func TestSpec_EveryClauseIsPutToTheTest(t *testing.T) {
	runtime, err := os.ReadFile(filepath.Join(specification(t), "runtime.md"))
	assert.NilError(t, err)
	linux, err := os.ReadFile(filepath.Join(specification(t), "runtime-linux.md"))
	assert.NilError(t, err)
	// What runtime-linux.md demands of descriptors begins with "By default", and has no MUST.
	clauses := append(syllabus.Clauses(string(runtime), "MUST"), syllabus.Clauses(string(linux), "MUST", "By default")...)
	table, err := syllabus.ClauseTable(clauses, questions(t))
	assert.NilError(t, err)
	keepInStep(t, "doc.go", "// # What runtime.md and runtime-linux.md demand\n//\n", "//\n// # ", table)
}

// A question follows each field that config.json can have for Linux to the kernel, and calls q.Covers with its path. The other
// fields are in a table of the package documentation, with the reason why no question follows them.
func TestSpec_EveryFieldIsFollowedOrLeftOutForAReason(t *testing.T) {
	followed := map[string]bool{}
	for _, q := range questions(t) {
		for _, field := range q.Covers {
			known := slices.ContainsFunc(bundle.Fields(), func(f string) bool { return f == field || strings.HasPrefix(f, field+".") })
			assert.Check(t, known, "%s covers %s, which config.json does not have", q.Test, field)
			followed[field] = true
		}
	}
	leftOut := leftOut(t)
	for _, field := range bundle.Fields() {
		covered := followed[field]
		for prefix := field; !covered && strings.Contains(prefix, "[]."); {
			// A question that follows a list's elements follows the fields of an element.
			prefix = prefix[:strings.LastIndex(prefix, "[].")+2]
			covered = followed[prefix]
			prefix = strings.TrimSuffix(prefix, "[]")
		}
		reason := leftOut[field]
		for prefix := range leftOut {
			if strings.HasSuffix(prefix, ".*") && strings.HasPrefix(field, strings.TrimSuffix(prefix, "*")) {
				reason = leftOut[prefix]
			}
		}
		assert.Check(t, covered || reason != "", "no question follows %s to the kernel, and doc.go's table gives no reason", field)
		assert.Check(t, !covered || leftOut[field] == "", "a question follows %s, and yet doc.go's table leaves it out", field)
	}
	for field := range leftOut {
		known := slices.ContainsFunc(bundle.Fields(), func(f string) bool {
			return f == field || strings.HasSuffix(field, ".*") && strings.HasPrefix(f, strings.TrimSuffix(field, "*"))
		})
		assert.Check(t, known, "doc.go's table leaves out %s, which config.json does not have", field)
	}
}

// leftOut returns the table of fields that no question follows: field → reason.
func leftOut(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	assert.NilError(t, err)
	_, rest, ok := strings.Cut(string(doc), "// # What of config.json no question follows\n")
	assert.Assert(t, ok, "doc.go has no such section")
	section, _, _ := strings.Cut(rest, "// # ")
	out := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^//   - ([a-zA-Z.\[\]*]+): (.+)$`).FindAllStringSubmatch(section, -1) {
		out[row[1]] = row[2]
	}
	return out
}

// The schema that validates the state document is the specification's own.
func TestSpec_TheSchemaIsTheSpecificationsOwn(t *testing.T) {
	for _, name := range []string{"state-schema.json", "defs.json"} {
		want, err := os.ReadFile(filepath.Join(specification(t), "schema", name))
		assert.NilError(t, err)
		got, err := os.ReadFile(filepath.Join("helpers", "schema", name))
		assert.NilError(t, err)
		assert.Check(t, cmp.Equal(string(got), string(want)), "helpers/schema/%s: copy it from the module again", name)
	}
}

// A link to a long page goes to the heading that supports the sentence. The headings are those of the versions that go.mod pins.
func TestLinks_GoToAHeading(t *testing.T) {
	modules := map[string]string{"containerd/containerd": "github.com/containerd/containerd/v2"}
	for _, name := range []string{"opencontainers/runtime-spec", "opencontainers/image-spec", "opencontainers/runc"} {
		modules[name] = "github.com/" + name
	}
	for name, module := range modules {
		dir := moduleDir(t, module)
		link := regexp.MustCompile(`https://github\.com/` + name + `/blob/main/([\w/.-]+\.md)(#[\w-]+)?`)
		for _, q := range questions(t) {
			for _, found := range link.FindAllStringSubmatch(q.Doc, -1) {
				page, err := os.ReadFile(filepath.Join(dir, found[1]))
				if os.IsNotExist(err) { // the module does not have all pages
					continue
				}
				assert.NilError(t, err)
				if found[2] == "" {
					assert.Check(t, strings.Count(string(page), "\n") < 100, "%s: %s is long: link to a heading of it", q.Test, found[0])
					continue
				}
				anchor := strings.TrimPrefix(found[2], "#")
				assert.Check(t, slices.Contains(syllabus.Anchors(string(page)), anchor), "%s: %s: the page has no such heading", q.Test, found[0])
			}
		}
	}
}

// keepInStep asserts that a file has the wanted text between two marks. `go test -update .` writes the text into the file.
func keepInStep(t *testing.T, file, from, to, want string) {
	t.Helper()
	data, err := os.ReadFile(file)
	assert.NilError(t, err)
	before, rest, ok := strings.Cut(string(data), from)
	assert.Assert(t, ok, "%s has no line %q", file, strings.TrimSpace(from))
	got, after, ok := strings.Cut(rest, to)
	assert.Assert(t, ok, "%s has no line %q after it", file, to)
	if got == want {
		return
	}
	if update := flag.Lookup("update"); update != nil && update.Value.String() == "true" {
		assert.NilError(t, os.WriteFile(file, []byte(before+from+want+to+after), 0o644))
		return
	}
	assert.Check(t, cmp.Equal(got, want), "%s is not in step with its source: go test . -update", file)
}

// Without the tag vmlab no question is asked. This test lists the questions and says how to ask them. It fails if the list cannot
// be read, or if the README has another list. `go test . -update` writes the list into the README.
func TestSyllabus(t *testing.T) {
	questions, err := syllabus.Read(os.DirFS("."))
	assert.NilError(t, err)
	t.Logf("These are the questions of the lab. None was asked: to ask them you need root in a disposable VM, and the tag vmlab.\n%s\n"+
		"To ask them:   sudo go test -tags vmlab ./...     (or make lab-here, which finds go and builds the tools)\n"+
		"To ask some:   make lab-here Q=Lifecycle\n", syllabus.Text(questions))

	keepInStep(t, "doc.go", "// # The chapter\n//\n", "//\n// A section's first question", syllabus.TopicTable())
	keepInStep(t, "README.md", "## Syllabus\n\n", "\n`make syllabus` prints", syllabus.Markdown(questions))
}

// A reader finds an answer without its question too: in facts.json, in a comparison, in a search. So an answer names what it is about.
func TestAnswers_MakeSenseWithoutTheirQuestion(t *testing.T) {
	// A pronoun without a noun before it, or a first sentence without a verb of its own.
	unclear := regexp.MustCompile(`(?i)^((yes|no)[,:.]? )?(it|they|first|then|on this kernel it|with this runtime it)\b|` +
		`^(yes|no), with [^,]*\.`)
	for _, q := range questions(t) {
		for _, answer := range q.Answers {
			assert.Check(t, cmp.Equal(unclear.FindString(answer), ""), "%s answers %q: name the thing, in a full sentence", q.Test, answer)
		}
	}
}

func TestReadme_NamesThePinnedVersions(t *testing.T) {
	keepInStep(t, "README.md", "The pinned versions are runc ", ".\n", moduleVersion(t, "github.com/opencontainers/runc")+
		" and containerd "+moduleVersion(t, "github.com/containerd/containerd/v2"))
}

// Each question defers q.Recover: a panic in a question fails that question, and the run goes on.
func TestQuestions_RecoverFromAPanic(t *testing.T) {
	asked := map[string]int{}
	for _, q := range questions(t) {
		asked[q.File]++
	}
	for name, n := range asked {
		source, err := os.ReadFile(name)
		assert.NilError(t, err)
		got := strings.Count(string(source), "\n\tdefer q.Recover()\n")
		assert.Check(t, cmp.Equal(got, n), "%s: write `defer q.Recover()` in the line after session.Question", name)
	}
}

// A job that the gate does not need may fail, and the commit is green.
func TestWorkflow_TheGateNeedsEachJob(t *testing.T) {
	text, err := os.ReadFile(".github/workflows/lab.yml")
	assert.NilError(t, err)
	var workflow struct {
		Jobs map[string]struct {
			Needs []string
			Steps []struct{ Run string }
		}
	}
	assert.NilError(t, yaml.Unmarshal(text, &workflow))
	gate := workflow.Jobs["gate"]
	delete(workflow.Jobs, "gate")
	assert.DeepEqual(t, slices.Sorted(slices.Values(gate.Needs)), slices.Sorted(maps.Keys(workflow.Jobs)))
	assert.Equal(t, len(gate.Steps), 1)
	assert.Equal(t, strings.Count(gate.Steps[0].Run, "success"), len(gate.Needs), "the gate expects a success of each job that it needs")
}

// docs/releases.md names the question of each difference by its text, its file and its test. All three may be renamed or moved.
func TestReleases_NamesTheQuestionOfEachDifference(t *testing.T) {
	data, err := os.ReadFile("docs/releases.md")
	assert.NilError(t, err)
	text := string(data)
	reference := regexp.MustCompile(`\[([^\]]+)\]\(\.\./(\w+_test\.go)\) \(` + "`(Test\\w+)`" + `\)`)
	all := questions(t)
	for _, r := range reference.FindAllStringSubmatch(text, -1) {
		i := slices.IndexFunc(all, func(q syllabus.Question) bool { return q.Test == r[3] })
		if i < 0 {
			t.Errorf("docs/releases.md names %s, and there is no such question", r[3])
			continue
		}
		assert.Check(t, cmp.DeepEqual(r[1:3], []string{all[i].Text, all[i].File}), "docs/releases.md: the text and the file of %s", r[3])
	}
	assert.Check(t, cmp.Equal(len(reference.FindAllString(text, -1)), strings.Count(text, "_test.go)")),
		"docs/releases.md has a link to a file of questions without the name of the test: [Text](../file_test.go) (`TestX`)")
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(paragraph, "**") {
			assert.Check(t, reference.MatchString(paragraph), "no question shows this difference:\n%s", paragraph)
		}
	}
	_, err = os.Stat("docs/releases-containerd.csv")
	assert.Check(t, cmp.Equal(strings.Contains(text, "The table is not recorded yet"), os.IsNotExist(err)),
		"docs/releases.md says that containerd's table is not recorded yet, until docs/releases-containerd.csv is there: %v", err)
}

func TestDocs_LinksLeadToFiles(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	assert.NilError(t, err)
	link := regexp.MustCompile(`\]\(([^)#:]+)[^):]*\)`) // not to a place in the page itself, and not to another site
	for _, page := range append(pages, "README.md", "CONTRIBUTING.md", "deploy/kubernetes/README.md") {
		text, err := os.ReadFile(page)
		assert.NilError(t, err)
		for _, l := range link.FindAllStringSubmatch(string(text), -1) {
			_, err := os.Stat(filepath.Join(filepath.Dir(page), l[1]))
			assert.Check(t, err, "%s has the link %s", page, l[1])
		}
	}
}
