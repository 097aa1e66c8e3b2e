//go:build linux

package vm

import (
	"context"
	_ "embed"

	"cdblab/helpers/vm/wire"
)

// welcome prepares the chapter's bundle and gives the prompt. It runs in the guest.
//
//go:embed shell.sh
var welcome string

// Shell runs a shell on a terminal in the guest.
func (r *Runner) Shell(ctx context.Context) (int, error) {
	t := tree{}
	t.data(wire.Program+"/shell.sh", welcome)
	t.dir(wire.Tree)
	job := &wire.Job{Args: []string{"/bin/sh", wire.Program + "/shell.sh"}, Dir: "/root", Terminal: true}
	return r.run(ctx, job, t)
}
