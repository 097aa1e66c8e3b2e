//go:build linux

package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
)

// A record describes an image. It lies beside it, as NAME.json. Its time is the time of the last use.
type record struct {
	Variant  Variant
	Key      string // of the recipe
	Made     time.Time
	Size     int64             // of the image
	Packages map[string]string // versions by name
}

func recordOf(path string) string { return path + ".json" }

// read returns the record of an image that is complete.
func read(path string) (*record, error) {
	b, err := os.ReadFile(recordOf(path))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err == nil && info.Size() != r.Size {
		err = fmt.Errorf("%s has %d bytes, expected %d", path, info.Size(), r.Size)
	}
	return &r, err
}

func writeRecord(path string, r record) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return renameio.WriteFile(recordOf(path), append(b, '\n'), 0o644, renameio.WithTempDir(filepath.Dir(path)))
}
