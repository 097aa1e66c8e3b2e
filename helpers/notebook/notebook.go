// Package notebook renders a run of the lab as one page that explains itself.
package notebook

import (
	"fmt"
	"io"

	"cdblab/helpers/results"
)

// Write writes the page of a run.
func Write(w io.Writer, run *results.Run) error {
	_, err := fmt.Fprintln(w, run.Verdict)
	return err
}
