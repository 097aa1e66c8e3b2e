//go:build linux

package ctrd

import (
	"encoding/json"
	"path/filepath"
	"strings"

	"cdblab/helpers/file"
)

// Bootstrap is what a bundle says of how its shim is reached.
type Bootstrap struct {
	Version           int    // of the shim's protocol; 2 if the bundle has only the address
	Address, Protocol string // "unix:///…", "ttrpc"; the latter also if the bundle has only the address

	File string `json:"-"` // the name of the file in the bundle
}

// socket returns the path of the shim's socket.
func (b Bootstrap) socket() string { return strings.TrimPrefix(b.Address, "unix://") }

// Bootstrap reads how the shim of a container is reached from the container's bundle.
func (d *Daemon) Bootstrap(id string) Bootstrap {
	d.q.Helper()
	b, err := readBootstrap(d.Bundle(id))
	if err != nil {
		d.q.Fatalf("find the address of the shim of %s: %v", id, err)
	}
	return b
}

// readBootstrap reads how a shim is reached from a bundle. containerd 2 writes bootstrap.json. An older one writes the file address, which
// has only the address: the protocol is then TTRPC in version 2.
func readBootstrap(bundle string) (Bootstrap, error) {
	path := ShimAddressFile(bundle)
	text, err := file.TryRead(path)
	b := Bootstrap{File: filepath.Base(path)}
	switch {
	case err != nil:
	case b.File == "address":
		b.Version, b.Address, b.Protocol = 2, text, "ttrpc"
	default:
		err = json.Unmarshal([]byte(text), &b)
	}
	return b, err
}
