//go:build linux

package image

import (
	"archive/tar"
	"io"
	"testing"

	"gotest.tools/v3/assert"
)

func TestLayeredIndex_AddsReplacesAndDeletes(t *testing.T) {
	_, layers := newImage(t, busybox(t), LayeredIndex)
	assert.Equal(t, len(layers), 2)

	var names [2]map[string]bool
	for i, l := range layers {
		names[i] = map[string]bool{}
		r, err := l.Uncompressed()
		assert.NilError(t, err)
		defer r.Close()
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			assert.NilError(t, err)
			names[i][h.Name] = true
		}
	}
	assert.Check(t, names[1][Added] && !names[0][Added])
	assert.Check(t, names[1][Replaced] && names[0][Replaced])
	assert.Check(t, names[1]["bin/.wh.wget"] && names[0][Deleted])
}
