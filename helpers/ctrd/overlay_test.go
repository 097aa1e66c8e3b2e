//go:build linux

package ctrd

import (
	"testing"

	"gotest.tools/v3/assert"
)

func TestParseOverlay(t *testing.T) {
	o, err := ParseOverlay([]string{"rw", "lowerdir=/b:/a", "upperdir=/c/fs", "workdir=/c/work", "index=off"})
	assert.NilError(t, err)
	assert.DeepEqual(t, o, Overlay{Lower: []string{"/b", "/a"}, Upper: "/c/fs", Work: "/c/work"})
	_, err = ParseOverlay([]string{"ro", "lowerdir=/b:/a"})
	assert.ErrorContains(t, err, "upperdir")
}
