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
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Proxy is a second address of a daemon. It records each gRPC call and forwards its messages as bytes: it does not need
// to know any message type of containerd.
type Proxy struct {
	Address string // path of the proxy's socket

	daemon *grpc.ClientConn
	mu     sync.Mutex
	calls  []string // that TakeCalls has not returned yet
}

// StartProxy starts a proxy of the daemon, until the question ends. A client uses it by its address: ctr --address.
func (d *Daemon) StartProxy() *Proxy {
	d.q.Helper()
	p := startProxy(d.q, d.Address, filepath.Join(d.q.Mkdir("wire"), "sock"))
	d.q.LogCommand("# a proxy at %s records each gRPC call and forwards it to %s", p.Address, d.Address)
	return p
}

// startProxy starts a proxy, which listens on the socket address, of the gRPC server that listens on the socket daemon.
func startProxy(tb testing.TB, daemon, address string) *Proxy {
	tb.Helper()
	p := &Proxy{Address: address}
	var err error
	p.daemon, err = grpc.NewClient("unix://"+daemon, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: proc.Patience}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		tb.Fatalf("start a proxy of %s: %v", daemon, err)
	}
	l, err := net.Listen("unix", address)
	if err != nil {
		tb.Fatalf("start a proxy of %s: %v", daemon, err)
	}
	forward := func(_ any, caller grpc.ServerStream) error {
		return lab.Catch(func() error { return p.forward(caller) })
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(forward), grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(maxMessage))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	tb.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			tb.Errorf("the proxy of %s ended early: %v", daemon, err)
		}
		if err := p.daemon.Close(); err != nil {
			tb.Errorf("close the proxy of %s: %v", daemon, err)
		}
	})
	return p
}

// maxMessage is the size of the largest message that containerd and its client accept, in bytes.
const maxMessage = 16 << 20

// TakeCalls returns the calls since it was last called, such as "Tasks/Create", in the order in which they began.
func (p *Proxy) TakeCalls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.calls
	p.calls = nil
	return out
}

// HasCall reports whether a call is among those that [Proxy.TakeCalls] has not returned yet.
func (p *Proxy) HasCall(call string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.calls, call)
}

// record records the method /containerd.services.tasks.v1.Tasks/Create as Tasks/Create.
func (p *Proxy) record(method string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, method[strings.LastIndex(method, ".")+1:])
}

// forward forwards one call of any kind. It copies messages both ways until the daemon has sent its last one.
func (p *Proxy) forward(caller grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(caller)
	if !ok {
		return status.Error(codes.Internal, "the call has no method")
	}
	p.record(method)
	ctx, cancel := context.WithCancel(caller.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md) // the containerd namespace is there
	}
	toDaemon, err := p.daemon.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go func() {
		if err := lab.Catch(func() error { return copyMessages(toDaemon, caller) }); err != nil {
			cancel() // the caller has gone
			return
		}
		_ = toDaemon.CloseSend()
	}()
	err = copyMessages(caller, toDaemon)
	caller.SetTrailer(toDaemon.Trailer())
	return err
}

// copyMessages copies messages until the sender has sent its last one, or has failed.
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

// rawCodec is a codec that leaves messages as they are, in bytes.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// Name returns the name of the codec that both sides use. It is part of the content type.
func (rawCodec) Name() string { return "proto" }
