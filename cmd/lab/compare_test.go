//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/compare"
	"cdblab/helpers/results"
	"cdblab/helpers/tools"
)

// stream returns the stream of a run that has tested a runc, and observed one fact.
func stream(runcDigest, value string) string {
	return fmt.Sprintf(`{"Action":"run","Test":"TestX"}
{"Action":"attr","Test":"TestX","Key":"question","Value":"What is there?"}
{"Action":"attr","Test":"TestX","Key":"stack","Value":"{\"cgroup\":\"v2\",\"programs\":[{\"name\":\"runc\",\"digest\":\"%s\"}]}"}
{"Action":"attr","Test":"TestX","Key":"fact","Value":"{\"name\":\"fifo\",\"value\":\"%s\",\"step\":0}"}
{"Action":"pass","Test":"TestX"}
{"Action":"pass"}
`, runcDigest, value)
}

// module makes a directory of the module its working directory. It has the programs that a run needs, and a make that leaves a
// stream as the results of a run.
func module(t *testing.T) *runner {
	dir := t.TempDir()
	t.Chdir(dir)
	if !slices.ContainsFunc(tools.All, func(tool tools.Tool) bool { return tool.Name == "busybox" && tool.Installed(".") }) {
		t.Skip("there is no static busybox, which each run needs; make deps installs it")
	}
	for _, env := range []string{"CDB_RUNC", "CDB_CONTAINERD", "CDB_CTR", "CDB_SHIM"} {
		program := filepath.Join(dir, env)
		assert.NilError(t, os.WriteFile(program, []byte("#!/bin/sh\n# "+env+"\n"), 0o755))
		t.Setenv(env, program)
	}
	assert.NilError(t, os.WriteFile("go.mod", []byte("module cdblab\n"), 0o644))
	return &runner{where: "here", make: filepath.Join(dir, "make")}
}

// makeLeaves writes a make that logs its arguments, and leaves a stream.
func makeLeaves(t *testing.T, stream string) {
	t.Helper()
	assert.NilError(t, os.WriteFile("next.json", []byte(stream), 0o644))
	script := `#!/bin/sh
echo "$*" >> make.log
case "$*" in *tools*) exit 0;; esac
n=$(wc -l < make.log)
mkdir -p .lab/results/$n && cp next.json .lab/results/$n/stream.json && ln -sfn $n .lab/results/latest
printf .lab/results/$n > "$LAB_RESULTS_FILE"
`
	assert.NilError(t, os.WriteFile("make", []byte(script), 0o755))
}

func calls(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("make.log")
	assert.NilError(t, err)
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func runcDigest(t *testing.T) string {
	t.Helper()
	digest, err := tools.Digest(os.Getenv("CDB_RUNC"))
	assert.NilError(t, err)
	return digest
}

func TestRunner_MakesTheSameRunOnce(t *testing.T) {
	r := module(t)
	makeLeaves(t, stream(runcDigest(t), "there"))
	want := []string{"--no-print-directory --silent tools earlier", "--no-print-directory lab-here"}
	for range 2 {
		run, err := r.run(t.Context(), "pinned")
		assert.NilError(t, err)
		assert.Equal(t, run.Questions[0].Facts()[0].Value, "there")
		assert.DeepEqual(t, calls(t), want)
	}
	// The results of all questions serve a comparison of some of them, too.
	r.questions = "X"
	_, err := r.run(t.Context(), "")
	assert.NilError(t, err)
	assert.DeepEqual(t, calls(t), want)
	// But not a comparison of some subtests: the question itself has another verdict with all of them.
	r.questions = "X/sub"
	_, err = r.run(t.Context(), "")
	assert.NilError(t, err)
	want = append(want, "--no-print-directory lab-here Q=X/sub")
	assert.DeepEqual(t, calls(t), want)
	// Another program is another run.
	r.questions = ""
	assert.NilError(t, os.WriteFile(os.Getenv("CDB_RUNC"), []byte("#!/bin/sh\n# 2\n"), 0o755))
	makeLeaves(t, stream(runcDigest(t), "gone"))
	run, err := r.run(t.Context(), "")
	assert.NilError(t, err)
	assert.Equal(t, run.Questions[0].Facts()[0].Value, "gone")
	// And -fresh makes a run again.
	r.fresh = true
	_, err = r.run(t.Context(), "")
	assert.NilError(t, err)
	assert.Equal(t, len(calls(t)), 5)
}

// Another run in this checkout may end at the same time, and the link latest leads to its results then.
func TestRunner_TakesItsOwnResults(t *testing.T) {
	r := module(t)
	makeLeaves(t, stream(runcDigest(t), "there"))
	another := "d=.lab/results; mkdir -p $d/other && sed s/there/gone/ next.json > $d/other/stream.json && ln -sfn other $d/latest\n"
	script, err := os.ReadFile("make")
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile("make", append(script, another...), 0o755))
	run, err := r.run(t.Context(), "")
	assert.NilError(t, err)
	assert.Equal(t, run.Questions[0].Facts()[0].Value, "there")
	// Its own make has left nothing.
	r.fresh = true
	fails := "#!/bin/sh\ncase $* in *tools*) exit 0;; esac\nrm -r .lab/results/latest\n" + another + "exit 2\n"
	assert.NilError(t, os.WriteFile("make", []byte(fails), 0o755))
	_, err = r.run(t.Context(), "")
	assert.ErrorContains(t, err, "make lab-here has left no results")
}

