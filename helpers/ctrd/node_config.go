//go:build linux

package ctrd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"

	"cdblab/helpers/host"
	"cdblab/helpers/lab"
)

// NodeConfig is what the configuration of this machine's own containerd decides for pods, as the containerd under test reads it. A
// private containerd gets it by [WithNodeConfig]. It gets nothing else of that configuration, which names directories, sockets, devices
// and programs of the machine.
type NodeConfig struct {
	File          string // host.ContainerdConfig, or "" if the machine has none: the values are then containerd's defaults
	Runtime       string // default_runtime_name: the runtime of a pod that names none
	RuntimeType   string // runtime_type of that runtime, which names the shim: "io.containerd.runc.v2"
	BinaryName    string // an option of that runtime: the program that the shim calls; "" is the first runc on PATH
	SystemdCgroup bool   // an option of that runtime: it uses the systemd cgroup driver
	Snapshotter   string // for the root file systems of pods

	SandboxImage  string // of each pod's sandbox
	KeepOOMScores bool   // the processes of a pod do not get a lower oom_score_adj than containerd, which only CAP_SYS_RESOURCE allows

	isSplit    bool // the CRI plugin is two plugins, as since containerd 2.0
	hasBinDirs bool // the directories of CNI's plugins are a list, as since containerd 2.1
}

// The names of the CRI plugin: one up to containerd 1.7, and two since 2.0, for the containers and for the images.
const (
	oldCRI     = "io.containerd.grpc.v1.cri"
	criRuntime = "io.containerd.cri.v1.runtime"
	criImages  = "io.containerd.cri.v1.images"
)

// ErrNoCRI says that containerd serves no kubelet, so its configuration decides nothing for pods.
var ErrNoCRI = errors.New("this containerd has no CRI plugin, or its configuration disables it")

// ReadNodeConfig has the containerd under test print its configuration of this machine, with each default and with what the file
// imports, in the format of this containerd. It returns [ErrNoCRI], or containerd's message if it cannot read the file.
func ReadNodeConfig(q *lab.Q) (NodeConfig, error) {
	q.Helper()
	file, argv := host.ContainerdConfig, []string{"containerd", "--config", host.ContainerdConfig, "config", "dump"}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		file, argv = "", []string{"containerd", "config", "default"}
	}
	r := q.Exec(argv...)
	if r.Code != 0 {
		return NodeConfig{}, fmt.Errorf("containerd cannot read %s: %s", file, r.Stderr)
	}
	c, err := parseNodeConfig([]byte(r.Stdout))
	c.File = file
	return c, err
}

// nodeToml is the part of the configuration that [NodeConfig] has.
type nodeToml struct {
	Disabled []string `toml:"disabled_plugins"`
	Plugins  map[string]struct {
		Snapshotter string // since containerd 2.0
		CNI         struct {
			BinDirs []string `toml:"bin_dirs"`
		}
		Containerd *struct {
			Runtime     string `toml:"default_runtime_name"`
			Snapshotter string // up to containerd 1.7
			Runtimes    map[string]struct {
				Type        string `toml:"runtime_type"`
				Snapshotter string
				Options     struct {
					BinaryName    string
					SystemdCgroup bool
				}
			}
		}
	}
}

func parseNodeConfig(text []byte) (NodeConfig, error) {
	var all nodeToml
	if err := toml.Unmarshal(text, &all); err != nil {
		return NodeConfig{}, fmt.Errorf("read the configuration that containerd has printed: %w", err)
	}
	plugin, isSplit := all.Plugins[criRuntime], true
	if plugin.Containerd == nil {
		plugin, isSplit = all.Plugins[oldCRI], false
	}
	isOff := slices.ContainsFunc(all.Disabled, func(name string) bool {
		return slices.Contains([]string{"cri", oldCRI, criRuntime, criImages}, name)
	})
	if plugin.Containerd == nil || isOff {
		return NodeConfig{}, ErrNoCRI
	}
	runtime := plugin.Containerd.Runtimes[plugin.Containerd.Runtime]
	c := NodeConfig{
		Runtime: plugin.Containerd.Runtime, RuntimeType: runtime.Type,
		BinaryName: runtime.Options.BinaryName, SystemdCgroup: runtime.Options.SystemdCgroup,
		isSplit: isSplit, hasBinDirs: plugin.CNI.BinDirs != nil,
	}
	for _, name := range []string{plugin.Containerd.Snapshotter, all.Plugins[criImages].Snapshotter, runtime.Snapshotter} {
		if name != "" {
			c.Snapshotter = name // that of the runtime takes precedence
		}
	}
	return c, nil
}

