package notebook

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
)

func TestPictures_AreDrawnFromTheFacts(t *testing.T) {
	run := recorded(t)
	for test, all := range pictures {
		q := run.Question(test)
		assert.Assert(t, q != nil, "testdata has no %s", test)
		drawn := picturesOf(q)
		assert.Check(t, cmp.Len(drawn, len(all)), test)
		for _, p := range drawn {
			assert.Check(t, cmp.Equal(p.Missing, ""), test)
			assert.Check(t, p.Drawing != nil && len(p.Table) > 1, "%s: %s is empty", test, p.Title)
		}
	}
}

func TestPictures_SayTheSameInWords(t *testing.T) {
	run := recorded(t)
	for _, c := range []struct {
		test    string
		picture int
		row     []string
	}{
		{"TestTask_WhoIsWhoseParent", 0, []string{"task and exec have died", "task", "the process is dead; its parent was shim"}},
		{"TestTask_WhoIsWhoseParent", 0, []string{"the task runs", "containerd", "test"}},
		{
			"TestTask_WhatIfTheTaskEndsWhileContainerdIsDown", 0,
			[]string{"while containerd is down: shim KILL, down", "init", "adopter of orphans"},
		},
		{
			"TestLifecycle_WhereDoesItLiveWhileItRuns", 0,
			[]string{"container without entries for network and ipc", "A", "A", "C", "A", "C", "A", "A", "C"},
		},
		{"TestLifecycle_WhichStatesDoesAContainerPassThrough", 0, []string{"paused", "pause", "yes", "no", "yes"}},
		{"TestTask_WhatHappensWhenTheShimDies", 1, []string{"shim's socket", "there", "gone", "there", "gone"}},
		{
			"TestEvents_WhatCanContainerdTellUsWhileTheTaskIsRunning", 0,
			[]string{"it runs", "tasks ls, tasks ps, tasks metrics", "nothing", "yes"},
		},
		{"TestBundle_HowDoesContainerdsGeneratedBundleRelateToTheHandBuiltOne", 0, []string{"hostname", `"runc"`, ""}},
	} {
		table := picturesOf(run.Question(c.test))[c.picture].Table
		assert.Check(t, cmp.Contains(joined(table), strings.Join(c.row, " | ")+"\n"), c.test)
	}
}

func joined(table [][]string) string {
	out := ""
	for _, row := range table {
		out += strings.Join(row, " | ") + "\n"
	}
	return out
}

// A question that has failed, or that is of another version of the lab, lacks facts.
func TestPictures_SayWhichFactIsMissing(t *testing.T) {
	for test := range pictures {
		q := recorded(t).Question(test)
		for _, p := range picturesOf(without(q, func(*results.Fact) bool { return true })) {
			assert.Check(t, cmp.Contains(p.Missing, "fact"), test)
			assert.Check(t, p.Drawing == nil, test)
		}
		for _, f := range q.Facts() {
			// Whatever is missing, the page is written.
			write(t, &results.Run{Questions: []*results.Question{without(q, func(other *results.Fact) bool { return other == f })}})
			data := f.Data
			f.Data = nil
			write(t, &results.Run{Questions: []*results.Question{q}})
			f.Data = data
		}
	}
}

func TestParents_DrawsWhateverTheFactSays(t *testing.T) {
	tree := map[string]any{"a": "b", "b": "a", "c": "c", "d": "e", "f": "d"}
	q := &results.Question{Steps: []*results.Step{{Items: []results.Item{{Fact: &results.Fact{Name: "x: parents", Data: tree}}}}}}
	p, err := parents(q)
	assert.NilError(t, err)
	var drawn []string
	for _, s := range p.Drawing.Shapes {
		drawn = append(drawn, s.Text)
	}
	assert.Check(t, cmp.Contains(drawn, "f"))
	assert.Check(t, !slices.Contains(drawn, "a"), "a process that is its own ancestor is drawn")
	for i := range 100 {
		tree[fmt.Sprint(i)] = fmt.Sprint(i + 1)
	}
	_, err = parents(q)
	assert.ErrorContains(t, err, "105 processes")
}

// The browser test measures the real texts; this one needs no browser.
func TestPictures_HaveNoTextsThatOverlap(t *testing.T) {
	for test := range pictures {
		for _, p := range picturesOf(recorded(t).Question(test)) {
			var texts []shape
			for _, s := range p.Drawing.Shapes {
				if s.Kind != "text" {
					continue
				}
				s.W = textWidth(s.Text)
				if strings.Contains(s.Class, "middle") {
					s.X -= s.W / 2
				}
				assert.Check(t, s.X >= 0 && s.X+s.W <= p.Drawing.Width && s.Y <= p.Drawing.Height, "%s: %q is outside of %q", test, s.Text, p.Title)
				for _, other := range texts {
					apart := s.X >= other.X+other.W || other.X >= s.X+s.W || s.Y-other.Y >= 14 || other.Y-s.Y >= 14
					assert.Check(t, apart, "%s: %q and %q overlap in %q", test, s.Text, other.Text, p.Title)
				}
				texts = append(texts, s)
			}
		}
	}
}

func TestWrap_BreaksAtSpacesAndLongWords(t *testing.T) {
	assert.DeepEqual(t, wrap("one two  three", 7), []string{"one two", "three"})
	assert.DeepEqual(t, wrap("abcdefghij k", 4), []string{"abcd", "efgh", "ij k"})
	assert.DeepEqual(t, wrapTo(2, "one two three four", 5), []string{"one", "two…"})
	assert.Check(t, cmp.Len(wrap("", 5), 0))
}
