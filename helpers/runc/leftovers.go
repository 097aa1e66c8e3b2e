//go:build linux

package runc

import (
	"strings"

	"gotest.tools/v3/poll"

	"cdblab/helpers/host"
	"cdblab/helpers/lab"
)

// Leftovers lists what the container has left on the host since the inventory before was taken.
func (c *Container) Leftovers(before host.Inventory) []string {
	c.q.Helper()
	return c.leftovers(before, c.q.TakeInventory())
}

// NoLeftovers returns a check that succeeds when the container has left nothing. The kernel releases what the runtime's
// processes held a moment after they have ended.
func (c *Container) NoLeftovers(before host.Inventory) poll.Check {
	return func(poll.LogT) poll.Result {
		after, err := host.TakeInventoryOf(c.q.Owner)
		if err != nil {
			return poll.Error(err)
		}
		if out := c.leftovers(before, after); len(out) > 0 {
			return poll.Continue("%s", strings.Join(out, ", "))
		}
		return poll.Success()
	}
}

func (c *Container) leftovers(before, after host.Inventory) []string {
	var out []string
	for _, change := range host.OwnedBy(host.Diff(before, after), c.q.Owner) {
		switch {
		case change.Kind == "cgroup" && !strings.Contains(change.Name, c.ID):
			// A cgroup above the container's: the runtime makes it on its way down, and removes only the container's own.
		case strings.HasPrefix(change.Name, c.q.Dir) && !strings.HasPrefix(change.Name, c.Root):
			// The question or the program wrote it: the container's state is below its root.
		default:
			out = append(out, change.String())
		}
	}
	return out
}

// AssertCreateRefused is [Container.MustRefuseWithoutLeftovers], and records the error as a fact.
func AssertCreateRefused(q *lab.Q, c *Container, names string) {
	q.Helper()
	q.Fact("create says", LastLogMessage(c.MustRefuseWithoutLeftovers(names)))
}
