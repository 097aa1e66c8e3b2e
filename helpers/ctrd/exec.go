//go:build linux

package ctrd

// ExecShell runs a script with a shell in a task, as `ctr tasks exec` does, and returns what the script printed.
func (d *Daemon) ExecShell(id, script string) string {
	d.q.Helper()
	return d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "typed", id, "sh", "-c", script).Stdout
}
