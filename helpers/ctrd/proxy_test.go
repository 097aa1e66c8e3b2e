//go:build linux

package ctrd

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"gotest.tools/v3/assert"
)

// Through a proxy a client gets what it gets without one: answers, errors, and streams that go on.
func TestProxy_ForwardsCalls(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "daemon"))
	assert.NilError(t, err)
	s, checks := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(s, checks)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)

	p := startProxy(t, filepath.Join(dir, "daemon"), filepath.Join(dir, "proxy"))
	conn, err := grpc.NewClient("unix://"+p.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	assert.NilError(t, err)
	t.Cleanup(func() { conn.Close() })
	client := healthpb.NewHealthClient(conn)
	ctx, cancel := context.WithCancel(t.Context())

	answer, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
	assert.NilError(t, err)
	assert.Equal(t, answer.Status, healthpb.HealthCheckResponse_SERVING)
	_, err = client.Check(ctx, &healthpb.HealthCheckRequest{Service: "unknown"})
	assert.Equal(t, status.Code(err), codes.NotFound)

	stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	assert.NilError(t, err)
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		answer, err := stream.Recv()
		assert.NilError(t, err)
		assert.Equal(t, answer.Status, want)
		checks.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	}
	cancel()
	_, err = stream.Recv()
	assert.Equal(t, status.Code(err), codes.Canceled)

	assert.DeepEqual(t, p.TakeCalls(), []string{"Health/Check", "Health/Check", "Health/Watch"})
	assert.Equal(t, len(p.TakeCalls()), 0)
}
