//go:build linux

package runc

import "cdblab/helpers/lab"

// InEmptyRun runs a command in the directory of the question, in a mount namespace whose /run is empty. There no other program makes a
// directory, and the default root of the runtime does not exist.
func InEmptyRun(q *lab.Q, argv ...string) lab.Result {
	q.Helper()
	// The descriptor brings the lab's directory back.
	script := `exec 3< /run/cdb-lab; busybox mount -t tmpfs none /run; mkdir /run/cdb-lab
busybox mount -o rbind /proc/self/fd/3 /run/cdb-lab; cd "$1"; shift; exec 3<&-; "$@"`
	return q.Exec(append([]string{"busybox", "unshare", "-m", "sh", "-ec", script, "sh", q.Dir}, argv...)...)
}
