//go:build linux

package ctrd

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"cdblab/helpers/host"
	"cdblab/helpers/lab"
)

// NodeConfig is the whole configuration of this machine's own containerd, with the default of each key that its file leaves out, as the
// containerd under test reads it. It has the format of that containerd: an older one is converted.
type NodeConfig struct {
	File string // host.ContainerdConfig, or "" if the machine has none: the configuration is then containerd's default

	tree table
}

// table is a table of TOML. Names with dots are one key.
type table map[string]any

// ReadNodeConfig has the containerd under test print its configuration of this machine.
func ReadNodeConfig(q *lab.Q) *NodeConfig {
	q.Helper()
	c := &NodeConfig{File: host.ContainerdConfig}
	argv := []string{"containerd", "--config", c.File, "config", "dump"}
	if _, err := os.Stat(c.File); errors.Is(err, fs.ErrNotExist) {
		c.File, argv = "", []string{"containerd", "config", "default"}
	}
	if err := toml.Unmarshal([]byte(q.Must(argv...).Stdout), &c.tree); err != nil {
		q.Fatalf("read what %s has printed: %v", strings.Join(argv, " "), err)
	}
	return c
}

// Clone returns a copy that can be changed without the original.
func (c *NodeConfig) Clone() *NodeConfig { return &NodeConfig{c.File, clone(c.tree)} }

func clone(t table) table {
	out := table{}
	for key, value := range t {
		if inner, ok := value.(map[string]any); ok {
			value = map[string]any(clone(inner))
		}
		out[key] = value
	}
	return out
}

// The names of the CRI plugin: one up to containerd 1.7, and two since 2.0, for the containers and for the images.
const (
	oldCRI     = "io.containerd.grpc.v1.cri"
	criRuntime = "io.containerd.cri.v1.runtime"
	criImages  = "io.containerd.cri.v1.images"
)

// plugin returns the first of the plugins that the configuration has a table of. Without one it is nil.
func (c *NodeConfig) plugin(names ...string) table {
	plugins := c.tree.table("plugins")
	for _, name := range names {
		if t := plugins.table(name); t != nil {
			return t
		}
	}
	return nil
}

// table returns the table at a path, or nil.
func (t table) table(path ...string) table {
	for _, key := range path {
		inner, ok := t[key].(map[string]any)
		if !ok {
			return nil
		}
		t = inner
	}
	return t
}

// HasCRI reports whether the containerd under test has the CRI plugin, and the configuration does not disable it. Without it, containerd
// serves no kubelet.
func (c *NodeConfig) HasCRI() bool {
	if c.plugin(criRuntime, oldCRI).table("containerd") == nil {
		return false
	}
	disabled, _ := c.tree["disabled_plugins"].([]any)
	return !slices.ContainsFunc(disabled, func(name any) bool {
		return slices.Contains([]any{"cri", oldCRI, criRuntime, criImages}, name)
	})
}

// Runtime returns the name of the runtime of pods that ask for none.
func (c *NodeConfig) Runtime() string {
	name, _ := c.plugin(criRuntime, oldCRI).table("containerd")["default_runtime_name"].(string)
	return name
}

// RuntimeType returns the type of that runtime, which names the shim: "io.containerd.runc.v2".
func (c *NodeConfig) RuntimeType() string {
	value, _ := c.runtime()["runtime_type"].(string)
	return value
}

func (c *NodeConfig) runtime() table {
	return c.plugin(criRuntime, oldCRI).table("containerd", "runtimes", c.Runtime())
}

// SystemdCgroup reports whether that runtime uses the systemd cgroup driver.
func (c *NodeConfig) SystemdCgroup() bool {
	value, _ := c.runtime().table("options")["SystemdCgroup"].(bool)
	return value
}

// SetSystemdCgroup changes what [NodeConfig.SystemdCgroup] returns.
func (c *NodeConfig) SetSystemdCgroup(value bool) { c.setOption(c.runtime(), "SystemdCgroup", value) }

func (*NodeConfig) setOption(runtime table, key string, value any) {
	if runtime.table("options") == nil {
		runtime["options"] = map[string]any{}
	}
	runtime.table("options")[key] = value
}

// Snapshotter returns the name of the snapshotter for pods: that of the runtime, if it has one.
func (c *NodeConfig) Snapshotter() string {
	value, _ := c.snapshotterTable()["snapshotter"].(string)
	return value
}

// SetSnapshotter changes what [NodeConfig.Snapshotter] returns.
func (c *NodeConfig) SetSnapshotter(name string) { c.snapshotterTable()["snapshotter"] = name }