// The results may be on another disk than .lab/compare, or on one without hard links.
func TestRunner_KeepsResultsOfAnotherDisk(t *testing.T) {
	r := module(t)
	makeLeaves(t, stream(runcDigest(t), "there"))
	other, err := os.MkdirTemp("/dev/shm", "cdblab-test-")
	if err != nil || os.Link("go.mod", filepath.Join(other, "go.mod")) == nil {
		t.Skip("there is no /dev/shm beside the disk of the temporary directory")
	}
	defer os.RemoveAll(other)
	assert.NilError(t, os.Mkdir(".lab", 0o755))
	assert.NilError(t, os.Symlink(other, results.Dir))
	for range 2 {
		_, err = r.run(t.Context(), "")
		assert.NilError(t, err)
	}
	assert.Equal(t, len(calls(t)), 2, "the second time, the results are there")
}

func TestPruneCompared_RemovesWhatWasNotUsed(t *testing.T) {
	r := module(t)
	makeLeaves(t, stream(runcDigest(t), "there"))
	_, err := r.run(t.Context(), "")
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(compareDir, "index.html"), nil, 0o644))
	kept, err := filepath.Glob(filepath.Join(compareDir, "*", keyFile))
	assert.NilError(t, err)
	age := func() {
		old := time.Now().Add(-2 * time.Hour)
		assert.NilError(t, os.Chtimes(filepath.Dir(kept[0]), old, old))
	}
	age()
	_, err = r.run(t.Context(), "") // uses it
	assert.NilError(t, err)
	n, err := pruneCompared(time.Hour)
	assert.NilError(t, err)
	assert.Equal(t, n, 0)
	age()
	n, err = pruneCompared(time.Hour)
	assert.NilError(t, err)
	assert.Equal(t, n, 1)
	left, err := os.ReadDir(compareDir)
	assert.NilError(t, err)
	assert.Equal(t, len(left), 1, "the page stays")
}

func TestRunner_RefusesResultsThatAreNotOfThisRun(t *testing.T) {
	for _, row := range []struct{ name, stream, want string }{
		{"another program", stream("sha256:other", "there"), "are of other programs: they are of runc sha256:other, expected sha256:"},
		{"cut short", strings.TrimSuffix(stream("", ""), "{\"Action\":\"pass\"}\n"),
			"did not come to its end: The stream ends before the run does"},
		{"stopped VM", `{"Action":"run","Test":"TestY"}` + "\n" + strings.Replace(stream("", ""), `{"Action":"pass"}`, `{"Action":"fail"}`, 1),
			"did not come to its end: 1 questions have not ended, for example TestY"},
		{"failed VM", strings.TrimSuffix(stream("", ""), "{\"Action\":\"pass\"}\n") +
			`{"Action":"output","Output":"lab: the machine failed, so nothing is known about the tests (exit code 125)\n"}` + "\n" +
			`{"Action":"fail"}`, "did not come to its end: the machine failed"},
		{"empty", "", "did not come to its end: The stream is empty."},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := module(t)
			makeLeaves(t, row.stream)
			_, err := r.run(t.Context(), "")
			assert.ErrorContains(t, err, row.want)
			_, err = os.Stat(compareDir)
			assert.Check(t, os.IsNotExist(err), "results that are no use are kept")
		})
	}
	r := module(t)
	assert.NilError(t, os.WriteFile("make", []byte("#!/bin/sh\ncase $* in *tools*) exit 0;; esac; exit 2\n"), 0o755))
	_, err := r.run(t.Context(), "")
	assert.ErrorContains(t, err, "make lab-here has left no results in .lab/results (exit status 2)")
}

