//go:build linux

package ctrd

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
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

// A daemon that begins to answer, and then sends nothing, fails a streaming call. A stream may take longer than the deadline if its
// messages come in time, and a stream of events may be silent.
func TestEndStream_AStreamWithoutAMessageEnds(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "daemon"))
	assert.NilError(t, err)
	was := proc.Patience
	proc.Patience = time.Second
	t.Cleanup(func() { proc.Patience = was })
	checks := health.NewServer()
	daemon := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { // of events: it says nothing
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(2 * proc.Patience):
			return status.Error(codes.OutOfRange, "this is the end of the events")
		}
	}))
	healthpb.RegisterHealthServer(daemon, checks)
	go func() { _ = daemon.Serve(l) }()
	t.Cleanup(daemon.Stop)
	conn, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStreamInterceptor(endStream))
	assert.NilError(t, err)
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(30*time.Second, cancel).Stop() // where no deadline ends the call

	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	assert.NilError(t, err)
	begin, sent := time.Now(), 0
	for time.Since(begin) < 2*proc.Patience {
		_, err = stream.Recv()
		assert.NilError(t, err, "message %d, after %v", sent+1, time.Since(begin))
		time.Sleep(proc.Patience / 10)
		sent++
		checks.SetServingStatus("", healthpb.HealthCheckResponse_ServingStatus(1+sent%2))
	}
	_, err = stream.Recv() // the last status
	assert.NilError(t, err)
	_, err = stream.Recv()
	assert.Check(t, cmp.ErrorContains(err, "containerd has sent nothing in the call /grpc.health.v1.Health/Watch for 1s"))
	assert.Check(t, cmp.Equal(status.Code(err), codes.DeadlineExceeded))

	events, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/containerd.services.events.v1.Events/Subscribe")
	assert.NilError(t, err)
	assert.NilError(t, events.CloseSend())
	err = events.RecvMsg(&healthpb.HealthCheckResponse{})
	assert.Check(t, cmp.ErrorContains(err, "this is the end of the events"))
}
