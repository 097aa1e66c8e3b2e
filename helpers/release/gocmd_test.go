//go:build linux

package release

import (
	"errors"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// The scratch module builds a release with the dependencies of the release.
func TestScratchModule(t *testing.T) {
	got, err := scratchModule("example.org/m", "v1.2.3", []byte(`module example.org/m

go 1.22

toolchain go1.22.4

godebug default=go1.21

require example.org/a v1.0.0

exclude example.org/b v1.1.0

replace (
	example.org/c => example.org/d v1.4.0
	example.org/m/api => ./api
)
`))
	assert.NilError(t, err)
	assert.Equal(t, string(got), `module scratch

go 1.22

require example.org/m v1.2.3

godebug default=go1.21

exclude example.org/b v1.1.0

replace example.org/c => example.org/d v1.4.0
`)
	_, err = scratchModule("example.org/m", "v1.2.3", []byte("no go.mod"))
	assert.ErrorContains(t, err, "go.mod:1")
}

func TestLastLines(t *testing.T) {
	err := errors.New("exit status 1")
	assert.Equal(t, lastLines([]byte("go: downloading example.org/a v1.0.0\n"), err), "exit status 1")
	assert.Equal(t, lastLines([]byte("go: downloading a v1\nmain.go:1: wrong\n\n"), err), "exit status 1\n    | main.go:1: wrong")
	many := lastLines([]byte(strings.Repeat("line\n", 100)+"last\n"), err)
	assert.Equal(t, strings.Count(many, "\n"), 12)
	assert.Assert(t, strings.HasSuffix(many, "| last"))
}
