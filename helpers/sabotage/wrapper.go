//go:build linux

package sabotage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"al.essio.dev/pkg/shellescape"
)

// prelude reads the command line of a runtime. The lab and the shim give their flags in another order.
const prelude = `verb= id= bundle=. root= before=
for arg; do
	case $before in
	--root) root=$arg ;;
	--bundle | -b) bundle=$arg ;;
	--log | --log-format | --pid-file | --console-socket | --process | --resources) ;;
	*) case $arg in
		-*) ;;
		*) if [ -z "$verb" ]; then verb=$arg; else id=${id:-$arg}; fi ;;
		esac ;;
	esac
	before=$arg
done
config=$bundle/config.json
`

// honest is the script of a wrapper that tells no lie, as nvidia-container-runtime tells none.
const honest = `exec "$real" "$@"`

// Wrapper returns the text of a program that tells a lie, and otherwise executes the real one.
//
// In the script of a lie, $real is the real program. A lie of runc has the operation in $verb, the container's id in $id, the runtime's
// state directory in $root, and the container's configuration in $config. $socket is a socket that can be copied: no shell command
// makes one. Where the script ends, the real program is executed.
func Wrapper(l Lie, real, socket string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\n# The lie %s of testdata/sabotage.toml. It breaks this promise: %s\n", l.Name, l.Promise)
	fmt.Fprintf(&b, "real=%s socket=%s\n", shellescape.Quote(real), shellescape.Quote(socket))
	b.WriteString(`case "$*" in *--help* | *--version*) exec "$real" "$@" ;; esac` + "\n") // the lab asks which options there are
	if l.Program == "runc" {
		b.WriteString(prelude)
	}
	b.WriteString(l.Script + "\n" + honest + "\n")
	return b.String()
}

// writeWrapper writes the program of a lie into a directory, under the name of the real one, and returns its path.
func writeWrapper(dir string, l Lie, real, socket string) (string, error) {
	path := filepath.Join(dir, l.Program)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(Wrapper(l, real, socket)), 0o755); err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o755) // whatever the umask is: a container's user may execute it
}
