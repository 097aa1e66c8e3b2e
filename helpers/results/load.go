package results

import (
	"fmt"
	"os"
	"path/filepath"
)

// Names of the files in a directory of results.
const (
	StreamFile = "stream.json" // the raw stream
	FactsFile  = "facts.json"  // see [Load]
)

// Load reads a run from a directory of results, from a stream, or from a facts.json.
func Load(path string) (*Run, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load results: %w", err)
	}
	if info.IsDir() {
		path = filepath.Join(path, StreamFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load results: %w", err)
	}
	defer f.Close()
	return Read(f)
}
