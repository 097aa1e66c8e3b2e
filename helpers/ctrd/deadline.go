//go:build linux

package ctrd

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"

	"cdblab/helpers/proc"
)

// endCall ends a call of the client after [proc.Patience] if it has no deadline. So a daemon that does not answer fails the question
// instead of letting it hang. Wait is no such call: it returns when a process ends.
func endCall(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); ok || strings.HasSuffix(method, "/Wait") {
		return call(ctx, method, req, reply, cc, opts...)
	}
	ctx, cancel := context.WithTimeout(ctx, proc.Patience)
	defer cancel()
	err := call(ctx, method, req, reply, cc, opts...)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("containerd has not answered the call %s within %v: %w", method, proc.Patience, err)
	}
	return err
}
