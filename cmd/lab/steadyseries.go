//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"cdblab/helpers/compare"
	"cdblab/helpers/mutants"
	"cdblab/helpers/results"
)

// seriesFile has the runs of the series that are finished.
const seriesFile = "series.json"

// A steadySeries is the runs of lab steady with one binary and the same programs under test. It is on the disk after each run, so
// that a series that was stopped goes on.
type steadySeries struct {
	Key  runKey
	Argv []string // command and arguments
	Runs []steadyRun

	first  *results.Run // that passed; nil until it was read
	binary string       // digest of the questions when the series was opened
	unlock func()       // lets another process make a series
}

// openSeries returns the series of the same binary, programs and machine that was stopped before n runs, or a new one. A series that is
// complete is no answer to a new command: a nightly job would pass without a run. Two series at once would write the same files, so the
// second one is an error.
func openSeries(ctx context.Context, where string, argv []string, n int, fresh bool) (*steadySeries, error) {
	if err := os.MkdirAll(steadyDir, 0o755); err != nil {
		return nil, fmt.Errorf("%w\n  make the directory writable for you, or run this in another checkout", err)
	}
	unlock, err := mutants.Lock(filepath.Join(steadyDir, "lock"))
	if err != nil {
		return nil, err
	}
	key, err := newRunKey(ctx, where, os.Environ())
	if err != nil {
		return nil, err
	}
	binary, err := binaryDigest(argv)
	if err != nil {
		return nil, err
	}
	old, err := readSeries()
	if err != nil {
		return nil, err
	}
	if !fresh && old.is(key, argv) {
		if !old.isComplete(n) {
			old.binary, old.unlock = binary, unlock
			return old, nil
		}
		logf("the series in %s has all of its %d runs: beginning a new one", steadyDir, len(old.Runs))
	}
	return &steadySeries{Key: key, Argv: argv, binary: binary, unlock: unlock}, removeRuns()
}

// checkBinary returns an error if the questions were built again from another source: the series would be a mixture.
func (s *steadySeries) checkBinary() error {
	binary, err := binaryDigest(s.Argv)
	if err == nil && binary != s.binary {
		err = errBuiltAgain
	}
	return err
}

// is reports whether a series has this key and this command.
func (s *steadySeries) is(key runKey, argv []string) bool {
	return s.Key.dir() == key.dir() && slices.Equal(s.Argv, argv)
}

// isComplete reports whether a series has n runs.
func (s *steadySeries) isComplete(n int) bool { return len(s.Runs) >= n }

// readSeries reads the series on the disk. Without one, or with one that an older lab wrote, it has no runs.
func readSeries() (*steadySeries, error) {
	s := &steadySeries{}
	data, err := os.ReadFile(filepath.Join(steadyDir, seriesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil && json.Unmarshal(data, s) != nil {
		s = &steadySeries{}
	}
	return s, err
}

// removeRuns removes the files of an earlier series.
func removeRuns() error {
	files, err := filepath.Glob(filepath.Join(steadyDir, "run-*"))
	for _, f := range append(files, filepath.Join(steadyDir, seriesFile)) {
		if e := os.Remove(f); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		err = fmt.Errorf("%w\n  what to do: make %s writable for you (a run as root may have created it)", err, steadyDir)
	}
	return err
}

// add records a run.
func (s *steadySeries) add(r steadyRun) error {
	s.Runs = append(s.Runs, r)
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(steadyDir, seriesFile), append(data, '\n'), 0o644)
}

// compareFacts compares what a run observed with what the first run that passed observed. The difference is in the run's text file.
func (s *steadySeries) compareFacts(ctx context.Context, test2json string, r *steadyRun) error {
	i := slices.IndexFunc(s.Runs, func(r steadyRun) bool { return r.Code == 0 })
	if i < 0 {
		r.Facts = "the first"
		return nil
	}
	var err error
	if s.first == nil {
		if s.first, err = readLog(ctx, test2json, s.Runs[i].logFile()); err != nil {
			return err
		}
	}
	run, err := readLog(ctx, test2json, r.logFile())
	if err != nil {
		return err
	}
	c, err := compare.Runs(compare.Side{Name: fmt.Sprintf("run %d", s.Runs[i].Number), Run: s.first},
		compare.Side{Name: fmt.Sprintf("run %d", r.Number), Run: run})
	if err != nil {
		return err
	}
	r.Facts, r.Differ = c.Summary(), !c.Equal()
	if !r.Differ {
		return nil
	}
	var text bytes.Buffer
	return errors.Join(compare.WriteText(&text, c), os.WriteFile(r.file("txt"), text.Bytes(), 0o644))
}

// readLog reads the output of a test binary that ran with -test.v=test2json.
func readLog(ctx context.Context, test2json, path string) (*results.Run, error) {
	log, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	convert := exec.CommandContext(ctx, test2json, "-t")
	convert.Stdin = log
	stream, err := convert.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", convert, err)
	}
	return results.Read(bytes.NewReader(stream))
}
