//go:build linux

package lab

import (
	"os"
	"slices"
	"strings"

	"cdblab/helpers/host"
)

// inherited are the environment variables that commands inherit from the caller of the lab. Everything else stays out, so that
// a run does not depend on where it was started: with NOTIFY_SOCKET runc creates a socket, with CONTAINERD_NAMESPACE ctr works
// in another namespace, with XDG_RUNTIME_DIR a runtime keeps its state there.
var inherited = []string{
	"PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "LANG", "LC_*", "LD_LIBRARY_PATH",
	"http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "GOCOVERDIR", "CDB_*",
}

// cleanEnviron returns the environment with which commands start: the inherited variables.
func cleanEnviron() []string { return inheritedFrom(os.Environ()) }

func inheritedFrom(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return name == host.OwnerEnv || !slices.ContainsFunc(inherited, func(pattern string) bool {
			prefix, isPrefix := strings.CutSuffix(pattern, "*")
			return name == pattern || isPrefix && strings.HasPrefix(name, prefix)
		})
	})
}