func TestRunner_RefusesWhatItDoesNotKnow(t *testing.T) {
	r := module(t)
	makeLeaves(t, "")
	for variables, want := range map[string]string{
		"CGROUP=v1":              "CDB_CGROUP=v1 is a setting of the VM",
		"KERNEL=6.12":            "CDB_KERNEL=6.12 is a setting of the VM",
		"WHERE=there":            `WHERE is "there", expected vm or here`,
		"NONSENSE=1":             "NONSENSE=1: expected a variable and its value",
		"RUNC=/no/such/file":     "/no/such/file",
		"RUNC=1.2 RUNC=1.3":      "RUNC has a value already",
		"RUNC=1.3.4 CONTAINERD=": "the value is empty",
	} {
		_, err := r.run(t.Context(), variables)
		assert.Check(t, cmp.ErrorContains(err, want), variables)
	}
}

func TestCompare_ExitCodes(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{
		"a.json": stream("sha256:1", "there"), "b.json": stream("sha256:2", "gone"),
		"other.json": strings.ReplaceAll(stream("", ""), "TestX", "TestY"), "garbage.json": "garbage\n",
		"y-differs.json":  stream("", "there") + strings.ReplaceAll(stream("", "gone"), "TestX", "TestY"),
		"y-is-there.json": stream("", "there") + strings.ReplaceAll(stream("", "there"), "TestX", "TestY"),
		"waits.json":      stream("", "there") + `{"Action":"run","Test":"TestY"}` + "\n" + `{"Action":"fail"}` + "\n",
		"hangs.json":      stream("", "there") + begun("TestY") + `{"Action":"fail"}` + "\n",
		"two-parts.json":  begun("TestX") + begun("TestX/1") + passes("TestX/1") + begun("TestX/2") + passes("TestX/2") + passes("TestX"),
		"one-part.json":   begun("TestX") + begun("TestX/1") + passes("TestX/1") + passes("TestX"),
	} {
		assert.NilError(t, os.WriteFile(name, []byte(content), 0o644))
	}
	for _, row := range []struct {
		args []string
		want int
	}{
		{[]string{"a.json", "a.json"}, exitSame},
		{[]string{"y-is-there.json", "y-differs.json"}, exitDifferent},
		{[]string{"-run", "TestX", "y-is-there.json", "y-differs.json"}, exitSame},
		{[]string{"-run", "TestX/sub|TestY", "y-is-there.json", "y-differs.json"}, exitDifferent},
		{[]string{"waits.json", "waits.json"}, exitNotCompared},
		{[]string{"hangs.json", "hangs.json"}, exitNotCompared},
		{[]string{"hangs.json", "a.json"}, exitDifferent},
		{[]string{"-run", "TestX", "hangs.json", "hangs.json"}, exitSame},
		{[]string{"two-parts.json", "one-part.json"}, exitDifferent},
		{[]string{"-run", "TestX/1", "two-parts.json", "one-part.json"}, exitSame},
		{[]string{"-html", "dir/page.html", "a.json", "b.json"}, exitDifferent},
		{[]string{"-format", "markdown", "a.json", "b.json"}, exitDifferent},
		{[]string{"-run", "Nothing", "a.json", "b.json"}, exitNotCompared},
		{[]string{"a.json", "other.json"}, exitNotCompared},
		{[]string{"a.json", "garbage.json"}, exitNotCompared},
		{[]string{"a.json", "missing.json"}, exitNotCompared},
		{[]string{"-format", "yaml", "a.json", "b.json"}, exitNotCompared},
		{[]string{"-run", "(", "a.json", "b.json"}, exitNotCompared},
		{[]string{"a.json"}, exitNotCompared},
	} {
		assert.Check(t, cmp.Equal(compareMain(row.args), row.want), "%q", row.args)
	}
	page, err := os.ReadFile("dir/page.html")
	assert.NilError(t, err)
	assert.Check(t, bytes.Contains(page, []byte("What is there?")))
}

// begun returns the events of a test or subtest that has begun, and observed a fact.
func begun(test string) string {
	return fmt.Sprintf(`{"Action":"run","Test":%[1]q}
{"Action":"attr","Test":%[1]q,"Key":"question","Value":"What is there?"}
{"Action":"attr","Test":%[1]q,"Key":"step","Value":"{\"number\":1,\"text\":\"look\"}"}
{"Action":"attr","Test":%[1]q,"Key":"fact","Value":"{\"name\":\"of %[1]s\",\"value\":\"1\",\"step\":1}"}
`, test)
}

// passes returns the event of a test or subtest that passes; with the question, the run passes.
func passes(test string) string {
	event := fmt.Sprintf("{\"Action\":\"pass\",\"Test\":%q}\n", test)
	if !strings.Contains(test, "/") {
		event += "{\"Action\":\"pass\"}\n"
	}
	return event
}

