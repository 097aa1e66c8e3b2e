package notebook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/howto"
	"cdblab/helpers/results"
	"cdblab/helpers/syllabus"
)

func write(t testing.TB, run *results.Run) string {
	t.Helper()
	var out bytes.Buffer
	assert.NilError(t, Write(&out, run))
	return out.String()
}

func TestWrite_HasTheQuestionsInTheOrderOfTheChapter(t *testing.T) {
	page := write(t, recorded(t))
	order := regexp.MustCompile(`<article id="(\w+)"`).FindAllStringSubmatch(page, -1)
	var tests []string
	for _, m := range order {
		tests = append(tests, m[1])
	}
	assert.DeepEqual(t, tests, []string{
		"TestBundle_HowDoesContainerdsGeneratedBundleRelateToTheHandBuiltOne",
		"TestLifecycle_WhichStatesDoesAContainerPassThrough",
		"TestLifecycle_WhereDoesItLiveWhileItRuns",
		"TestLifecycle_WhoIsTheParentOfTheContainersProcess",
		"TestTask_WhoIsWhoseParent",
		"TestTask_WhatSurvivesWhenContainerdDies",
		"TestTask_WhatHappensWhenTheShimDies",
		"TestTask_WhatHappensWhenItsProcessDies",
		"TestTask_WhatIfTheTaskEndsWhileContainerdIsDown",
		"TestTask_WhereDoTheFilesComeFrom",
		"TestTask_WhereDoesAnExecGoAndWhereDoOrphansGo",
		"TestEvents_WhatCanContainerdTellUsWhileTheTaskIsRunning",
	})
}

func TestWrite_SaysWhatIsMissing(t *testing.T) {
	stream, err := os.ReadFile(picturesFile)
	assert.NilError(t, err)
	for _, c := range []struct{ name, stream, want string }{
		{"nothing", "", "The stream is empty."},
		{"no stream", "hello\n", "no line of it is an event"},
		{
			"the tests do not compile", `{"Action":"build-output","Output":"x.go:1: no such thing\n"}` + "\n" + `{"Action":"fail"}`,
			"x.go:1: no such thing",
		},
		{"cut in the middle", string(stream[:len(stream)/2]), "The stream ends before the run does"},
		{"cut in the first question", string(stream[:3000]), "This question has no verdict"},
	} {
		run, err := results.Read(strings.NewReader(c.stream))
		assert.NilError(t, err)
		page := html.UnescapeString(write(t, run))
		assert.Check(t, cmp.Contains(page, c.want), c.name)
		assert.Check(t, strings.HasSuffix(strings.TrimSpace(page), "</html>") || strings.Contains(page, "</html>"), c.name)
	}
}

// A run that was stopped names the questions that it did not ask.
func TestWrite_OfAStoppedRunTellsWhichQuestionsWaited(t *testing.T) {
	run, err := results.Read(strings.NewReader(event("run", "TestTask_Waits", "", "") + "\n" +
		event("run", "TestUnit", "", "") + "\n" + event("output", "TestUnit", "", "no question\n") + "\n"))
	assert.NilError(t, err)
	page := write(t, run)
	waiting, others := strings.Index(page, "Questions whose turn had not come"), strings.Index(page, "Tests that are no questions")
	assert.Check(t, 0 < waiting && waiting < strings.Index(page, "TestTask_Waits"))
	assert.Check(t, strings.Index(page, "TestTask_Waits") < others && others < strings.Index(page, "TestUnit"))
}

// hostile would be markup in an element, an attribute, a script, a style or a picture if it were not escaped.
const hostile = "</style></script></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"onload=alert(1) 'onclick=alert(1) " +
	"javascript:alert(1) `${alert(1)}` {{.}} --> url(http://example.com) \u202etxt.exe\u0000"

