//go:build linux && vmlab && selftest

package selftest

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/syllabus"
)

// The five questions of the chapter end before another one does, whatever the order of the tests is.
func TestChapter_ComesFirst(t *testing.T) {
	others := []string{"TestBundle_WhichFieldsDecideWhatWillRun", "TestBundle_WhichIDsMayAContainerHave"}
	asked := append(slices.Clone(syllabus.Chapter), others...)
	code, out := newLab("-test.v", "-test.shuffle=7", "-test.run=^("+strings.Join(asked, "|")+")$").run(t)
	assert.Assert(t, cmp.Equal(code, 0), "%s", out)
	var ended []string
	for _, m := range regexp.MustCompile(`(?m)^--- PASS: (\w+)`).FindAllStringSubmatch(out, -1) {
		ended = append(ended, m[1])
	}
	assert.Assert(t, cmp.Len(ended, len(asked)), "%s", out)
	for _, test := range ended[:len(syllabus.Chapter)] {
		assert.Check(t, cmp.Contains(syllabus.Chapter, test), "asked before the chapter's questions; order of the ends: %q", ended)
	}
}
