package retry

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestUntil_ReportsWhetherTheConditionWasMet(t *testing.T) {
	calls := 0
	third := func() bool { calls++; return calls == 3 }
	assert.Check(t, Until(time.Minute, third))
	assert.Equal(t, calls, 3)
	assert.Check(t, !Until(time.Millisecond, func() bool { return false }))
}

func TestUntil_CallsAtLeastOnce(t *testing.T) {
	assert.Check(t, Until(0, func() bool { return true }))
}
