package fleet

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/fs"

	"cdblab/helpers/results"
)

func read(t *testing.T, stdin string, args ...string) (nodes []Node, problems string) {
	t.Helper()
	nodes, found := Read(&results.Cache{}, strings.NewReader(stdin), args...)
	var out []string
	for _, p := range found {
		out = append(out, p.String())
	}
	return nodes, strings.Join(out, "\n")
}

// withoutPath replaces the path of a directory. Results that were found below it have its real path, and TMPDIR may be a link.
func withoutPath(t *testing.T, s string, dir *fs.Dir) string {
	t.Helper()
	real, err := filepath.EvalSymlinks(dir.Path())
	assert.NilError(t, err)
	return strings.ReplaceAll(strings.ReplaceAll(s, real, "$"), dir.Path(), "$")
}

// fifo makes a FIFO, whose reading would never end.
func fifo(name string) fs.PathOp {
	return func(p fs.Path) error { return syscall.Mkfifo(filepath.Join(p.Path(), name), 0o644) }
}

func line(t *testing.T, node string, run *results.Run) string {
	t.Helper()
	var b bytes.Buffer
	assert.NilError(t, WriteLine(&b, node, factsOf(t, run)))
	assert.Equal(t, strings.Count(b.String(), "\n"), 1)
	return b.String()
}

func TestRead_NamesANodeByItsPath(t *testing.T) {
	facts := fs.WithBytes(factsOf(t, run(question("TestX", "x", "1"))))
	result := []fs.PathOp{fs.WithFile("facts.json", "", facts), fs.WithFile("stream.json", "{}")}
	dir := fs.NewDir(t, "fleet",
		fs.WithDir("ubuntu-24.04", fs.WithDir("2026-11-26T21-00-47.2", result...), fs.WithSymlink("latest", "2026-11-26T21-00-47.2")),
		fs.WithDir("rack1", fs.WithDir("node-1", result...), fs.WithFile("node-2.json", "", facts), fs.WithFile("package.json", "{}")),
		fs.WithDir("logs", fs.WithFile("pod-1.log", line(t, "node-3", run(question("TestX")))), fs.WithFile("README", "what this is")),
		fs.WithDir("twice", fs.WithDir("2026-11-26T21-00-47", result...), fs.WithDir("2026-11-26T21-00-48", result...)),
	)
	for arg, want := range map[string][]string{
		"": {"node-3", "rack1/node-1", "rack1/node-2", "twice ($/twice/2026-11-26T21-00-47/facts.json)",
			"twice ($/twice/2026-11-26T21-00-48/facts.json)", "ubuntu-24.04"},
		"ubuntu-24.04":                       {"2026-11-26T21-00-47.2"},
		"ubuntu-24.04/latest":                {"latest"},
		"ubuntu-24.04/2026-11-26T21-00-47.2": {"2026-11-26T21-00-47.2"},
		"rack1/node-1":                       {"node-1"},
		"rack1/node-1/facts.json":            {"node-1"},
		"rack1/node-2.json":                  {"node-2"},
	} {
		nodes, problems := read(t, "", dir.Join(arg))
		assert.Equal(t, problems, "")
		got := withoutPath(t, strings.Join(sortedNames(nodes), "\n"), dir)
		assert.Check(t, cmp.Equal(got, strings.Join(want, "\n")), arg)
	}
}

// A node that was run twice does not make up for one that is missing. Two arguments, such as two clusters, may have the same names.
func TestCount_ANodeThatWasRunTwiceCountsOnce(t *testing.T) {
	facts := fs.WithFile("facts.json", string(factsOf(t, run(question("TestX")))))
	dir := fs.NewDir(t, "fleet",
		fs.WithDir("a", fs.WithDir("node-1", fs.WithDir("2026-11-26T21-00-47", facts), fs.WithDir("2026-11-26T21-00-48", facts))),
		fs.WithDir("b", fs.WithDir("node-1", facts)))
	nodes, problems := read(t, "", dir.Join("a"), dir.Join("b"))
	assert.Equal(t, problems, "")
	assert.DeepEqual(t, []int{len(nodes), Count(nodes)}, []int{3, 2})
	log := line(t, "node-1", run(question("TestX")))
	nodes, _ = read(t, log+log, "-")
	assert.DeepEqual(t, []int{len(nodes), Count(nodes)}, []int{2, 1})
}