// The names and values of a run come from programs under test. Whatever they are, they are text on the page.
func TestWrite_NothingFromARunIsMarkup(t *testing.T) {
	page := write(t, spoiled(t))
	assert.Check(t, strings.Count(page, "alert(1)") > 300, "the page does not show the hostile text")
	for line := range strings.Lines(page) {
		assert.Check(t, !strings.ContainsAny(line, "\u202e\u0000"), "NUL, or a character that changes the direction of text: %q", line)
	}

	count := map[string]int{}
	for tokens := html.NewTokenizer(strings.NewReader(page)); ; {
		kind := tokens.Next()
		if kind == html.ErrorToken {
			assert.Equal(t, tokens.Err(), io.EOF)
			break
		}
		token := tokens.Token()
		if kind != html.StartTagToken && kind != html.SelfClosingTagToken {
			continue
		}
		count[token.Data]++
		for _, a := range token.Attr {
			assert.Check(t, !strings.HasPrefix(a.Key, "on"), "a handler: %s", token)
			assert.Check(t, a.Key != "style" && a.Key != "src", "the page refers to something outside, or has a style of its own: %s", token)
			if a.Key == "href" {
				assert.Check(t, strings.HasPrefix(a.Val, "#") || a.Val == "data:,", "a link: %s", token)
			}
		}
	}
	assert.DeepEqual(t, []int{count["script"], count["style"], count["meta"], count["img"], count["iframe"]}, []int{1, 1, 4, 0, 0})
}

// spoiled returns the run in testdata with hostile text in each value that a program under test could have printed.
func spoiled(t *testing.T) *results.Run {
	t.Helper()
	stream, err := os.ReadFile(picturesFile)
	assert.NilError(t, err)
	var lines []string
	for line := range strings.Lines(string(stream)) {
		lines = append(lines, spoil(t, line))
	}
	lines = append(lines, event("run", "Test"+hostile, "", ""), event("attr", "Test"+hostile, "question", hostile),
		event("attr", "Test"+hostile, "source", "javascript:alert(1)//x_test.go:1"), event("output", "", "", hostile+"\n"),
		event("run", "TestNo"+hostile, "", ""), event("output", "TestNo"+hostile, "", hostile+"\n"), hostile)
	run, err := results.Read(strings.NewReader(strings.Join(lines, "\n")))
	assert.NilError(t, err)
	return run
}

// spoil puts hostile text into the values of a line of the stream.
func spoil(t *testing.T, line string) string {
	var e map[string]any
	assert.NilError(t, json.Unmarshal([]byte(line), &e))
	value, _ := e["Value"].(string)
	var fields any
	if json.Unmarshal([]byte(value), &fields) == nil && strings.HasPrefix(value, "{") {
		data, err := json.Marshal(spoilValues(fields))
		assert.NilError(t, err)
		e["Value"] = string(data)
	} else if value != "" && e["Key"] != "source" {
		e["Value"] = value + hostile
	}
	data, err := json.Marshal(e)
	assert.NilError(t, err)
	return string(data)
}

func spoilValues(v any) any {
	switch v := v.(type) {
	case string:
		return v + hostile
	case []any:
		for i := range v {
			v[i] = spoilValues(v[i])
		}
	case map[string]any:
		for k := range v {
			if k != "name" || strings.HasPrefix(fmt.Sprint(v[k]), "+ ") { // pictures find their facts by name
				v[k] = spoilValues(v[k])
			}
		}
	}
	return v
}

func event(action, test, key, value string) string {
	data, _ := json.Marshal(map[string]any{
		"Action": action, "Test": test, "Key": key, "Value": value, "Output": value, "Time": time.Unix(0, 0),
	})
	return string(data)
}

