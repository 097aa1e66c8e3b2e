//go:build linux

package ctrd

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Wire is a second address of a daemon, which notes each call and passes it on, in bytes: it knows no message of
// containerd's.
type Proxy struct {
	Address string

	to    *grpc.ClientConn
	mu    sync.Mutex
	calls []string
}

// Tap makes an address at which a client reaches the daemon and is noted: ctr --address.
func (d *Daemon) StartProxy() *Proxy {
	d.q.Helper()
	w := startProxy(d.q, d.Address, filepath.Join(d.q.Mkdir("wire"), "sock"))
	d.q.LogCommand("# a proxy at %s notes each gRPC call and passes it on to %s", w.Address, d.Address)
	return w
}

func startProxy(tb testing.TB, address, at string) *Proxy {
	tb.Helper()
	w := &Proxy{Address: at}
	var err error
	w.to, err = grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		tb.Fatalf("tap %s: %v", address, err)
	}
	l, err := net.Listen("unix", at)
	if err != nil {
		tb.Fatalf("tap %s: %v", address, err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(w.forward), grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(maxMessage))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	tb.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			tb.Errorf("the tap of %s ended early: %v", address, err)
		}
		if err := w.to.Close(); err != nil {
			tb.Errorf("close the tap of %s: %v", address, err)
		}
	})
	return w
}

// maxMessage is the largest message that containerd and its client take.
const maxMessage = 16 << 20

// Calls returns the calls since it was last asked: "Tasks/Create", in the order in which they began.
func (w *Proxy) TakeCalls() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.calls
	w.calls = nil
	return out
}

// Has says whether a call is among those that have not been asked for yet.
func (w *Proxy) HasCall(call string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.calls, call)
}

// note notes /containerd.services.tasks.v1.Tasks/Create as Tasks/Create.
func (w *Proxy) note(method string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, method[strings.LastIndex(method, ".")+1:])
}

// pass is one call, of whatever kind: messages go both ways until one side has said its last.
func (w *Proxy) forward(_ any, caller grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(caller)
	if !ok {
		return status.Error(codes.Internal, "a call without a method")
	}
	w.note(method)
	ctx, cancel := context.WithCancel(caller.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md) // the containerd namespace is there
	}
	daemon, err := w.to.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go func() {
		if err := copyMessages(daemon, caller); err != nil {
			cancel() // the caller has gone
			return
		}
		_ = daemon.CloseSend()
	}()
	err = copyMessages(caller, daemon)
	caller.SetTrailer(daemon.Trailer())
	return err
}

// copyMessages copies until the sender has said its last, or has failed.
func copyMessages(to interface{ SendMsg(any) error }, from interface{ RecvMsg(any) error }) error {
	for {
		var message []byte
		switch err := from.RecvMsg(&message); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
		if err := to.SendMsg(&message); err != nil {
			return err
		}
	}
}

// asBytes is a codec that leaves messages as they are.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// Name is that of the codec which both sides really use: it is in the content type.
func (rawCodec) Name() string { return "proto" }