func TestRead_FindsResultsBetweenTheLinesOfALog(t *testing.T) {
	one, two := run(question("TestX", "x", `{"node":"fake"}`)), run(question("TestX", "x", "2"))
	stream := "booting\n[    0.000000] {\n{}\n{\n \"other\": 1\n}\n" + // of other programs
		"[pod/cdblab-0/lab] " + line(t, "node-1", one) +
		"2026-11-26T21:00:47Z stdout F " + strings.TrimSpace(line(t, "node-2", two)) + "\r\n" +
		string(factsOf(t, one)) + // as the file is
		strings.ReplaceAll(strings.ReplaceAll(string(factsOf(t, two)), "\n", ""), "  ", "") + "\n" +
		"the end"
	nodes, problems := read(t, stream, "-")
	assert.Equal(t, problems, "")
	// The names of the last two are that of the stream.
	names := sortedNames(nodes)
	assert.Equal(t, len(names), 4, "%q", names)
	assert.DeepEqual(t, names[:3], []string{"node-1", "node-2", "stdin"})
	assert.Check(t, strings.HasPrefix(names[3], "stdin, line "), names[3])
	assert.Equal(t, nodes[0].Run.Questions[0].Facts()[0].Value, `{"node":"fake"}`)
	assert.Equal(t, nodes[1].Run.Questions[0].Facts()[0].Value, "2")
}

// A log can lose the newline between two results, also of one that is cut short.
func TestRead_FindsSeveralResultsInOneLine(t *testing.T) {
	one, two := strings.TrimSpace(line(t, "node-1", run(question("TestX")))), line(t, "node-2", run(question("TestX")))
	nodes, problems := read(t, one+"[pod-2] "+two, "-")
	assert.Equal(t, problems, "")
	assert.DeepEqual(t, sortedNames(nodes), []string{"node-1", "node-2"})

	nodes, problems = read(t, one[:len(one)/2]+two, "-")
	assert.Check(t, cmp.Contains(problems, "node-1 (stdin, line 1): the line is cut short, or damaged"))
	assert.DeepEqual(t, sortedNames(nodes), []string{"node-2"})
}

// A reader that breaks off does not lose what it has read.
func TestRead_OfAStreamThatBreaksOff(t *testing.T) {
	broken := io.MultiReader(strings.NewReader(line(t, "node-1", run(question("TestX")))), errReader{})
	nodes, problems := Read(&results.Cache{}, broken, "-")
	assert.DeepEqual(t, sortedNames(nodes), []string{"node-1"})
	assert.Equal(t, len(problems), 1)
	assert.Equal(t, problems[0].String(), "stdin: it could be read up to line 1: the connection is gone")
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, fmt.Errorf("the connection is gone") }

func TestRead_SaysWhatIsWrongAndReadsTheOthers(t *testing.T) {
	whole := string(factsOf(t, run(question("TestX", "x", "1"))))
	good := fs.WithDir("good", fs.WithFile("facts.json", whole))
	cut := whole[:len(whole)/2]
	for _, row := range []struct {
		name, want string
		op         fs.PathOp
	}{
		{"a file that is cut short", "bad/facts.json: it is no JSON, or it is cut short", fs.WithFile("facts.json", cut)},
		{"a file that is cut short, under another name", "bad/node.json: it is no JSON, or it is cut short", fs.WithFile("node.json", cut)},
		{"an empty file", "bad/facts.json: it is empty", fs.WithFile("facts.json", "")},
		{"an empty file under another name", "bad/node.json: it is empty", fs.WithFile("node.json", "")},
		{"no JSON", "bad/facts.json: it is no JSON", fs.WithFile("facts.json", "404 page not found")},
		{"no JSON under another name", "bad/node.json: it is no JSON", fs.WithFile("node.json", "404 page not found")},
		{"a file of zeros", "bad/node.json: it is no JSON", fs.WithFile("node.json", strings.Repeat("\x00", 100))},
		{"a stream", "bad/node.json: it is the stream of a run, and no facts.json",
			fs.WithFile("node.json", `{"Time":"2026-11-26T17:00:00Z","Action":"start","Package":"cdblab"}`)},
		{"a link to a directory", "bad/node-3: it is a link to a directory or to nothing", fs.WithSymlink("node-3", "../good")},
		{"a link to nothing", "bad/node-3: it is a link to a directory or to nothing", fs.WithSymlink("node-3", "moon")},
		{"a directory", "bad/facts.json: it is no regular file", fs.WithDir("facts.json")},
		{"a FIFO", "bad/facts.json: it is no regular file", fifo("facts.json")},
		{"a FIFO under another name", "bad/node.json: it is no regular file", fifo("node.json")},
		{"a FIFO for a log", "bad/pod.log: it is no regular file", fifo("pod.log")},
		{"another format", "bad/facts.json: it has format 2, and this lab reads format 1", fs.WithFile("facts.json", `{"format":2}`)},
		{"no question", "bad/facts.json: it has no questions: the run ended before the first one",
			fs.WithFile("facts.json", `{"format":1,"questions":[]}`)},
		{"a run that was killed", "bad: it has a stream.json and no facts.json: the run did not come to its end",
			fs.WithFile("stream.json", "{}")},
		{"a log without a result", "bad/pod.log: there is no result in it", fs.WithFile("pod.log", "Error: no kvm\n")},
		{"a line that is cut short", "node-7 ($/bad/pod.log, line 2): the line is cut short, or damaged",
			fs.WithFile("pod.log", "booting\n"+line(t, "node-7", run(question("TestX", "x", "1")))[:100])},
		{"a line without a node", "bad/pod.log, line 1: the result does not name its node", fs.WithFile("pod.log", `{"node":"","facts":{}}`)},
		{"a file in a log that is cut short", "bad/pod.log, line 2: the result that begins there is cut short",
			fs.WithFile("pod.log", "booting\n"+cut)},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := fs.NewDir(t, "fleet", good, fs.WithDir("bad", row.op))
			nodes, problems := read(t, "", dir.Path())
			problems = withoutPath(t, problems, dir)
			assert.DeepEqual(t, sortedNames(nodes), []string{"good"})
			assert.Check(t, cmp.Contains(problems, row.want))
			assert.Check(t, cmp.Contains(problems, "what to do: "))
		})
	}
}

