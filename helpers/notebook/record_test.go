package notebook

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/results"
)

var recordFlag = flag.String("record", "", "the directory of results of a whole run, of which testdata is made again")

const (
	picturesFile = "testdata/run.json"      // the questions that have pictures
	wholeFile    = "testdata/whole.json.gz" // all questions, because only they have the proportions of a real page
)

// recorded returns the run in testdata of the questions that have pictures.
func recorded(t testing.TB) *results.Run {
	t.Helper()
	run, err := results.Load(picturesFile)
	assert.NilError(t, err)
	return run
}

// recordedWhole returns the run in testdata of all questions.
func recordedWhole(t testing.TB) *results.Run {
	t.Helper()
	f, err := os.Open(wholeFile)
	assert.NilError(t, err)
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	assert.NilError(t, err)
	run, err := results.Read(unpacked)
	assert.NilError(t, err)
	return run
}

// streamEvent is what testdata keeps of a line of the stream.
type streamEvent struct {
	Time             time.Time
	Action           string
	Test, Key, Value string  `json:",omitempty"`
	Elapsed          float64 `json:",omitempty"`
}

// With -record, testdata is made again of a whole run: CONTRIBUTING.md.
func TestRecord(t *testing.T) {
	if *recordFlag == "" {
		t.Skip("no -record directory is given")
	}
	run, err := results.Load(*recordFlag)
	assert.NilError(t, err)
	assert.Assert(t, run.Verdict == results.Answered && run.Stack != nil, "expected a run that has passed: %s", run.Headline())
	for test := range pictures {
		q := run.Question(test)
		assert.Assert(t, q != nil && q.Verdict == results.Answered, "expected an answer of %s, which has pictures", test)
	}
	checkout, _, ok := strings.Cut(run.Stack.Programs[0].Path, "/.lab/")
	assert.Assert(t, ok, "expected a run of the pinned programs: %s", run.Stack.Programs[0].Path)

	var whole []streamEvent
	stream, err := os.Open(filepath.Join(*recordFlag, results.StreamFile))
	assert.NilError(t, err)
	defer stream.Close()
	assert.NilError(t, results.EachLine(stream, func(line []byte) {
		var e streamEvent
		// The output repeats the notes. Nothing else of a question that was answered needs it.
		if json.Unmarshal(line, &e) == nil && !slices.Contains([]string{"output", "pause", "artifacts"}, e.Action) {
			e.Time = e.Time.Truncate(time.Millisecond)
			e.Value = strings.ReplaceAll(e.Value, checkout, "/home/reader/cdblab")
			whole = append(whole, e)
		}
	}))
	// Questions run at the same time. A reader of testdata finds the events of a question together.
	slices.SortStableFunc(whole[:len(whole)-1], func(a, b streamEvent) int { return strings.Compare(testOf(a), testOf(b)) })
	withPictures := slices.DeleteFunc(slices.Clone(whole), func(e streamEvent) bool {
		return e.Test != "" && pictures[testOf(e)] == nil
	})
	assert.NilError(t, os.WriteFile(picturesFile, encode(t, withPictures), 0o644))
	var packed bytes.Buffer
	pack, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	assert.NilError(t, err)
	_, err = io.Copy(pack, bytes.NewReader(encode(t, whole)))
	assert.NilError(t, err)
	assert.NilError(t, pack.Close())
	assert.NilError(t, os.WriteFile(wholeFile, packed.Bytes(), 0o644))
}

// testOf returns the test of an event, without its subtest.
func testOf(e streamEvent) string {
	test, _, _ := strings.Cut(e.Test, "/")
	return test
}

func encode(t *testing.T, events []streamEvent) []byte {
	t.Helper()
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	lines.SetEscapeHTML(false)
	for _, e := range events {
		assert.NilError(t, lines.Encode(e))
	}
	return out.Bytes()
}
