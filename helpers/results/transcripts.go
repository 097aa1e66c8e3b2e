package results

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// CopyTranscripts copies the transcripts of a run's questions to dir/transcripts, each under the name of its test. Those that it
// finds neither there nor where the test has written them are noted in Run.Problems: a run that was stopped in a VM hands back
// no files.
func CopyTranscripts(dir string, run *Run) error {
	to := filepath.Join(dir, TranscriptsDir)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	missing := 0
	for _, q := range run.Questions {
		if q.Artifact == "" {
			continue
		}
		err := copyTranscript(filepath.Join(to, q.Test+".sh"), dir, q)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
		} else if err != nil {
			return fmt.Errorf("copy the transcript of %s: %w", q.Test, err)
		}
	}
	if missing > 0 {
		run.Problems = append(run.Problems, fmt.Sprintf("The transcripts of %d questions are missing: "+
			"the directories are gone in which the tests have written them.", missing))
	}
	return nil
}

// copyTranscript copies the transcript of a question from the directory that the stream names, or from the same directory below
// dir, if dir was moved here from another machine. A transcript that is there already stays.
func copyTranscript(to, dir string, q *Question) error {
	var from *os.File
	var err error
	for _, artifact := range []string{q.Artifact, filepath.Join(dir, "_artifacts", filepath.Base(q.Artifact))} {
		if from, err = openRegular(filepath.Join(artifact, "transcript.sh")); err == nil {
			break
		}
	}
	if err != nil {
		if _, statErr := os.Stat(to); statErr == nil {
			return nil
		}
		return err
	}
	defer from.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	return errors.Join(err, out.Close())
}

// openRegular opens a regular file. A stream from elsewhere may name anything, and a FIFO would never end.
func openRegular(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file: %w", path, fs.ErrNotExist)
	}
	return os.Open(path)
}
