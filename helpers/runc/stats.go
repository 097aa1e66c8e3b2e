//go:build linux

package runc

import "cdblab/helpers/check"

// Stats is what the lab reads of the statistics that `runc events --stats` prints.
type Stats struct {
	CPU struct {
		Usage struct{ Total uint64 } // processor time in nanoseconds
	}
	Memory struct {
		Usage struct{ Limit, Usage uint64 }
	}
	Pids struct{ Current, Limit uint64 }
}

// Stats returns the statistics of the container.
func (c *Container) Stats() Stats {
	c.q.Helper()
	var event struct{ Data Stats }
	check.DecodeJSON(c.q, c.Must("events", "--stats").Stdout, &event)
	return event.Data
}
