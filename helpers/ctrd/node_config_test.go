//go:build linux

package ctrd

import (
	"testing"

	"github.com/pelletier/go-toml/v2"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// What containerd 1.7.29 and 2.4.2 print of a configuration, cut down to the keys with a place, and those that the lab changes.
var nodeConfigs = map[string]string{
	"1.7.29": `version = 2
root = "/data/containerd"
state = "/run/containerd"
temp = "/data/tmp"
plugin_dir = ""
imports = ["/etc/containerd/conf.d/a.toml"]
[cgroup]
  path = "/system.slice/containerd"
[debug]
  address = "/run/containerd/debug.sock"
[grpc]
  address = "/run/containerd/containerd.sock"
  tcp_address = "10.0.0.1:2376"
[metrics]
  address = "127.0.0.1:1338"
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    restrict_oom_score_adj = false
    sandbox_image = "registry.k8s.io/pause:3.8"
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/opt/cni/bin"
      conf_dir = "/etc/cni/net.d"
    [plugins."io.containerd.grpc.v1.cri".containerd]
      default_runtime_name = "runc"
      snapshotter = "overlayfs"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
          Root = ""
          SystemdCgroup = true
  [plugins."io.containerd.internal.v1.opt"]
    path = "/opt/containerd"
  [plugins."io.containerd.nri.v1.nri"]
    disable = false
    socket_path = "/var/run/nri/nri.sock"
  [plugins."io.containerd.snapshotter.v1.overlayfs"]
    root_path = "/data/overlayfs"
[proxy_plugins]
  [proxy_plugins.stargz]
    address = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock"
[timeouts]
  "io.containerd.timeout.task.state" = "2s"
[ttrpc]
  address = ""
`,
	"2.4.2": `version = 4
root = '/var/lib/containerd'
state = '/run/containerd'
imports = ['/etc/containerd/conf.d/*.toml']
[plugins]
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs'
    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = 'registry.k8s.io/pause:3.10.2'
  [plugins.'io.containerd.cri.v1.runtime']
    [plugins.'io.containerd.cri.v1.runtime'.cni]
      bin_dirs = ['/opt/cni/bin']
      conf_dir = '/etc/cni/net.d'
    [plugins.'io.containerd.cri.v1.runtime'.containerd]
      default_runtime_name = 'runc'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
        runtime_type = 'io.containerd.runc.v2'
        snapshotter = ''
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
          SystemdCgroup = true
  [plugins.'io.containerd.internal.v1.opt']
    path = '/opt/containerd'
  [plugins.'io.containerd.nri.v1.nri']
    disable = false
    socket_path = '/var/run/nri/nri.sock'
  [plugins.'io.containerd.server.v1.debug']
    address = '/run/containerd/debug.sock'
  [plugins.'io.containerd.server.v1.grpc']
    address = '/run/containerd/containerd.sock'
  [plugins.'io.containerd.server.v1.grpc-tcp']
    address = '10.0.0.1:2376'
  [plugins.'io.containerd.server.v1.metrics']
    address = '127.0.0.1:1338'
  [plugins.'io.containerd.server.v1.ttrpc']
    address = '/run/containerd/containerd.sock.ttrpc'
  [plugins.'io.containerd.shim.v1.manager']
    socket_dir = ''
  [plugins.'io.containerd.snapshotter.v1.overlayfs']
    root_path = '/data/overlayfs'
[timeouts]
  'io.containerd.timeout.task.state' = '2s'
`,
}

func TestNodeConfig_NamesOnlyThePlacesOfThePrivateDaemon(t *testing.T) {
	for version, text := range nodeConfigs {
		var c NodeConfig
		assert.NilError(t, toml.Unmarshal([]byte(text), &c.tree), version)
		private, err := newSettings("/lab/q3/containerd", pinnedFeatures)
		assert.NilError(t, err)
		written, err := configuration{node: &c}.toml(private)
		assert.NilError(t, err)
		for _, place := range []string{
			"/data", "/run/containerd", "/var/lib", "/opt", "/etc/cni", "/etc/containerd", "10.0.0.1", "127.0.0.1", "stargz", "/system.slice",
		} {
			assert.Check(t, !cmp.Contains(written, place)().Success(), "%s: the configuration names %s:\n%s", version, place, written)
		}
		var again NodeConfig
		assert.NilError(t, toml.Unmarshal([]byte(written), &again.tree))
		assert.Equal(t, again.tree["root"], "/lab/q3/containerd/root")
		assert.Equal(t, again.plugin("io.containerd.nri.v1.nri")["disable"], true)
		assert.Equal(t, again.runtime().table("options")["Root"], "/lab/q3/containerd/runc")
		assert.Equal(t, again.tree.table("timeouts")["io.containerd.timeout.task.state"], "2m")
		assert.Check(t, again.SystemdCgroup(), "%s: SystemdCgroup is lost", version)
		assert.Equal(t, c.tree["state"], "/run/containerd", "%s: the original is changed", version)
	}
}

func TestNodeConfig_ReadsAndChangesTheSettingsOfPods(t *testing.T) {
	for version, text := range nodeConfigs {
		var c NodeConfig
		assert.NilError(t, toml.Unmarshal([]byte(text), &c.tree), version)
		assert.Check(t, c.HasCRI())
		assert.Equal(t, c.Runtime(), "runc")
		assert.Equal(t, c.RuntimeType(), "io.containerd.runc.v2")
		assert.Equal(t, c.Snapshotter(), "overlayfs")
		other := c.Clone()
		other.SetSnapshotter("native")
		other.SetSystemdCgroup(false)
		assert.Equal(t, other.Snapshotter(), "native")
		assert.Check(t, !other.SystemdCgroup() && c.SystemdCgroup())
		assert.Equal(t, c.Snapshotter(), "overlayfs")
	}
}

func TestNodeConfig_HasCRI(t *testing.T) {
	for text, want := range map[string]bool{
		"version = 4":                          false, // built without the plugin
		"[plugins.'io.containerd.nri.v1.nri']": false,
		"disabled_plugins = ['cri']\n[plugins.'io.containerd.grpc.v1.cri'.containerd]":                            false,
		"disabled_plugins = ['io.containerd.cri.v1.images']\n[plugins.'io.containerd.cri.v1.runtime'.containerd]": false,
		"disabled_plugins = ['zfs']\n[plugins.'io.containerd.grpc.v1.cri'.containerd]":                            true,
	} {
		var c NodeConfig
		assert.NilError(t, toml.Unmarshal([]byte(text), &c.tree))
		assert.Equal(t, c.HasCRI(), want, text)
	}
}
