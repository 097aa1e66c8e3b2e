//go:build linux

package ctrd

import (
	"fmt"
	"path/filepath"
	"text/template"
)

// config is the whole configuration of a private containerd. Root, state and address are not enough for it to keep to
// itself: socket_dir moves the shims' sockets, which are otherwise in /run/containerd/s, and the disabled plugins make
// directories of their own (/opt/containerd, /run/nri, /etc/cni is read) that the lab has no use for.
//
// The timeouts, by default 5 s and less, are the only other thing that is not as it comes: what containerd does not clear
// away in time after a shim's death it leaves behind, and tells an exit with 255; on a busy machine under emulation that
// was seen to happen.
var config = template.Must(template.New("config.toml").Parse(`version = {{.Dialect.Version}}
root = "{{.Root}}"
state = "{{.State}}"
disabled_plugins = [{{range $i, $p := .Disabled}}{{if $i}},{{end}}
  "{{$p}}"{{end}}
]

[grpc]
  address = "{{.Address}}"

[timeouts]
  "io.containerd.timeout.shim.cleanup" = "2m"
  "io.containerd.timeout.shim.load" = "2m"
  "io.containerd.timeout.shim.shutdown" = "2m"
{{if .Dialect.SocketDir}}
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "{{.SocketDir}}"
{{end}}{{range .Extra}}
{{.}}
{{end}}`))

var disabled = []string{
	"io.containerd.grpc.v1.cri",
	"io.containerd.cri.v1.images",
	"io.containerd.cri.v1.runtime",
	"io.containerd.podsandbox.controller.v1.podsandbox",
	"io.containerd.nri.v1.nri",
	"io.containerd.internal.v1.opt",
}

// maxSocketDir is the longest socket_dir that containerd takes, in bytes: sun_path of unix(7) has 108, of which a
// separator and a sha256 in hexadecimal, among others, need the rest.
const maxSocketDir = 42

// paths are the places of a private containerd, all below the question's directory (or the run's, if it is shared).
type paths struct {
	Root, State, Address, SocketDir, RuncRoot string

	Disabled []string
	Dialect  features
	Extra    []string // tables to append
}

func newPaths(dir string, as features) (paths, error) {
	p := paths{
		Root:      filepath.Join(dir, "root"),
		State:     filepath.Join(dir, "state"),
		Address:   filepath.Join(dir, "containerd.sock"),
		SocketDir: filepath.Join(filepath.Dir(dir), "s"),
		RuncRoot:  filepath.Join(dir, "runc"),
		Disabled:  disabled,
		Dialect:   as,
	}
	if !as.SocketDir {
		p.SocketDir = defaultSocketDir
	}
	if !as.RuncRoot {
		p.RuncRoot = defaultRuncRoot
	}
	if len(p.SocketDir) > maxSocketDir {
		return p, fmt.Errorf("%s is %d bytes long, and containerd takes a socket_dir of %d at the most", p.SocketDir, len(p.SocketDir), maxSocketDir)
	}
	return p, nil
}

// GarbageOnDemand is a table of the configuration with which the daemon collects garbage only when a client waits for it.
// By default the daemon does so when it starts, and every second or so after something was deleted: between any two
// steps of a question.
const GarbageOnDemand = `[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "1h"
  pause_threshold = 0.0000001`
