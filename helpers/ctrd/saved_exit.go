//go:build linux

package ctrd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// SavedExitFile is the file in a bundle in which the shim saves how the task's process ended.
const SavedExitFile = "exit.json"

// SavesExit reports whether the shim under test saves how a task's process ended. The shims of containerd 2.3.4 and before do not.
func SavesExit(q *lab.Q) bool {
	q.Helper()
	return Knows(q, "containerd-shim-runc-v2", SavedExitFile)
}

// SavedExit is how a task's process ended, as its shim has saved it.
type SavedExit struct {
	PID    proc.PID `json:"Pid"`
	Status int      `json:"Status"` // exit status, 0 to 255; 128 and the signal's number for a process that a signal ended
}

// ReadSavedExit reads how the process of a container's task ended from [SavedExitFile] in the bundle. The error is
// [fs.ErrNotExist] if the shim has saved nothing: the process has not ended, or the shim is of a version that saves
// nothing.
func (d *Daemon) ReadSavedExit(id string) (SavedExit, error) {
	path := filepath.Join(d.Bundle(id), SavedExitFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return SavedExit{}, err
	}
	var s SavedExit
	if err := json.Unmarshal(data, &s); err != nil {
		return SavedExit{}, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}
