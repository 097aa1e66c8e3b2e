//go:build linux

package main

import (
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/fs"
)

func TestFleet_ExpectsANumberOfNodesAndNotOfResults(t *testing.T) {
	facts := fs.WithFile("facts.json", `{"format":1,"questions":[{"test":"TestX","question":"Q?","verdict":"answered","steps":[]}]}`)
	dir := fs.NewDir(t, "fleet", fs.WithDir("node-7", fs.WithDir("2026-11-26T21-00-47", facts), fs.WithDir("2026-11-26T21-00-48", facts)))
	fleet := func(expect string) (int, string) {
		return said(t, func() int {
			return fleetMain([]string{"-out", filepath.Join(t.TempDir(), "out"), "-expect", expect, dir.Path()})
		})
	}
	code, _ := fleet("1")
	assert.Equal(t, code, exitSame)
	code, out := fleet("2")
	assert.Equal(t, code, exitNotCompared)
	assert.Check(t, cmp.Contains(out, "expected the results of 2 nodes, and read those of 1 (2 results: some nodes have several)"))
}
