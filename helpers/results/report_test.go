package results

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"
)

func TestWriteSummary_IsForThePageOfACIJob(t *testing.T) {
	var b bytes.Buffer
	assert.NilError(t, WriteSummary(&b, sample(t)))
	golden.Assert(t, b.String(), "summary.golden")
}

// A message of a thousand lines would fill the page, and three backticks in it would end its block.
func TestWriteSummary_ShowsTheBeginningOfALongMessage(t *testing.T) {
	run := sample(t)
	q := run.Question("TestLifecycle_WhatDoesPauseStop")
	q.Logs = []Log{{Kind: "error", Text: "```\n" + strings.Repeat("line\n", 1000)}}
	var b bytes.Buffer
	assert.NilError(t, WriteSummary(&b, run))
	assert.Check(t, strings.Count(b.String(), "line\n") < 2*maxMessage)
	assert.Check(t, cmp.Contains(b.String(), "````\n"))
	assert.Check(t, cmp.Contains(b.String(), "more lines: see stream.json"))
}

// A broken runtime fails every question, with long messages. GitHub drops a summary of more than 1 MiB.
func TestWriteSummary_IsSmallerThanACIAllows(t *testing.T) {
	run := &Run{Verdict: Failed}
	logs := []Log{{Kind: "error", Text: strings.Repeat(strings.Repeat("é", 300)+"\n", 100)}}
	for i := range 134 {
		name := fmt.Sprintf("TestTask_%d", i)
		run.Questions = append(run.Questions, &Question{Test: name, Text: name + "?", Verdict: Failed, Steps: []*Step{{}}, Logs: logs})
	}
	var b bytes.Buffer
	assert.NilError(t, WriteSummary(&b, run))
	assert.Check(t, b.Len() < 1<<20, b.Len())
	assert.Check(t, utf8.Valid(b.Bytes()))
	assert.Check(t, strings.Contains(b.String(), "**TestTask\\_133?**"), "each failure is named")
	assert.Check(t, strings.Contains(b.String(), "Its messages are in index.html."))
}

func TestWriteJUnit_HasACaseForEachQuestion(t *testing.T) {
	var b bytes.Buffer
	assert.NilError(t, WriteJUnit(&b, sample(t)))
	golden.Assert(t, b.String(), "junit.golden")
	var suites junitSuites
	assert.NilError(t, xml.Unmarshal(b.Bytes(), &suites))
	assert.Equal(t, len(suites.Suites[0].Cases), 3)
}

// A run in which no question was asked has failed, and its report says so.
func TestWriteJUnit_ARunWithoutQuestionsHasAnError(t *testing.T) {
	run := read(t, `"Action":"output","Output":"cdblab: this machine is no VM\n"`, `"Action":"fail"`)
	var b bytes.Buffer
	assert.NilError(t, WriteJUnit(&b, run))
	assert.Check(t, cmp.Contains(b.String(), `<error message="cdblab: this machine is no VM">`))
}

func TestCopyTranscripts_CopiesEachUnderItsName(t *testing.T) {
	run, artifacts, dir := sample(t), t.TempDir(), t.TempDir()
	q := run.Questions[0]
	q.Artifact = artifacts
	assert.NilError(t, os.WriteFile(filepath.Join(artifacts, "transcript.sh"), []byte("runc state\n"), 0o644))
	// This one was stored with the stream, on another machine.
	here := filepath.Join(dir, "_artifacts", filepath.Base(run.Questions[1].Artifact))
	assert.NilError(t, os.MkdirAll(here, 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(here, "transcript.sh"), []byte("runc list\n"), 0o644))

	assert.NilError(t, CopyTranscripts(dir, dir, run))
	for q, want := range map[*Question]string{q: "runc state\n", run.Questions[1]: "runc list\n"} {
		got, err := os.ReadFile(filepath.Join(dir, TranscriptsDir, q.Test+".sh"))
		assert.NilError(t, err)
		assert.Equal(t, string(got), want)
	}
	assert.Check(t, cmp.Contains(strings.Join(run.Remarks, "\n"), "The transcripts of 1 questions are missing"))

	// They are still there when the results are made again, and the artifacts are gone.
	assert.NilError(t, os.RemoveAll(artifacts))
	again := sample(t)
	assert.NilError(t, CopyTranscripts(dir, dir, again))
	assert.Check(t, cmp.Contains(strings.Join(again.Remarks, "\n"), "The transcripts of 1 questions are missing"))
}

// A stream from elsewhere may name a FIFO, whose reading would never end.
func TestCopyTranscripts_ReadsOnlyFiles(t *testing.T) {
	run, artifacts := sample(t), t.TempDir()
	run.Questions = run.Questions[:1]
	run.Questions[0].Artifact = artifacts
	assert.NilError(t, syscall.Mkfifo(filepath.Join(artifacts, "transcript.sh"), 0o644))
	assert.NilError(t, CopyTranscripts(t.TempDir(), t.TempDir(), run))
	assert.Check(t, cmp.Contains(strings.Join(run.Remarks, "\n"), "are missing"))
}

// A stream whose artifacts are gone still has the transcripts of its results. A green run without any stays green.
func TestCopyTranscripts_TakesThoseOfTheResults(t *testing.T) {
	run, ofStream, dir := sample(t), t.TempDir(), t.TempDir()
	run.Questions, run.Verdict = run.Questions[:1], Answered
	q := run.Questions[0]
	q.Verdict = Answered
	assert.NilError(t, CopyTranscripts(dir, ofStream, run))
	var report bytes.Buffer
	assert.NilError(t, WriteJUnit(&report, run))
	assert.Check(t, cmp.Contains(report.String(), ` failures="0" errors="0"`))
	assert.Equal(t, len(run.Remarks), 1)

	stored := filepath.Join(ofStream, TranscriptsDir, q.Test+".sh")
	assert.NilError(t, os.Mkdir(filepath.Dir(stored), 0o755))
	assert.NilError(t, os.WriteFile(stored, []byte("runc state\n"), 0o644))
	run.Remarks = nil
	assert.NilError(t, CopyTranscripts(dir, ofStream, run))
	assert.Equal(t, len(run.Remarks), 0)
	got, err := os.ReadFile(filepath.Join(dir, TranscriptsDir, q.Test+".sh"))
	assert.NilError(t, err)
	assert.Equal(t, string(got), "runc state\n")
}

// Results from elsewhere may have links to files of the user.
func TestCopyTranscripts_WritesThroughNoLink(t *testing.T) {
	run, artifacts, dir, home := sample(t), t.TempDir(), t.TempDir(), t.TempDir()
	run.Questions = run.Questions[:1]
	run.Questions[0].Artifact = artifacts
	assert.NilError(t, os.WriteFile(filepath.Join(artifacts, "transcript.sh"), []byte("runc state\n"), 0o644))
	mine, transcripts := filepath.Join(home, "mine"), filepath.Join(dir, TranscriptsDir)
	assert.NilError(t, os.WriteFile(mine, []byte("mine"), 0o644))
	assert.NilError(t, os.Mkdir(transcripts, 0o755))
	assert.NilError(t, os.Symlink(mine, filepath.Join(transcripts, run.Questions[0].Test+".sh")))
	assert.NilError(t, CopyTranscripts(dir, dir, run))
	got, err := os.ReadFile(mine)
	assert.NilError(t, err)
	assert.Equal(t, string(got), "mine")

	assert.NilError(t, os.RemoveAll(transcripts))
	assert.NilError(t, os.Symlink(home, transcripts))
	assert.Check(t, cmp.ErrorContains(CopyTranscripts(dir, dir, run), "is no directory, but a link"))
}
