//go:build linux

package runc

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
)

// AssertIsRuntime asserts that a digest, of the program that `runc init` executes, is the runtime's: that of the file under test
// or, if this file is a wrapper such as nvidia-container-runtime, that of the program which the wrapper executes in the end.
func AssertIsRuntime(q *lab.Q, b *bundle.Bundle, digest string) {
	q.Helper()
	underTest := q.UnderTest("runc")
	if digest == underTest.Digest {
		return
	}
	assert.Check(q, cmp.Equal(digest, wrappedDigest(q, b)),
		"runc init is neither the program under test (%s, %s), nor the program that it executes", underTest.Path, underTest.Digest)
}

// wrappedDigest returns the digest of the program that calls the hooks of create. Whatever a wrapper does before, the hooks'
// parent is the runtime itself. So no name has to be guessed.
func wrappedDigest(q *lab.Q, b *bundle.Bundle) string {
	q.Helper()
	c, log := WithHooks(q, b, "wrapped", func(h *specs.Hooks, dir string) {
		h.CreateRuntime = []specs.Hook{{
			Path: "/bin/sh", Args: []string{"sh", "-c", "cat /proc/$PPID/exe > $1/program", "sh", dir},
			Env: []string{"PATH=/bin:/usr/bin"},
		}}
	})
	c.Create()
	c.Must("delete", "--force")
	program := filepath.Join(log.Dir, "program")
	content, err := os.ReadFile(program)
	assert.NilError(q, err)
	file.Remove(q, program)
	return fmt.Sprintf("sha256:%x", sha256.Sum256(content))
}
