//go:build linux

package sabotage

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
	"cdblab/helpers/syllabus"
	"cdblab/helpers/trial"
)

const good = `
[[lie]]
name = "kill-does-nothing"
promise = "Kill sends a signal."
program = "runc"
question = "TestLifecycle_Kill"
message = "still alive"
script = "exit 0"
`

// At least one lie for each question: a question that no lie has ever failed may be unable to fail.
func TestRead_TheTableOfTheProject(t *testing.T) {
	f, err := os.Open("../../testdata/sabotage.toml")
	assert.NilError(t, err)
	defer f.Close()
	lies, err := Read(f)
	assert.NilError(t, err)
	questions, err := syllabus.Read(os.DirFS("../.."))
	assert.NilError(t, err)
	for _, q := range questions {
		has := slices.ContainsFunc(lies, func(l Lie) bool { return l.Question == q.Test })
		assert.Check(t, has, "no lie breaks a promise of %s: add one to testdata/sabotage.toml, and try it with make sabotage Q=%[1]s", q.Test)
	}
	for _, l := range lies {
		is := slices.ContainsFunc(questions, func(q syllabus.Question) bool { return l.Question == q.Test })
		assert.Check(t, is, "the lie %s has to be caught by %s, which is no question", l.Name, l.Question)
	}
}

func TestRead_SaysWhatIsWrong(t *testing.T) {
	edit := "file = \"a/b.go\"\nold = \"x\"\nnew = \"y\""
	for _, c := range []struct{ old, new, want string }{
		{`"kill-does-nothing"`, `"Kill"`, "small letters"},
		{`promise = "Kill sends a signal."`, ``, "promise is missing"},
		{`"runc"`, `"crun"`, `program is "crun"`},
		{`"TestLifecycle_Kill"`, `"Kill"`, `question is "Kill"`},
		{`script = "exit 0"`, ``, "expected a script, or an edit"},
		{`script = "exit 0"`, "script = \"exit 0\"\n" + edit, "not both"},
		{`"runc"`, `"shim"`, "a script cannot stand for the program shim"},
		{`script = "exit 0"`, `file = "a/b.go"`, "what the edit changes"},
		{`message = "still alive"`, ``, "expected a message"},
		{`"still alive"`, `"("`, "missing closing )"},
		{`promise`, `promised`, "strict mode"},
	} {
		_, err := Read(strings.NewReader(strings.Replace(good, c.old, c.new, 1)))
		assert.Check(t, cmp.ErrorContains(err, c.want))
	}
	_, err := Read(strings.NewReader(good + good))
	assert.ErrorContains(t, err, "there twice")
	_, err = Read(strings.NewReader(strings.NewReplacer(`script = "exit 0"`, edit, `"runc"`, `"shim"`).Replace(good)))
	assert.NilError(t, err)
}

func TestSelect_ByNameAndByQuestion(t *testing.T) {
	lies := []Lie{{Name: "a", Question: "TestTask_A"}, {Name: "b", Question: "TestTask_B"}}
	for _, c := range []struct {
		words    []string
		question string
		want     string
		err      string
	}{
		{nil, "", "ab", ""}, {[]string{"a"}, "", "a", ""}, {nil, "_B$", "b", ""},
		{[]string{"c"}, "", "", "LIE=c names no lie"}, {[]string{"a"}, "_B$", "", "no lie is about a question"},
	} {
		got, err := Select(lies, c.words, regexp.MustCompile(c.question))
		names := ""
		for _, l := range got {
			names += l.Name
		}
		assert.Check(t, cmp.Equal(names, c.want))
		assert.Check(t, c.err == "" && err == nil || cmp.ErrorContains(err, c.err)().Success(), "%v", err)
	}
	assert.Equal(t, Questions(append(lies, lies...)), "^(TestTask_A|TestTask_B)$")
}

// The real program is one that prints what it is given, and the lie prints what the wrapper has read from the command line.
func TestWrapper_ReadsTheCommandLine(t *testing.T) {
	lie := Lie{Name: "show", Program: "runc", Script: `[ $verb != create ] || echo "verb $verb id $id root $root config $config"`}
	path, err := writeWrapper(filepath.Join(t.TempDir(), "it's a dir"), lie, "/bin/echo", "/no/socket")
	assert.NilError(t, err)
	for _, c := range []struct{ args, want string }{
		{"--root /r create --bundle b c1", "verb create id c1 root /r config b/config.json\n--root /r create --bundle b c1\n"},
		{"--root /r --log /l --log-format json create --bundle /b --pid-file /p c1",
			"verb create id c1 root /r config /b/config.json\n--root /r --log /l --log-format json create --bundle /b --pid-file /p c1\n"},
		{"create c1", "verb create id c1 root  config ./config.json\ncreate c1\n"},
		{"kill c1 KILL", "kill c1 KILL\n"},
		{"create --help", "create --help\n"},
	} {
		out, err := exec.Command(path, strings.Fields(c.args)...).CombinedOutput()
		assert.NilError(t, err)
		assert.Check(t, cmp.Equal(string(out), c.want))
	}
}

