//go:build linux

package ctrd

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"cdblab/helpers/host"
	"cdblab/helpers/lab"
)

// dialect is how the containerd and the ctr under test want to be told things. They are asked (for the default
// configuration, for help), since a version's number does not tell what a distribution has patched.
type features struct {
	Version   int  // of the configuration's format: 2 of containerd 1, 3 of containerd 2
	SocketDir bool // the shims' sockets can be moved; else they are in defaultSocketDir
	RuncRoot  bool // `ctr containers create` can move the runtime's state; else it is in defaultRuncRoot
}

// Where containerd puts what it cannot be told to put elsewhere: the shims' sockets where there is no socket_dir, the runtime's state of a
// container that is made with an older ctr.
const (
	defaultPlace     = "/run/containerd"
	defaultSocketDir = defaultPlace + "/s"
	defaultRuncRoot  = defaultPlace + "/runc"
)

var pinnedFeatures = features{Version: 3, SocketDir: true, RuncRoot: true}

var versionLine = regexp.MustCompile(`(?m)^version = (\d+)$`)

var theDialect = sync.OnceValues(func() (features, error) {
	d := pinnedFeatures
	if tool := lab.UnderTest("containerd"); !tool.Pinned {
		out, err := exec.Command(tool.Path, "config", "default").Output()
		if err != nil {
			return d, nil //nolint:nilerr // what is wrong with it is better told by the daemon that does not start
		}
		m := versionLine.FindSubmatch(out)
		if m == nil {
			return d, fmt.Errorf("%s config default has no line \"version = N\"", tool.Path)
		}
		if d.Version, err = strconv.Atoi(string(m[1])); err != nil {
			return d, err
		}
		d.SocketDir = strings.Contains(string(out), "socket_dir")
	}
	if tool := lab.UnderTest("ctr"); !tool.Pinned {
		out, err := exec.Command(tool.Path, "containers", "create", "--help").Output()
		if err != nil {
			return d, fmt.Errorf("ask %s containers create --help for its options: %w", tool.Path, err)
		}
		d.RuncRoot = strings.Contains(string(out), "--runc-root")
	}
	if d.SocketDir && d.RuncRoot {
		return d, nil
	}
	return d, host.UseDefaultPlace(lab.RunOwner(), defaultPlace, defaultSocketDir, defaultRuncRoot)
})
