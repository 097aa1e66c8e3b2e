//go:build linux

package ctrd

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/proc"
)

// A daemon that does not answer fails a call, but not one that waits for the end of a process.
func TestEndCall_ACallWithoutADeadlineGetsOne(t *testing.T) {
	was := proc.Patience
	proc.Patience = 10 * time.Millisecond
	t.Cleanup(func() { proc.Patience = was })
	silent := func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		if _, ok := ctx.Deadline(); !ok {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	err := endCall(t.Context(), "/containerd.services.events.v1.Events/Publish", nil, nil, nil, silent)
	assert.Check(t, cmp.ErrorContains(err, "containerd has not answered the call /containerd.services.events.v1.Events/Publish within 10ms"))
	assert.Check(t, cmp.ErrorIs(err, context.DeadlineExceeded))
	assert.NilError(t, endCall(t.Context(), "/containerd.services.tasks.v1.Tasks/Wait", nil, nil, nil, silent))
}
