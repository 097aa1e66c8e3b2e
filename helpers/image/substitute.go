//go:build linux

package image

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Substitute is what a [Registry] sends in place of what it has. With it, a question has a registry that lies, or one whose connection
// breaks off.
type Substitute struct {
	Body      []byte
	MediaType string
	Digest    digest.Digest // of the header Docker-Content-Digest; none if it is ""
	BreakOff  int64         // the connection is closed before this byte is sent; 0: it is not closed
}

// Substitute has the registry send this in place of what it has, for a path of the image's repository: "manifests/latest" or
// "blobs/sha256:…". A request for a range of bytes gets it, which the lab's honest registry cannot do.
func (r *Registry) Substitute(path string, s Substitute) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.substitutes == nil {
		r.substitutes = map[string]Substitute{}
	}
	r.substitutes["/v2/library/busybox/"+path] = s
}

// Hold has the registry answer no GET request for a path of the image's repository, until it is released.
func (r *Registry) Hold(path string) (release func()) {
	held := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = map[string]chan struct{}{}
	}
	r.held["/v2/library/busybox/"+path] = held
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.held, "/v2/library/busybox/"+path)
		close(held)
	})
}

// BeHonest has the registry send what it has, for each path.
func (r *Registry) BeHonest() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.substitutes = nil
}

// Ranges returns the ranges of bytes that were asked for so far, such as "bytes=546872-".
func (r *Registry) Ranges() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.ranges...)
}

// ServeHTTP sends the substitute.
func (s Substitute) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", s.MediaType)
	if s.Digest != "" {
		w.Header().Set("Docker-Content-Digest", s.Digest.String())
	}
	var body io.ReadSeeker = bytes.NewReader(s.Body)
	if s.BreakOff > 0 {
		body = &brokenReader{ReadSeeker: body, w: w, left: s.BreakOff}
	}
	http.ServeContent(w, r, "", time.Time{}, body)
}

// brokenReader is a body whose connection breaks off.
type brokenReader struct {
	io.ReadSeeker
	w    http.ResponseWriter
	left int64 // bytes until it breaks off
}

// Seek goes to an offset, as [http.ServeContent] does to learn the size, and to begin where a range begins.
func (b *brokenReader) Seek(offset int64, whence int) (int64, error) {
	before, err := b.ReadSeeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	at, err := b.ReadSeeker.Seek(offset, whence)
	b.left -= at - before
	return at, err
}

// Read reads up to where the connection breaks off. There it sends what was read so far, and closes the connection.
func (b *brokenReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		_ = http.NewResponseController(b.w).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := b.ReadSeeker.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
