// Package compare says what differs between two runs of the lab.
package compare

import "cdblab/helpers/results"

// A Difference is what differs between two runs.
type Difference struct{}

// Runs compares two runs.
func Runs(a, b *results.Run) []Difference { return nil }
