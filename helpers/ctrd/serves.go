//go:build linux

package ctrd

import (
	"context"
	"net"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// Serves returns a check that a containerd answers calls at its address and at the TTRPC socket beside it. A containerd listens before it
// serves, and one that gets SIGTERM in between ends with exit code 1.
func Serves(address string) poll.Check {
	return func(poll.LogT) poll.Result {
		ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
		defer cancel()
		if err := callGRPC(ctx, address); err != nil {
			return poll.Continue("containerd does not answer at %s: %v", address, err)
		}
		if err := callTTRPC(ctx, address+".ttrpc"); status.Code(err) != codes.Unimplemented {
			return poll.Continue("containerd does not answer at %s.ttrpc: a call of no service has the error %v", address, err)
		}
		return poll.Success()
	}
}

func callGRPC(ctx context.Context, address string) error {
	client, err := containerd.New(address, containerd.WithTimeout(proc.Patience))
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Version(ctx)
	return err
}

// callTTRPC calls a service that does not exist. A server answers that it is not implemented.
func callTTRPC(ctx context.Context, socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	return client.Call(ctx, "none", "None", &emptypb.Empty{}, &emptypb.Empty{})
}
