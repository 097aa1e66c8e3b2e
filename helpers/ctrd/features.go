//go:build linux

package ctrd

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"cdblab/helpers/host"
	"cdblab/helpers/lab"
)

// features are what the containerd and the ctr under test can do. The programs are asked (for the default
// configuration, for help), because a version number does not show what a distribution has patched.
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

// featuresOf asks the programs of a session once.
func featuresOf(session *lab.Session) (features, error) {
	return lab.Once(session, "features of containerd and ctr", func() (features, error) { return askFeatures(session) })
}

func askFeatures(session *lab.Session) (features, error) {
	d := pinnedFeatures
	if tool := session.UnderTest("containerd"); !tool.Pinned {
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
	if tool := session.UnderTest("ctr"); !tool.Pinned {
		out, err := exec.Command(tool.Path, "containers", "create", "--help").Output()
		if err != nil {
			return d, fmt.Errorf("ask %s containers create --help for its options: %w", tool.Path, err)
		}
		d.RuncRoot = strings.Contains(string(out), "--runc-root")
	}
	if d.SocketDir && d.RuncRoot {
		return d, nil
	}
	return d, host.UseDefaultPlace(session.Owner(), defaultPlace, defaultSocketDir, defaultRuncRoot)
}
