//go:build linux

package ctrd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/tools"
)

// features are what the containerd and the ctr under test can do. The programs are asked (for the default
// configuration, for help), because a version number does not show what a distribution has patched.
type features struct {
	Version   int  // version of the configuration's format: 2 in containerd 1.7, 3 since 2.0, 4 since 2.3
	SocketDir bool // whether the shims' sockets can be moved; otherwise they are in defaultSocketDir
	RuncRoot  bool // whether `ctr containers create` can move the runtime's state; otherwise it is in defaultRuncRoot
}

// Directories of the host that a containerd or ctr without these features uses: for the shims' sockets, and for the
// runtime's state of a container.
const (
	defaultPlace     = "/run/containerd"
	defaultSocketDir = defaultPlace + "/s"
	defaultRuncRoot  = defaultPlace + "/runc"
)

var pinnedFeatures = features{Version: 4, SocketDir: true, RuncRoot: true}

var versionLine = regexp.MustCompile(`(?m)^version = (\d+)$`)

// underTest has the programs under test: a session, or a question, which may use other ones.
type underTest interface {
	UnderTest(name string) tools.Program
}

// featuresOf returns the features of the programs. A session asks the same programs once.
func featuresOf(session *lab.Session, programs underTest) (features, error) {
	daemon, ctr := programs.UnderTest("containerd").Path, programs.UnderTest("ctr").Path
	shim := programs.UnderTest("containerd-shim-runc-v2").Path
	return lab.Once(session, fmt.Sprintf("features of %s, %s and %s", daemon, ctr, shim), func() (features, error) {
		return askFeatures(session.Owner(), daemon, ctr, shim)
	})
}

func askFeatures(owner host.Owner, daemon, ctr, shimPath string) (features, error) {
	f := pinnedFeatures
	out, err := lab.Output(daemon, "config", "default")
	if err != nil {
		return f, nil //nolint:nilerr // the daemon will not start either, and its error is more useful than this one
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return f, fmt.Errorf("%s config default: expected a line \"version = N\", found none in:\n%.400s", daemon, out)
	}
	if f.Version, err = strconv.Atoi(string(m[1])); err != nil {
		return f, err
	}
	f.SocketDir = strings.Contains(string(out), "socket_dir")
	if f.SocketDir {
		shim, err := os.ReadFile(shimPath)
		if err != nil {
			return f, err
		}
		f.SocketDir = readsSocketDir(shim)
	}
	if out, err = lab.Output(ctr, "containers", "create", "--help"); err != nil {
		return f, fmt.Errorf("ask %s containers create --help for its options: %w", ctr, err)
	}
	f.RuncRoot = strings.Contains(string(out), "--runc-root")
	if f.SocketDir && f.RuncRoot {
		return f, nil
	}
	// The runtime makes a directory for each containerd namespace, and never removes it. This one has no name of a run.
	inRuncRoot := filepath.Join(defaultRuncRoot, Namespace)
	return f, host.UseDefaultPlace(owner, defaultPlace, defaultSocketDir, inRuncRoot, defaultRuncRoot)
}

// readsSocketDir reports whether a shim reads from containerd where its socket should be. The shim of an older release ignores
// what a newer containerd tells it. No option shows it, but the description of the message that the shim reads has the name of the
// field. A script is taken for a wrapper of a shim that does.
func readsSocketDir(shim []byte) bool {
	return isScript(shim) || bytes.Contains(shim, []byte("socket_dir"))
}
