//go:build linux

package ctrd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"cdblab/helpers/proc"
)

// NewClient returns a Go client of the daemon, or of the proxy, that listens on the socket address. Its default containerd namespace is
// the given one. Its calls have a deadline: see [endCall] and [endStream].
func NewClient(address, namespace string) (*containerd.Client, error) {
	return containerd.New(address, containerd.WithDefaultNamespace(namespace), containerd.WithTimeout(proc.Patience),
		containerd.WithExtraDialOpts([]grpc.DialOption{grpc.WithUnaryInterceptor(endCall), grpc.WithStreamInterceptor(endStream)}))
}

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

// endStream ends a streaming call of the client if it has no deadline, and if the next message takes longer than [proc.Patience]. The whole
// call may take longer: a large blob is many messages. Content is read and written in such calls, and containers and snapshots are listed
// in them. Subscribe is no such call: it receives an event when there is one.
func endStream(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if _, ok := ctx.Deadline(); ok || strings.HasSuffix(method, "/Subscribe") {
		return open(ctx, desc, cc, method, opts...)
	}
	s := &endingStream{method: method, repeats: desc.ServerStreams}
	ctx, s.cancel = context.WithCancel(ctx)
	err := s.within(func() (err error) {
		s.ClientStream, err = open(ctx, desc, cc, method, opts...)
		return err
	})
	if err != nil {
		s.cancel()
		return nil, err
	}
	return s, nil
}

// endingStream is a stream of which each step is cancelled after [proc.Patience].
type endingStream struct {
	grpc.ClientStream
	method  string
	repeats bool // the daemon may send more than one message
	cancel  context.CancelFunc
}

// RecvMsg receives a message. After the last one it releases what the stream holds.
func (s *endingStream) RecvMsg(m any) error {
	err := s.within(func() error { return s.ClientStream.RecvMsg(m) })
	if err != nil || !s.repeats {
		s.cancel()
	}
	return err
}

// SendMsg sends a message.
func (s *endingStream) SendMsg(m any) error {
	return s.within(func() error { return s.ClientStream.SendMsg(m) })
}

func (s *endingStream) within(step func() error) error {
	timer := time.AfterFunc(proc.Patience, s.cancel)
	err := step()
	if late := !timer.Stop(); late && err != nil && err != io.EOF {
		return status.Errorf(codes.DeadlineExceeded, "containerd has sent nothing in the call %s for %v: %v", s.method, proc.Patience, err)
	}
	return err
}
