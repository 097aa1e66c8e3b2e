//go:build linux

package proc

// Alive reports whether the process of this identity has not ended. A zombie has ended.
func (id Identity) Alive() bool { return !Dead(id)(nil).Done() }
