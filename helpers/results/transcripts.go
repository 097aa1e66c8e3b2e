package results

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// CopyTranscripts copies the transcripts of a run's questions to dir/transcripts, each under the name of its test. It looks for them
// there, where the tests have written them, and in the directory of the stream. How many it does not find is in Run.Remarks: a run that
// was stopped in a VM hands back no files, and a CI may store nothing but the stream.
func CopyTranscripts(dir, ofStream string, run *Run) error {
	to := filepath.Join(dir, TranscriptsDir)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if info, err := os.Lstat(to); err != nil || !info.IsDir() {
		return errors.Join(err, fmt.Errorf("%s is no directory, but a link, and may lead to files that are not the lab's\n"+
			"  what to do: remove the link", to))
	}
	missing := 0
	for _, q := range run.Questions {
		if q.Artifact == "" {
			continue
		}
		err := copyTranscript(filepath.Join(to, q.Test+".sh"), ofStream, q)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
		} else if err != nil {
			return fmt.Errorf("copy the transcript of %s: %w", q.Test, err)
		}
	}
	if missing > 0 {
		run.Remarks = append(run.Remarks, fmt.Sprintf("The transcripts of %d questions are missing: "+
			"the directories are gone in which the tests have written them.", missing))
	}
	return nil
}

// copyTranscript copies the transcript of a question from the directory that the stream names; or from the same directory beside the
// stream, if both were moved here from another machine. A transcript that is there already stays. Otherwise it is copied from the
// results that the stream is part of.
func copyTranscript(to, ofStream string, q *Question) error {
	const name = "transcript.sh"
	from, err := openRegular(filepath.Join(q.Artifact, name))
	if err != nil {
		from, err = openRegular(filepath.Join(ofStream, "_artifacts", filepath.Base(q.Artifact), name))
	}
	if err != nil {
		if info, statErr := os.Lstat(to); statErr == nil && info.Mode().IsRegular() {
			return nil
		}
		from, err = openRegular(filepath.Join(ofStream, TranscriptsDir, filepath.Base(to)))
	}
	if err != nil {
		return err
	}
	defer from.Close()
	// One of many files: it is not synced to the disk, as ReplaceFile does. A link in its place is removed, and not followed.
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// ReplaceFile writes a file of the results by a function. Results that were copied from elsewhere may have a link in place of a file:
// the link is replaced, and the file that it leads to stays as it is.
func ReplaceFile(path string, write func(io.Writer) error) error {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	if err = errors.Join(write(b), b.Flush()); err == nil {
		err = f.CloseAtomicallyReplace() // the disk may turn out to be full only here
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, f.Cleanup()))
	}
	return nil
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