func TestCompare_SaysWhatIsWrongWithTheSelection(t *testing.T) {
	r := module(t)
	r.questions = "Lifecylce"
	assert.NilError(t, os.WriteFile("a.json", []byte(stream("", "")), 0o644))
	_, err := r.compare(t.Context(), "a.json", "a.json")
	assert.ErrorContains(t, err, `none of the 1 questions of a.json matches "Lifecylce"`)
	r.questions = "("
	_, err = r.compare(t.Context(), "", "") // before a run is made
	assert.ErrorContains(t, err, "-run: error parsing regexp")
}

// What stands beside A and B would have no effect.
func TestCompare_RefusesVariablesBesideAAndB(t *testing.T) {
	r := module(t)
	makeLeaves(t, stream(runcDigest(t), "there"))
	t.Setenv("KERNEL", "6.12")
	_, err := r.compare(t.Context(), "", "pinned")
	assert.ErrorContains(t, err, "KERNEL=6.12 stands beside A and B")
	assert.NilError(t, os.WriteFile("a.json", []byte(stream("", "there")), 0o644))
	_, err = r.compare(t.Context(), "a.json", "a.json")
	assert.NilError(t, err, "no run is made")
	_, err = r.matrix(t.Context(), []string{"pinned", "a.json"}, func(*compare.Matrix) error { return nil })
	assert.NilError(t, err, "there the variables are the lists of the matrix")
}

func TestSelection_IsThatOfGoTest(t *testing.T) {
	for _, row := range []struct {
		run       string
		has, lack []string
	}{
		{"", []string{"TestX", "TestX/a/b"}, nil},
		{"X|Y/a b", []string{"TestX", "TestX/z", "TestY", "TestY/a_b/c"}, []string{"TestZ", "TestY/a"}},
		{"X/(a|b/c)|[/|]", []string{"TestX/a", "Test|"}, []string{"TestY", "TestX/d"}},
		{`^TestX$|\|`, []string{"TestX", "Test|"}, []string{"TestXY"}},
		{"X/a/b", []string{"TestX/a", "TestX/a/b"}, []string{"TestX/b", "TestX/a/c"}},
	} {
		s, err := parseSelection(row.run)
		assert.NilError(t, err)
		for _, name := range row.has {
			assert.Check(t, s.has(name), "%q has %s", row.run, name)
		}
		for _, name := range row.lack {
			assert.Check(t, !s.has(name), "%q has not %s", row.run, name)
		}
	}
}

func TestCombinations_AreAllOfThem(t *testing.T) {
	got, err := combinations([]string{"RUNC=pinned 1.3.4", "CGROUP=v1 v2", "facts.json"})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string{"CGROUP=v1", "CGROUP=v2", "RUNC=1.3.4 CGROUP=v1", "RUNC=1.3.4 CGROUP=v2", "facts.json"})
	got, err = combinations([]string{"RUNC=pinned 1.3.4"})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string{"pinned", "RUNC=1.3.4"})
	got, err = combinations([]string{"a.json", "b.json"})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string{"a.json", "b.json"})
	_, err = combinations([]string{"RUNK=1"})
	assert.ErrorContains(t, err, "RUNK is no variable of a stack")
}

func TestMatrix_GoesOnWithoutARun(t *testing.T) {
	r := module(t)
	makeLeaves(t, stream(runcDigest(t), "there"))
	written := 0
	m, err := r.matrix(t.Context(), []string{"pinned", "RUNC=/no/such/runc"}, func(*compare.Matrix) error { written++; return nil })
	assert.NilError(t, err)
	assert.Equal(t, len(m.Missing()), 1)
	assert.Check(t, cmp.Contains(m.Missing()[0], "/no/such/runc"))
	assert.Equal(t, written, 2)
	assert.NilError(t, writeMatrix("out", m))
}

func TestMatrix_ExitCodes(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{
		"a.json": stream("sha256:1", "there"), "b.json": stream("sha256:2", "gone"),
		"other.json": strings.ReplaceAll(stream("", ""), "TestX", "TestY"),
	} {
		assert.NilError(t, os.WriteFile(name, []byte(content), 0o644))
	}
	for _, row := range []struct {
		args []string
		want int
	}{
		{[]string{"a.json", "b.json"}, exitSame},
		{[]string{"a.json", "other.json"}, exitNotCompared},           // two runs with nothing in common
		{[]string{"a.json", "b.json", "other.json"}, exitNotCompared}, // one run with nothing in common
		{[]string{"a.json", "missing.json"}, exitNotCompared},
		{[]string{"a.json"}, exitNotCompared},
	} {
		assert.Check(t, cmp.Equal(matrixMain(row.args), row.want), "%q", row.args)
	}
}
