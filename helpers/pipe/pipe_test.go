//go:build linux

package pipe

import (
	"os"
	"testing"

	"gotest.tools/v3/assert"
)

func TestPeek_LeavesInThePipeWhatItReturns(t *testing.T) {
	r, w, err := os.Pipe()
	assert.NilError(t, err)
	defer r.Close()
	defer w.Close()
	data, err := Peek(r)
	assert.NilError(t, err)
	assert.Equal(t, string(data), "", "of an empty pipe")
	assert.Check(t, !HasText(r, "line")(t).Done())

	_, err = w.WriteString("a line")
	assert.NilError(t, err)
	for range 2 {
		data, err := Peek(r)
		assert.NilError(t, err)
		assert.Equal(t, string(data), "a line")
	}
	assert.Check(t, HasText(r, "line")(t).Done())
	assert.Equal(t, Buffered(r), len("a line"))

	assert.NilError(t, r.Close())
	_, err = Peek(r)
	assert.ErrorContains(t, err, "closed")
}
