//go:build linux && vmlab && selftest

package selftest

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/notebook"
	"cdblab/helpers/results"
)

// Each picture of the notebook is drawn from what its question records today. The unit tests draw them from a recorded run.
func TestNotebook_HasAllPictures(t *testing.T) {
	before := takeInventory(t)
	tests := notebook.WithPictures()
	cmd := exec.Command(test2json(t), "-t", "./"+testBinary, "-test.v=test2json", "-test.run=^("+strings.Join(tests, "|")+")$")
	cmd.Dir, cmd.Env = root, newLab().Env
	stream, err := cmd.Output()
	assert.Check(t, err, "%s", stream)
	run, err := results.Read(bytes.NewReader(stream))
	assert.NilError(t, err)
	assert.Check(t, cmp.Equal(run.Count(results.Answered), len(tests)), run.Headline())

	var page bytes.Buffer
	assert.NilError(t, notebook.Write(&page, run))
	for _, missing := range regexp.MustCompile(`<p class="missing">(.*)</p>`).FindAllStringSubmatch(page.String(), -1) {
		t.Error(missing[1])
	}
	assert.Check(t, strings.Count(page.String(), "<figure>") >= len(tests))
	assertHostUnchanged(t, before)
}