func TestWrite_AllowsNoOtherScriptAndStyle(t *testing.T) {
	page := write(t, recorded(t))
	policy := html.UnescapeString(regexp.MustCompile(`Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(page)[1])
	assert.Check(t, strings.HasPrefix(policy, "default-src 'none'; "), policy)
	for _, element := range []string{"style", "script"} {
		text := regexp.MustCompile(`(?s)<` + element + `>(.*?)</` + element + `>`).FindStringSubmatch(page)[1]
		assert.Check(t, cmp.Contains(policy, element+"-src '"+hash(text)+"';"), "the policy does not allow the page's own %s", element)
	}
}

func TestWrite_OfAFailedQuestionShowsTheFailure(t *testing.T) {
	run := recorded(t)
	q := run.Questions[0]
	q.Verdict, q.Answer = results.Failed, ""
	q.Logs = []results.Log{{Kind: "error", Text: "expected two events\nand saw <one>", At: "events_test.go:63"}}
	q.Output = []string{"all that was printed"}
	page := write(t, run)
	article := page[strings.Index(page, `<article id="`+q.Test):]
	article = article[:strings.Index(article, "</article>")]
	for _, want := range []string{
		"<b>events_test.go:63</b> expected two events\nand saw &lt;one&gt;", "all that was printed", `<details class="experiment" open>`,
		`make lab Q='^` + q.Test + `$'`,
	} {
		assert.Check(t, cmp.Contains(article, want))
	}
}

// With the tarball there is no Makefile.
func TestWrite_InTheTarballNamesItsCommand(t *testing.T) {
	t.Setenv(howto.Env, "/opt/cdblab/cdblab")
	page := html.UnescapeString(write(t, recorded(t)))
	assert.Check(t, cmp.Contains(page, "sudo /opt/cdblab/cdblab run -run '^TestTask_WhoIsWhoseParent$'"))
	assert.Check(t, !strings.Contains(page, "make lab Q="))
}

func TestRaw_LeavesNoMarkup(t *testing.T) {
	assert.Equal(t, string(raw(`a < b && "c" > 'd'`)), `a &lt; b &amp;&amp; "c" &gt; 'd'`)
	for _, c := range raw(hostile) {
		assert.Check(t, !strings.ContainsRune("<>\x00", c), "%q", c)
	}
}

func TestValue_KeepsAVolatileValueTogether(t *testing.T) {
	assert.Equal(t, string(value("net=<namespace 4> <inner pid 1> < 5 > a b")),
		"net=&lt;namespace\u00a04&gt; &lt;inner pid\u00a01&gt; &lt; 5 &gt; a b")
}

func TestRows_SetAControlBesideTheStepBeforeIt(t *testing.T) {
	step := func(n int, control bool) *results.Step { return &results.Step{Number: n, Control: control} }
	var got []string
	for _, r := range rows([]*results.Step{step(1, true), step(2, false), step(3, false), step(4, true), step(5, true), step(6, false)}) {
		text := ""
		if r.Experiment != nil {
			text = r.Experiment.Label + ":" + fmt.Sprint(r.Experiment.Number)
		}
		for _, c := range r.Controls {
			text += fmt.Sprintf(" control:%d", c.Number)
		}
		got = append(got, text)
	}
	assert.DeepEqual(t, got, []string{"1:2 control:1", "2:3 control:4 control:5", "3:6"})
}

func TestNewCommand_FoldsWhatIsLong(t *testing.T) {
	for _, c := range []struct {
		recorded results.Command
		want     command
	}{
		{results.Command{Script: "runc state x"}, command{Shown: "runc state x", Script: "runc state x"}},
		{results.Command{Script: "cat <<END\nEND"}, command{Shown: "cat <<END …", Script: "cat <<END\nEND", Folded: true}},
		{results.Command{Shown: "runc start", Script: "runc start </dev/null"}, command{Shown: "runc start", Script: "runc start </dev/null"}},
		{results.Command{Shown: "cd q1", Script: "cd /run/q1"}, command{Shown: "cd q1", Script: "cd /run/q1", Folded: true}},
	} {
		assert.DeepEqual(t, *newCommand(&c.recorded), c.want)
	}
}

func TestOnFewerLines_IsTheSameJSONAndLeavesScriptsAlone(t *testing.T) {
	long := strings.Repeat("x", 140)
	for _, c := range []struct {
		name string
		json any
		want string
	}{
		{"all of it has room", map[string]any{"a": []any{"x, y", `"z" ]`}, "b": map[string]any{"c": 1, "d": nil}},
			`{"a": ["x, y", "\"z\" ]"], "b": {"c": 1, "d": null}}`},
		{"only the inner ones have room", map[string]any{"a": []any{map[string]any{"b": true}, map[string]any{}}, "c": long},
			"{\n\t\"a\": [{\"b\": true}, {}],\n\t\"c\": \"" + long + "\"\n}"},
		{"a list of strings", []any{long, long}, `["` + long + `", "` + long + `"]`},
		{"a list of other things", []any{long, 1}, "[\n\t\"" + long + "\",\n\t1\n]"},
	} {
		indented, err := json.MarshalIndent(c.json, "", "\t")
		assert.NilError(t, err)
		script := "cat > config.json <<'END'\n" + string(indented) + "\nEND"
		assert.Check(t, cmp.Equal(onFewerLines(script), "cat > config.json <<'END'\n"+c.want+"\nEND"), c.name)
		var got any
		assert.NilError(t, json.Unmarshal([]byte(c.want), &got))
		again, err := json.MarshalIndent(got, "", "\t")
		assert.NilError(t, err)
		assert.Check(t, cmp.Equal(string(again), string(indented)), c.name)
	}
	for _, script := range []string{
		"[ \"$a\" ]", "f() {\n\t\"$RUNC\" \"$@\"\n}", "{\n\tfalse\n}", "{\n\t\"$a\"\n}", "{\n\tfalse ||\n{\n\t\ttrue\n\t}\n}",
		"[\n]", "{\n}", "{\n\"a\": 1", "}\n]", "[\n\t\"a\",\n]", "[\n\t\"a\"\n\t\"b\"\n]",
	} {
		assert.Check(t, cmp.Equal(onFewerLines(script), script))
	}
}

func TestOnFewerLines_ChangesNothingButWhiteSpaceInARealRun(t *testing.T) {
	packed := func(s string) string { return strings.Join(strings.Fields(s), "") }
	changed := 0
	for _, q := range recordedWhole(t).Questions {
		for _, s := range q.Steps {
			for _, item := range s.Items {
				if item.Command == nil {
					continue
				}
				before := item.Command.Script
				after := onFewerLines(before)
				assert.Check(t, cmp.Equal(packed(after), packed(before)), q.Test)
				if after != before {
					changed++
					assert.Check(t, cmp.Contains(before, ".json"), q.Test)
				}
			}
		}
	}
	assert.Check(t, changed > 500, "%d scripts", changed)
}

// A script that several commands have is on the page once. The others lead to it, also in a browser that runs no scripts.
func TestWrite_HasALongScriptOnce(t *testing.T) {
	run := recordedWhole(t)
	page := write(t, run)
	scripts := map[string]bool{} // IDs
	for _, m := range regexp.MustCompile(`<pre tabindex="0" id="(script-\d+)">|href="#(script-\d+)"`).FindAllStringSubmatch(page, -1) {
		if m[1] != "" {
			assert.Check(t, !scripts[m[1]], "two scripts are %s", m[1])
			scripts[m[1]] = true
		}
		assert.Check(t, m[2] == "" || scripts[m[2]], "a link leads to %s, which is not above it", m[2])
	}
	count := map[string]int{}
	for _, q := range newView(run).questions() {
		for c := range q.commands() {
			if c.Folded && c.Same == "" && len(c.Script) >= minShared {
				count[c.Script]++
				assert.Check(t, cmp.Equal(count[c.Script], 1), c.Script)
			}
		}
	}
	assert.Check(t, len(scripts) > 10, "%d scripts are shared", len(scripts))
}

// The page of all questions is small enough to be sent by mail. The recorded run has the proportions of a real one: half of its page are
// the scripts that a reader copies. If the lab has more questions by now, the page is larger by as much.
func TestWrite_OfAllQuestionsIsSmall(t *testing.T) {
	const limit = 3_000_000
	all, err := syllabus.Read(os.DirFS(checkout))
	assert.NilError(t, err)
	run := recordedWhole(t)
	size := len(write(t, run)) * len(all) / len(run.Questions)
	assert.Check(t, size < limit, "the page of %d questions has %d bytes, and %d are allowed", len(all), size, limit)
}
