//go:build linux

package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

func TestSettings_AreWhatIsSetAndNotWhatIsUsed(t *testing.T) {
	root := t.TempDir()
	assert.NilError(t, os.MkdirAll(filepath.Join(root, "lab", "child"), 0o755))
	for name, mode := range map[string]os.FileMode{
		"cpu.max": 0o644, "memory.high": 0o644, // what is set
		"cgroup.procs": 0o644, "cpu.pressure": 0o644, "memory.peak": 0o644, "memory.max_usage_in_bytes": 0o644, // what is used
		"cpu.stat": 0o444, "memory.reclaim": 0o200, // what cannot be set, or not be read
	} {
		assert.NilError(t, os.WriteFile(filepath.Join(root, "lab", name), []byte(name+"\n"), mode))
	}
	g := Group{Path: "/lab", tb: t, hierarchies: []Hierarchy{{Name: "unified", Mountpoint: root, V2: true},
		{Name: "pids", Mountpoint: filepath.Join(root, "none")}}}
	assert.DeepEqual(t, g.Settings(), map[string]string{"unified/cpu.max": "cpu.max", "unified/memory.high": "memory.high"})
}

func TestStat_MatchesTheWholeKey(t *testing.T) {
	const text = "nr_periods 12\nnr_throttled 7\nthrottled_usec 300\n"
	n, err := stat(text, "nr_throttled")
	assert.NilError(t, err)
	assert.Equal(t, n, uint64(7))
	_, err = stat(text, "throttled")
	assert.ErrorContains(t, err, `no line "throttled"`)
	_, err = stat("oom_kill many\n", "oom_kill")
	assert.ErrorContains(t, err, "many")
}