// table is a table of TOML.
type table map[string]any

// toml returns the whole configuration of a private containerd with the CRI plugin.
func (c NodeConfig) toml(s settings) ([]byte, error) {
	const anyDescription = "org.systemd.property.*" // the mark of a scope: see Pod
	runtime := table{
		"runtime_type": c.RuntimeType, "pod_annotations": []string{anyDescription}, "container_annotations": []string{anyDescription},
		"options": table{
			"BinaryName": c.BinaryName, "SystemdCgroup": c.SystemdCgroup,
			"Root": filepath.Join(filepath.Dir(s.Root), "runc"),
		},
	}
	cri := table{
		"containerd":             table{"default_runtime_name": c.Runtime, "runtimes": table{c.Runtime: runtime}},
		"cni":                    table{"bin_dir": s.Empty, "conf_dir": s.Empty},
		"restrict_oom_score_adj": c.KeepOOMScores,
		"disable_apparmor":       true, // else the plugin loads a profile into the kernel, where it stays
	}
	if c.hasBinDirs {
		cri["cni"] = table{"bin_dirs": []string{s.Empty}, "bin_dir": "", "conf_dir": s.Empty}
	}
	plugins := table{
		"io.containerd.nri.v1.nri":               table{"disable": true},
		"io.containerd.image-verifier.v1.bindir": table{"bin_dir": s.Empty},
	}
	if c.isSplit {
		plugins[criRuntime] = cri
		plugins[criImages] = table{"snapshotter": c.Snapshotter, "pinned_images": table{"sandbox": c.SandboxImage}}
	} else {
		cri["containerd"].(table)["snapshotter"] = c.Snapshotter
		cri["sandbox_image"] = c.SandboxImage
		cri["disable_tcp_service"], cri["stream_server_port"] = true, "0"
		plugins[oldCRI] = cri
	}
	if s.Features.SocketDir {
		plugins["io.containerd.shim.v1.manager"] = table{"socket_dir": s.SocketDir}
	}
	timeouts := table{}
	for _, name := range []string{"shim.cleanup", "shim.load", "shim.shutdown", "task.state"} {
		timeouts["io.containerd.timeout."+name] = "2m" // see config
	}
	return toml.Marshal(table{
		"version": s.Features.Version, "root": s.Root, "state": s.State, "grpc": table{"address": s.Address},
		"disabled_plugins": []string{"io.containerd.internal.v1.opt"}, "timeouts": timeouts, "plugins": plugins,
	})
}

// Reconfigure has the next [Daemon.Start] start the daemon with another configuration of a node.
func (d *Daemon) Reconfigure(node NodeConfig) {
	d.q.Helper()
	d.requirePrivate()
	f, err := featuresOf(d.q.Session(), d.q)
	if err != nil {
		d.q.Fatal(err)
	}
	s, err := newSettings(d.dir, f)
	if err == nil {
		d.toml, err = configuration{node: &node}.toml(s)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(d.dir, "config.toml"), []byte(d.toml), 0o644)
	}
	if err != nil {
		d.q.Fatalf("write containerd's configuration: %v", err)
	}
	d.q.LogCommandAs("cat > containerd/config.toml   # changed", "cat > containerd/config.toml <<'END'\n"+d.toml+"END")
}