func TestRead_SaysThatThereIsNothing(t *testing.T) {
	dir := fs.NewDir(t, "fleet")
	_, problems := read(t, "", filepath.Join(dir.Path(), "moon"), dir.Path())
	assert.Check(t, cmp.Contains(problems, "moon: there is no such file or directory\n  what to do: "))
	assert.Check(t, cmp.Contains(problems, ": the directory has no results: no facts.json in it or below it\n  what to do: "))
}

// The file of a result is read once, whatever else is in its directory: a stream, a log of the run, files of other programs. But the
// directory may also have the results of other nodes.
func TestRead_ADirectoryOfResultsMayHaveOthersInIt(t *testing.T) {
	facts := fs.WithBytes(factsOf(t, run(question("TestX"))))
	dir := fs.NewDir(t, "fleet", fs.WithFile("facts.json", "", facts), fs.WithFile("stream.json", ""), fs.WithFile("other.json", ""),
		fs.WithFile("run.log", line(t, "again", run(question("TestX")))), fs.WithFile("node-2.json", "", facts),
		fs.WithDir("node-3", fs.WithFile("facts.json", "", facts)))
	nodes, problems := read(t, "", dir.Path())
	assert.Equal(t, problems, "")
	assert.DeepEqual(t, sortedNames(nodes), []string{filepath.Base(dir.Path()), "node-2", "node-3"})
}

// jq -S sorts the keys.
func TestRead_OfAFileWithSortedKeys(t *testing.T) {
	dir := fs.NewDir(t, "fleet", fs.WithFile("node-1.json",
		`{"failedAtEnd":true,"format":1,"questions":[{"question":"Q?","steps":[],"test":"TestX","verdict":"answered"}]}`))
	nodes, problems := read(t, "", dir.Path())
	assert.DeepEqual(t, sortedNames(nodes), []string{"node-1"})
	assert.Check(t, cmp.Contains(problems, "the run failed"))
}

// A node whose run changed the host is compared, and is not in order.
func TestRead_ARunThatFailedAtItsEndIsAProblem(t *testing.T) {
	bad := run(question("TestX"))
	bad.FailedAtEnd = true
	nodes, problems := read(t, line(t, "node-1", bad), "-")
	assert.DeepEqual(t, sortedNames(nodes), []string{"node-1"})
	assert.Check(t, cmp.Contains(problems, "stdin, line 1: the run failed for a reason that is not in its questions\n  what to do: "))
}

// A name can come from a log, and a terminal must not obey it.
func TestRead_ANameChangesNoTerminal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	assert.NilError(t, os.WriteFile(file, []byte(line(t, "node\x1b[2J", run(question("TestX")))), 0o644))
	nodes, problems := read(t, "", file)
	assert.Equal(t, problems, "")
	assert.DeepEqual(t, sortedNames(nodes), []string{"node\ufffd[2J"})
}
