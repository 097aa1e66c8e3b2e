//go:build linux

package image

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"cdblab/helpers/lab"
	"cdblab/helpers/rootfs"
)

// fixedAddress is held while a registry listens on an address that the user has chosen.
var fixedAddress sync.Mutex

// Registry is a registry on loopback that has the lab's images.
type Registry struct {
	Addr string // host:port

	mu          sync.Mutex
	requests    []string
	ranges      []string              // of requests that ask for a range of bytes
	substitutes map[string]Substitute // by the path of the request
	held        map[string]chan struct{}
}

// handlerOf returns the handler that all registries of a session serve. Its images are made once.
func handlerOf(session *lab.Session) (http.Handler, error) {
	return lab.Once(session, "content of the registry", func() (http.Handler, error) { return newHandler(session.RootFS()) })
}

// newHandler returns the handler of a registry that has the lab's images. They are pushed without a network.
func newHandler(fs *rootfs.FS) (http.Handler, error) {
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	for tag, newIndex := range map[string]func(*rootfs.FS) (v1.ImageIndex, error){
		"latest": Index, "layered": LayeredIndex, "platforms": PlatformsIndex, "pause": PauseIndex, "in-etc": InEtcIndex,
	} {
		index, err := newIndex(fs)
		if err != nil {
			return nil, fmt.Errorf("make the image busybox:%s: %w", tag, err)
		}
		ref, err := name.NewTag("localhost/library/busybox:"+tag, name.Insecure)
		if err == nil {
			err = remote.WriteIndex(ref, index, remote.WithTransport(inProcess{handler}))
		}
		if err != nil {
			return nil, fmt.Errorf("push the image busybox:%s into the registry: %w", tag, err)
		}
	}
	return handler, nil
}

// readOnly returns a handler that refuses every request that would change the registry, such as a push.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the lab's registry serves images and accepts none", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// inProcess is an HTTP transport to a handler in this process.
type inProcess struct{ http.Handler }

// RoundTrip returns the handler's response to a request.
func (h inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	served := r.Clone(r.Context())
	if served.Body == nil {
		served.Body = http.NoBody // the body of a request that a server gets is never nil
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, served)
	response := w.Result()
	response.Request = r
	return response, nil
}

// Serve starts a registry that has the lab's images. It serves until the question ends.
func Serve(q *lab.Q) *Registry {
	q.Helper()
	addr, chosen := q.Session().RegistryAddr()
	if chosen {
		// Several questions cannot listen on one address at once: they use it one after the other.
		fixedAddress.Lock()
		q.TB.Cleanup(fixedAddress.Unlock)
	}
	l, err := Listen(addr)
	if err != nil {
		q.Fatal(err)
	}
	handler, err := handlerOf(q.Session())
	if err != nil {
		q.Fatal(err)
	}
	r := &Registry{Addr: l.Addr().String()}
	server := &http.Server{Handler: r.record(readOnly(handler)), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	// Not q.Cleanup: the registry is part of this process, so it ends with it even if state is kept.
	q.TB.Cleanup(func() {
		if err := server.Close(); err != nil {
			q.Errorf("close the registry: %v", err)
		}
		if err := <-done; err != http.ErrServerClosed {
			q.Errorf("the registry ended early: %v", err)
		}
	})

	return r
}

// Listen listens on the registry's address. If it cannot, its error says how to find the process that does.
func Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("the registry cannot listen on %s: %w\n"+
			"    to see which process does: ss -ltnp; to use another address: CDB_REGISTRY_ADDR=127.0.0.1:0", addr, err)
	}
	return l, nil
}

// Requests returns the requests so far, such as "GET /v2/library/busybox/manifests/latest".
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// record returns a handler that records each request before next handles it, or the [Substitute] of its path.
func (r *Registry) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		if asked := req.Header.Get("Range"); asked != "" {
			r.ranges = append(r.ranges, asked)
		}
		substitute, substituted := r.substitutes[req.URL.Path]
		held := r.held[req.URL.Path]
		r.mu.Unlock()
		if held != nil && req.Method == http.MethodGet {
			select {
			case <-held:
			case <-req.Context().Done():
			}
		}
		if substituted {
			readOnly(substitute).ServeHTTP(w, req)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// HostsDir makes a directory of registry configurations for ctr's option --hosts-dir, and returns its path. With it,
// containerd pulls the images of docker.io from this registry, and from nowhere else.
func (r *Registry) HostsDir(q *lab.Q) string {
	q.Helper()
	dir := q.Mkdir("hosts")
	toml := fmt.Sprintf("server = \"http://%[1]s\"\n\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", r.Addr)
	if err := os.Mkdir(filepath.Join(dir, "docker.io"), 0o755); err != nil {
		q.Fatalf("write hosts.toml: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "docker.io", "hosts.toml"), []byte(toml), 0o644); err != nil {
		q.Fatalf("write hosts.toml: %v", err)
	}
	q.LogCommandAs(fmt.Sprintf("cat > hosts/docker.io/hosts.toml   # docker.io is served by http://%s", r.Addr),
		"mkdir -p hosts/docker.io && cat > hosts/docker.io/hosts.toml <<'END'\n"+toml+"END")
	return dir
}
