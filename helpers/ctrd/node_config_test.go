//go:build linux

package ctrd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// What containerd prints of a configuration, cut down to the keys that are read, and some that name places of the machine.
var nodeConfigs = map[string]string{
	"1.7.29": `version = 2
root = "/data/containerd"
imports = ["/etc/containerd/conf.d/a.toml"]
[cgroup]
  path = "/system.slice/containerd"
[metrics]
  address = "127.0.0.1:1338"
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    stream_server_port = "10010"
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/opt/cni/bin"
      conf_dir = "/etc/cni/net.d"
    [plugins."io.containerd.grpc.v1.cri".containerd]
      default_runtime_name = "nvidia"
      snapshotter = "native"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
        runtime_type = "io.containerd.runc.v2"
        runtime_path = "/opt/shim"
        snapshotter = ""
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
          BinaryName = "nvidia-container-runtime"
          Root = "/run/of/the/machine"
          ShimCgroup = "/system.slice/shims"
          SystemdCgroup = true
  [plugins."io.containerd.snapshotter.v1.devmapper"]
    pool_name = "pool"
[proxy_plugins]
  [proxy_plugins.stargz]
    address = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock"
`,
	"2.2.3": `version = 3
root = '/var/lib/containerd'
[plugins]
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.runtime']
    [plugins.'io.containerd.cri.v1.runtime'.cni]
      bin_dir = ''
      bin_dirs = ['/opt/cni/bin']
      conf_dir = '/etc/cni/net.d'
    [plugins.'io.containerd.cri.v1.runtime'.containerd]
      default_runtime_name = 'nvidia'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]
        runtime_type = 'io.containerd.runc.v2'
        snapshotter = 'native'
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia.options]
          BinaryName = 'nvidia-container-runtime'
          SystemdCgroup = true
  [plugins.'io.containerd.image-verifier.v1.bindir']
    bin_dir = '/opt/containerd/image-verifier/bin'
`,
}

func TestParseNodeConfig_ReadsWhatIsDecidedForPods(t *testing.T) {
	for version, text := range nodeConfigs {
		c, err := parseNodeConfig([]byte(text))
		assert.NilError(t, err, version)
		got := fmt.Sprint(c.Runtime, c.RuntimeType, c.BinaryName, c.SystemdCgroup, c.Snapshotter)
		assert.Equal(t, got, fmt.Sprint("nvidia", "io.containerd.runc.v2", "nvidia-container-runtime", true, "native"), version)
	}
}

func TestParseNodeConfig_NeedsTheCRIPlugin(t *testing.T) {
	for _, text := range []string{
		"version = 4", // built without the plugin
		"[plugins.'io.containerd.nri.v1.nri']",
		"disabled_plugins = ['cri']\n[plugins.'io.containerd.grpc.v1.cri'.containerd]",
		"disabled_plugins = ['io.containerd.cri.v1.images']\n[plugins.'io.containerd.cri.v1.runtime'.containerd]",
	} {
		_, err := parseNodeConfig([]byte(text))
		assert.ErrorIs(t, err, ErrNoCRI, text)
	}
	_, err := parseNodeConfig([]byte("disabled_plugins = ['zfs']\n[plugins.'io.containerd.grpc.v1.cri'.containerd]"))
	assert.NilError(t, err)
}

// The configuration of the private daemon has no path and no address but its own, and those of programs that have to be there.
func TestNodeConfig_NamesNoPlaceOfTheMachine(t *testing.T) {
	for version, text := range nodeConfigs {
		c, err := parseNodeConfig([]byte(text))
		assert.NilError(t, err)
		s, err := newSettings("/lab/q3/containerd", pinnedFeatures)
		assert.NilError(t, err)
		written, err := c.toml(s)
		assert.NilError(t, err)
		var tree map[string]any
		assert.NilError(t, toml.Unmarshal(written, &tree))
		places := 0
		eachString(tree, func(text string) {
			if strings.ContainsAny(text, "/:") {
				places++
				assert.Check(t, strings.HasPrefix(text, "/lab/q3/"), "%s: a place of the machine: %s", version, text)
			}
		})
		assert.Check(t, places >= 6, "%s: %d places", version, places)
		assert.Check(t, cmp.Contains(string(written), "SystemdCgroup = true"))
		assert.Check(t, cmp.Contains(string(written), "nvidia-container-runtime"))
		if c.hasBinDirs {
			assert.Check(t, cmp.Contains(string(written), "bin_dir = ''"), "%s: both keys have a value, which containerd 2.1 refuses", version)
		}
	}
}

// eachString calls do for each string in a value of TOML.
func eachString(value any, do func(string)) {
	switch v := value.(type) {
	case string:
		do(v)
	case []any:
		for _, inner := range v {
			eachString(inner, do)
		}
	case map[string]any:
		for _, inner := range v {
			eachString(inner, do)
		}
	}
}
