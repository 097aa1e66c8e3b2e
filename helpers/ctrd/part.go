//go:build linux

package ctrd

import "cdblab/helpers/lab"

// For is the same daemon in the hands of a part of the question: what fails there fails that part, and ends it alone.
func (d *Daemon) InSubtest(part *lab.Q) *Daemon {
	other := *d
	other.q = part
	return &other
}
