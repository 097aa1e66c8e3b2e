//go:build linux

package runc

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// SpecAs calls `runc spec` as another user, with flags such as --rootless, in a new directory of this user, and returns its path.
//
// The user may not be able to reach the program and the directory by their paths, which may be below a home directory. The command
// gets both as descriptors.
func SpecAs(q *lab.Q, uid, gid uint32, name string, flags ...string) (dir string) {
	q.Helper()
	dir = q.Mkdir(name)
	assert.NilError(q, os.Chown(dir, int(uid), int(gid)))
	q.LogCommand("chown %d:%d %s", uid, gid, name)
	q.LogCommand("setpriv --reuid %d --regid %d --clear-groups runc spec --bundle %s %s", uid, gid, name, strings.Join(flags, " "))

	const programFD, dirFD = 3, 4 // the order of ExtraFiles
	ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
	defer cancel()
	cmd := q.Cmd(ctx, append([]string{"runc", "spec", "--bundle", fmt.Sprintf("/proc/self/fd/%d", dirFD)}, flags...)...)
	for _, path := range []string{cmd.Path, dir} {
		f, err := os.Open(path)
		assert.NilError(q, err)
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	var stderr bytes.Buffer
	cmd.Path, cmd.Dir, cmd.Stderr = fmt.Sprintf("/proc/self/fd/%d", programFD), "/", &stderr
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	assert.NilError(q, cmd.Run(), "runc spec as user %d has to succeed; it wrote: %s", uid, &stderr)
	return dir
}
