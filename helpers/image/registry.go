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
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"cdblab/helpers/lab"
	"cdblab/helpers/rootfs"
)

// addrEnv names another address for the registry, for a machine on which not every loopback port may be used.
const addrEnv = "CDB_REGISTRY_ADDR"

var oneAddress sync.Mutex

// Registry is a registry on loopback that holds the lab's image.
type Registry struct {
	Addr string // host:port

	mu       sync.Mutex
	requests []string
}

// contentOf returns what all registries of a session hold. The image is made once, and pushed without a network.
func contentOf(session *lab.Session) (http.Handler, error) {
	return lab.Once(session, "content of the registry", func() (http.Handler, error) { return push(session.RootFS()) })
}

func push(fs *rootfs.FS) (http.Handler, error) {
	held := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	for tag, image := range map[string]func(*rootfs.FS) (v1.ImageIndex, error){"latest": Index, "layered": LayeredIndex} {
		index, err := image(fs)
		if err != nil {
			return nil, fmt.Errorf("make the image: %w", err)
		}
		ref, err := name.NewTag("localhost/library/busybox:"+tag, name.Insecure)
		if err == nil {
			err = remote.WriteIndex(ref, index, remote.WithTransport(inProcess{held}))
		}
		if err != nil {
			return nil, fmt.Errorf("push the image into the registry: %w", err)
		}
	}
	return held, nil
}

// inProcess is a transport to a handler of this process.
type inProcess struct{ http.Handler }

// RoundTrip has the handler answer.
func (h inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	served := r.Clone(r.Context())
	if served.Body == nil {
		served.Body = http.NoBody // as a server's request has
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, served)
	response := w.Result()
	response.Request = r
	return response, nil
}

// Serve starts a registry that holds the lab's image, until the question ends.
func Serve(q *lab.Q) *Registry {
	q.Helper()
	addr := os.Getenv(addrEnv)
	if addr == "" {
		addr = "127.0.0.1:0" // the kernel picks a free port
	} else {
		// One address, and several questions: one after the other.
		oneAddress.Lock()
		q.TB.Cleanup(oneAddress.Unlock)
	}
	l, err := Listen(addr)
	if err != nil {
		q.Fatal(err)
	}
	held, err := contentOf(q.Session())
	if err != nil {
		q.Fatal(err)
	}
	r := &Registry{Addr: l.Addr().String()}
	server := &http.Server{Handler: r.record(held), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	// Not q.Cleanup: it lives in this process, so it cannot be kept.
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

// Listen opens the registry's port, or says who may have it.
func Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("the registry cannot listen on %s: %w\n    see who does: ss -ltnp; another address: %s=127.0.0.1:0", addr, err, addrEnv)
	}
	return l, nil
}

// Requests lists what was asked of the registry so far: "GET /v2/library/busybox/manifests/latest".
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.requests...)
}

func (r *Registry) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, req.Method+" "+req.URL.Path)
		r.mu.Unlock()
		next.ServeHTTP(w, req)
	})
}

// HostsDir makes a directory of registry configurations, as --hosts-dir takes it, which sends who asks for docker.io to
// this registry, and nowhere else.
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
