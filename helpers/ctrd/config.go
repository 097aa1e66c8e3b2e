//go:build linux

package ctrd

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"text/template"
)

// config is the whole configuration of a private containerd. Root, state and address are not enough to make it private:
// socket_dir moves the shims' sockets, which are otherwise in /run/containerd/s. The disabled plugins make directories
// of their own (/opt/containerd, /run/nri) or read those of the host (/etc/cni), and the lab has no use for them. The image verifier executes
// the programs of a directory for each pull, and the transfer service of some releases needs it, so it gets a directory that is not there.
//
// The timeouts, which are 5 s or less by default, are the only other setting that is changed. What containerd cannot
// clean up in time after a shim's death stays behind, and it publishes an exit with status 255. That was seen on a busy
// machine under emulation. A task whose shim does not tell its state within 2 s cannot be found. That was seen on a machine with a load of
// 100.
var config = template.Must(template.New("config.toml").Parse(`version = {{.Features.Version}}
root = "{{.Root}}"
state = "{{.State}}"
disabled_plugins = [{{range $i, $plugin := .DisabledPlugins}}{{if $i}},{{end}}
  "{{$plugin}}"{{end}}
]

[grpc]
  address = "{{.Address}}"

[timeouts]
  "io.containerd.timeout.shim.cleanup" = "2m"
  "io.containerd.timeout.shim.load" = "2m"
  "io.containerd.timeout.shim.shutdown" = "2m"
  "io.containerd.timeout.task.state" = "2m"

[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = "{{.Empty}}"
{{if .Features.SocketDir}}
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = "{{.SocketDir}}"
{{end}}{{range .Tables}}
{{.}}
{{end}}`))

var disabledPlugins = []string{
	"io.containerd.grpc.v1.cri",
	"io.containerd.cri.v1.images",
	"io.containerd.cri.v1.runtime",
	"io.containerd.podsandbox.controller.v1.podsandbox",
	"io.containerd.nri.v1.nri",
	"io.containerd.internal.v1.opt",
}

// maxSocketDir is the length of the longest socket_dir that containerd accepts, in bytes. sun_path of unix(7) has 108
// bytes, and the rest is needed for a separator and a sha256 in hexadecimal, among others.
const maxSocketDir = 42

// settings are the values of a private containerd's configuration. Its paths are all below the question's directory, or
// below the run's directory if the daemon is shared.
type settings struct {
	Root, State, Address, SocketDir, RuncRoot string
	Empty                                     string // a directory that does not exist

	DisabledPlugins []string
	Features        features
	Tables          []string // tables to append
}

// configuration is what a private containerd has beside its [settings].
type configuration struct {
	tables []string    // to append
	node   *NodeConfig // in place of the lab's configuration, if not nil
}

// toml returns the text of the whole configuration.
func (c configuration) toml(s settings) (string, error) {
	if c.node != nil {
		text, err := c.node.toml(s)
		return string(text), err
	}
	var out bytes.Buffer
	s.Tables = c.tables
	err := config.Execute(&out, s)
	return out.String(), err
}

// newSettings returns the settings of a containerd whose own directory is dir.
func newSettings(dir string, f features) (settings, error) {
	s := settings{
		Root:            filepath.Join(dir, "root"),
		State:           filepath.Join(dir, "state"),
		Address:         filepath.Join(dir, "containerd.sock"),
		SocketDir:       filepath.Join(filepath.Dir(dir), "s"),
		RuncRoot:        filepath.Join(dir, "runc"),
		Empty:           filepath.Join(dir, "empty"),
		DisabledPlugins: disabledPlugins,
		Features:        f,
	}
	if !f.SocketDir {
		s.SocketDir = defaultSocketDir
	}
	if !f.RuncRoot {
		s.RuncRoot = defaultRuncRoot
	}
	if len(s.SocketDir) > maxSocketDir {
		return s, fmt.Errorf("socket_dir %s has %d bytes, but containerd accepts %d at most", s.SocketDir, len(s.SocketDir), maxSocketDir)
	}
	return s, nil
}

// DisabledPlugins returns the plugins that a private containerd does not load, for a question that writes a configuration of its own.
func DisabledPlugins() []string { return slices.Clone(disabledPlugins) }
