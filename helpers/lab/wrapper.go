//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"al.essio.dev/pkg/shellescape"

	"cdblab/helpers/howto"
)

// LookPathOrSkip returns the path of a program that is not under test. Without it, the question or subtest is skipped.
func (q *Q) LookPathOrSkip(name string) string {
	q.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		q.Skipf("this machine has no %s; to ask this, %s", name, howto.Install())
	}
	return path
}

// WriteWrapper writes a shell script that is called in place of the runtime or the shim, and returns its path. In the
// script, $RUNC and $SHIM are the programs under test. The script has to outlive the tasks: a question writes it before it
// starts a daemon of its own.
func (q *Q) WriteWrapper(name, script string) string {
	q.Helper()
	path := filepath.Join(q.Mkdir(name), name)
	text := fmt.Sprintf("#!/bin/sh\nRUNC=%s SHIM=%s\n%s\n",
		shellescape.Quote(q.UnderTest("runc").Path), shellescape.Quote(q.UnderTest("containerd-shim-runc-v2").Path), script)
	q.LogCommandAs("cat > "+path+"   # "+strings.ReplaceAll(script, "\n", "; "),
		"mkdir -p "+filepath.Dir(path)+" && cat > "+path+" <<'END'\n"+text+"END\nchmod +x "+path)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		q.Fatalf("write the wrapper %s: %v", path, err)
	}
	return path
}
