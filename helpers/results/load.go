package results

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"cdblab/helpers/howto"
)

// Names of the files in a directory of results.
const (
	StreamFile     = "stream.json" // the raw stream
	FactsFile      = "facts.json"  // what was observed, for comparison: see [WriteFacts]
	NotebookFile   = "index.html"  // the page for a reader
	SummaryFile    = "summary.md"  // for the page of a CI job: see [WriteSummary]
	JUnitFile      = "junit.xml"   // for a CI: see [WriteJUnit]
	TranscriptsDir = "transcripts" // the commands of each question
)

// Load reads a run from a directory of results, from a stream, or from a facts.json. What a facts.json lacks stays empty. What
// is wrong with a stream is in Run.Problems.
func Load(path string) (*Run, error) {
	run, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("load results from %s: %w", path, err)
	}
	return run, nil
}

func load(path string) (*Run, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no such file or directory\n  what to do: name a directory of results, a stream of "+
			"`go test -json`, or a facts.json; `%s` makes them", howto.Run())
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return loadDir(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	begin := make([]byte, 64)
	n, err := io.ReadFull(f, begin)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return nil, err
	}
	all := io.MultiReader(bytes.NewReader(begin[:n]), f)
	if !IsFacts(begin[:n]) {
		return Read(all)
	}
	data, err := io.ReadAll(all)
	if err != nil {
		return nil, err
	}
	return readFacts(data, readQuestion)
}

// loadDir reads the stream of a directory of results; if it has none, its facts.json.
func loadDir(dir string) (*Run, error) {
	for _, name := range []string{StreamFile, FactsFile} {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); err == nil {
			return load(file)
		}
	}
	return nil, fmt.Errorf("the directory has no results: neither %s nor %s\n"+
		"  what to do: name a directory of results; `%s` makes them", StreamFile, FactsFile, howto.Run())
}

// IsFacts reports whether a file that begins so is a facts.json. A program that sorts the keys writes failedAtEnd first.
func IsFacts(begin []byte) bool { return beginsWith(begin, `"format"`, `"failedAtEnd"`) }

// IsStream reports whether a file that begins so is a stream of go test -json.
func IsStream(begin []byte) bool { return beginsWith(begin, `"Time"`, `"Action"`) }

// beginsWith reports whether a JSON object begins with one of the keys.
func beginsWith(begin []byte, keys ...string) bool {
	rest, ok := bytes.CutPrefix(bytes.TrimSpace(begin), []byte("{"))
	return ok && slices.ContainsFunc(keys, func(key string) bool { return bytes.HasPrefix(bytes.TrimSpace(rest), []byte(key)) })
}