func TestJudge_EachVerdict(t *testing.T) {
	run := func(v results.Verdict, kind, message string) *results.Run {
		q := &results.Question{Test: "TestLifecycle_Kill", Text: "?", Verdict: v, Steps: []*results.Step{{}}}
		if message != "" {
			q.Logs = []results.Log{{Kind: kind, Text: message}}
		}
		return &results.Run{Questions: []*results.Question{q}, Lines: []string{"cdblab: the run changed the host"}}
	}
	red, green := run(results.Failed, "error", "process 7 is still alive"), run(results.Answered, "", "")
	other := run(results.Failed, "error", "no such file")
	lie := Lie{Name: "a", Question: "TestLifecycle_Kill", Message: "still alive"}
	for name, c := range map[string]struct {
		o    trial.Outcome
		want Verdict
		why  string
	}{
		"caught":                 {trial.Outcome{Run: red, Code: 1}, Caught, "process 7 is still alive"},
		"caught, and then hung":  {trial.Outcome{Run: red, CutOff: "deadline"}, Caught, "process 7"},
		"hung":                   {trial.Outcome{Run: green, Code: 137, CutOff: "deadline"}, CutOff, "deadline"},
		"another message":        {trial.Outcome{Run: other, Code: 1}, OtherMessage, "no such file"},
		"not caught":             {trial.Outcome{Run: green}, NotCaught, "green"},
		"the lab itself":         {trial.Outcome{Run: green, Code: 1}, ByAnother, "the run changed the host"},
		"skipped":                {trial.Outcome{Run: run(results.Skipped, "skip", "no criu")}, NotShown, "no criu"},
		"skipped by the lie":     {trial.Outcome{Run: run(results.Skipped, "skip", "no criu")}, NotCaught, "because of the lie: no criu"},
		"the question is absent": {trial.Outcome{Run: &results.Run{Lines: []string{"panic: x"}}, Code: 2}, Fault, "panic: x"},
	} {
		t.Run(name, func(t *testing.T) {
			row := Judge(lie, c.o, name == "skipped by the lie")
			assert.Check(t, cmp.Equal(row.Verdict, c.want))
			assert.Check(t, cmp.Contains(row.Why, c.why))
			assert.Check(t, cmp.Equal(row.Failed(), c.want != Caught && c.want != NotShown))
		})
	}
	others := Row{Lie: lie, Verdict: NotCaught}
	row := judgeOthers(others, trial.Outcome{Run: red, Code: 1})
	assert.Check(t, row.Verdict == ByAnother && row.By == "TestLifecycle_Kill", "%+v", row)
	assert.Equal(t, judgeOthers(others, trial.Outcome{Run: green}).Verdict, NotCaught)
}

func TestWrite_TheTableAndTheScore(t *testing.T) {
	rows := []Row{
		{Lie{Name: "a", Program: "runc", Question: "TestTask_A"}, Caught, "TestTask_A", "a\nb"},
		{Lie{Name: "b", Program: "ctr", Question: "TestTask_A"}, ByAnother, "TestTask_B", "c"},
		{Lie{Name: "c", Program: "shim", Question: "TestTask_A"}, NotCaught, "", "d"},
		{Lie{Name: "d", Program: "runc", Question: "TestTask_A"}, NotShown, "", "no criu"},
	}
	var out strings.Builder
	assert.NilError(t, Write(&out, rows))
	assert.Equal(t, out.String(), `lie  program  question    caught by                      message
a    runc     TestTask_A  its question                   a b
b    ctr      TestTask_A  CAUGHT BY ANOTHER: TestTask_B  c
c    shim     TestTask_A  NOT CAUGHT                     d
d    runc     TestTask_A  not shown here                 no criu
`)
	assert.Check(t, cmp.Contains(Score(rows), "1 of 3 lies caught"))
	assert.Check(t, cmp.Contains(Score(rows), "1 not caught, 1 caught by another question"))
}