func (c *NodeConfig) snapshotterTable() table {
	if name, _ := c.runtime()["snapshotter"].(string); name != "" {
		return c.runtime()
	}
	if images := c.plugin(criImages); images != nil {
		return images
	}
	return c.plugin(oldCRI).table("containerd")
}

// SetSandboxImage changes the image of each pod's sandbox.
func (c *NodeConfig) SetSandboxImage(ref string) {
	if images := c.plugin(criImages); images != nil {
		images["pinned_images"] = map[string]any{"sandbox": ref}
		return
	}
	c.plugin(oldCRI)["sandbox_image"] = ref
}

// KeepOOMScores has a pod's processes keep containerd's oom_score_adj, where they would get a lower one. Only a process with
// CAP_SYS_RESOURCE may lower it.
func (c *NodeConfig) KeepOOMScores() { c.plugin(criRuntime, oldCRI)["restrict_oom_score_adj"] = true }

// PassAnnotations has the annotations of pods with this prefix passed on to the runtime.
func (c *NodeConfig) PassAnnotations(prefix string) {
	for _, key := range []string{"pod_annotations", "container_annotations"} {
		c.runtime()[key] = []any{prefix + "*"}
	}
}

// privateTo changes all places to those of a private containerd: directories, sockets and addresses, and what containerd reads from other
// directories of the machine.
func (c *NodeConfig) privateTo(s settings) {
	t, empty := c.tree, filepath.Join(filepath.Dir(s.Root), "empty")
	maps.Copy(t, table{"root": s.Root, "state": s.State, "temp": "", "imports": []any{}})
	set := func(value any, path ...string) {
		if inner := t.table(path[:len(path)-1]...); inner != nil && inner[path[len(path)-1]] != nil {
			inner[path[len(path)-1]] = value
		}
	}
	for _, server := range [][]string{{}, {"plugins"}} { // since 2.3 the servers are plugins
		name := func(old, plugin string) []string {
			if len(server) == 0 {
				return []string{old}
			}
			return []string{"plugins", "io.containerd.server.v1." + plugin}
		}
		set(s.Address, append(name("grpc", "grpc"), "address")...)
		set("", append(name("grpc", "grpc"), "tcp_address")...)
		set("", append(name("grpc", "grpc-tcp"), "address")...)
		set(s.Address+".ttrpc", append(name("ttrpc", "ttrpc"), "address")...)
		set("", append(name("debug", "debug"), "address")...)
		set("", append(name("metrics", "metrics"), "address")...)
	}
	set("", "cgroup", "path")
	set(s.SocketDir, "plugins", "io.containerd.shim.v1.manager", "socket_dir")
	set(empty, "plugins", "io.containerd.internal.v1.opt", "path")
	set(true, "plugins", "io.containerd.nri.v1.nri", "disable")
	for name := range t.table("plugins") {
		set("", "plugins", name, "root_path") // of a snapshotter
	}
	delete(t, "proxy_plugins") // programs of the machine
	timeouts := t.table("timeouts")
	for name := range timeouts {
		if slices.Contains([]string{"cleanup", "load", "shutdown", "state"}, name[strings.LastIndex(name, ".")+1:]) {
			timeouts[name] = "2m" // see config
		}
	}
	if cri := c.plugin(criRuntime, oldCRI); cri != nil {
		for key, value := range map[string]any{"bin_dir": empty, "bin_dirs": []any{empty}, "conf_dir": empty} {
			if cni := cri.table("cni"); cni[key] != nil {
				cni[key] = value
			}
		}
		for _, runtime := range cri.table("containerd", "runtimes") {
			if inner, ok := runtime.(map[string]any); ok && inner["runtime_type"] == "io.containerd.runc.v2" {
				c.setOption(inner, "Root", filepath.Join(filepath.Dir(s.Root), "runc"))
			}
		}
	}
}

// Reconfigure has the next [Daemon.Start] start the daemon with another configuration of a node.
func (d *Daemon) Reconfigure(node *NodeConfig) {
	d.q.Helper()
	d.requirePrivate()
	f, err := featuresOf(d.q.Session(), d.q)
	if err != nil {
		d.q.Fatal(err)
	}
	s, err := newSettings(d.dir, f)
	if err == nil {
		d.toml, err = configuration{node: node}.toml(s)
	}
	if err != nil {
		d.q.Fatalf("write containerd's configuration: %v", err)
	}
	d.q.LogCommandAs("cat > containerd/config.toml   # changed", "cat > containerd/config.toml <<'END'\n"+d.toml+"END")
	if err := os.WriteFile(filepath.Join(d.dir, "config.toml"), []byte(d.toml), 0o644); err != nil {
		d.q.Fatalf("write containerd's configuration: %v", err)
	}
}
