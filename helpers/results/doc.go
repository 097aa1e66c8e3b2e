// Package results reads the stream of `go test -json` in which a run of the lab tells what it does, and says what the run
// observed.
//
// A [Reader] reads the stream line by line, also while the run is still going on, and fills a [Run]. Everything that is made
// of a run is made of this value: the live display, the notebook, the comparison of two runs, the reports.
package results
