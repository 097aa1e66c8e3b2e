//go:build linux

package main

import (
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/vm"
)

// With any other exit code, go test would report a result of tests that did not run; with 0, it would print "ok".
func TestExec_BadUsageIsNoResult(t *testing.T) {
	for _, args := range [][]string{nil, {"-h"}, {"-nonsense"}, {"-mem", "much"}, {"-mem", "1", "/nonexistent/x.test"}} {
		assert.Equal(t, execMain(args), vm.FaultCode, "%q", args)
	}
}
