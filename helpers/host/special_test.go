//go:build linux

package host

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

func TestSpecialFiles_NamesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	assert.NilError(t, os.Mkdir(below, 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(below, "file"), nil, 0o644))
	assert.NilError(t, os.Symlink("/dev/null", filepath.Join(below, "link")))
	none, err := SpecialFiles(dir)
	assert.NilError(t, err)
	assert.DeepEqual(t, none, []string(nil))

	assert.NilError(t, unix.Mkfifo(filepath.Join(below, "fifo"), 0o644))
	listener, err := net.Listen("unix", filepath.Join(below, "socket"))
	assert.NilError(t, err)
	defer listener.Close()
	both, err := SpecialFiles(dir)
	assert.NilError(t, err)
	assert.DeepEqual(t, both, []string{"FIFO " + below + "/fifo", "socket file " + below + "/socket"})
}
