package notebook

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cdblab/helpers/results"
)

// picture is a picture that is drawn from the facts of a question. The table says the same in words.
type picture struct {
	Title   string
	Missing string // why there is no picture; "" if there is one
	Drawing *drawing
	Table   [][]string // the first row and the first column are headings
	Note    string     // how to read it
}

// draw draws a picture. The error says which fact is missing.
type draw func(q *results.Question) (picture, error)

// pictures are the questions that have pictures. A question of another version of the lab may lack the facts that a picture needs.
var pictures = map[string][]draw{
	"TestBundle_HowDoesContainerdsGeneratedBundleRelateToTheHandBuiltOne": {bundles},
	"TestLifecycle_WhichStatesDoesAContainerPassThrough":                  {states},
	"TestLifecycle_WhereDoesItLiveWhileItRuns":                            {namespaces},
	"TestLifecycle_WhoIsTheParentOfTheContainersProcess":                  {parents},
	"TestTask_WhoIsWhoseParent":                                           {parents},
	"TestTask_WhatSurvivesWhenContainerdDies":                             {parents, deaths},
	"TestTask_WhatHappensWhenTheShimDies":                                 {parents, deaths},
	"TestTask_WhatHappensWhenItsProcessDies":                              {parents, deaths},
	"TestTask_WhatIfTheTaskEndsWhileContainerdIsDown":                     {parents, deaths},
	"TestTask_WhereDoTheFilesComeFrom":                                    {layers},
	"TestTask_WhereDoesAnExecGoAndWhereDoOrphansGo":                       {namespaces},
	"TestEvents_WhatCanContainerdTellUsWhileTheTaskIsRunning":             {events},
}

// WithPictures returns the tests of the questions that have pictures.
func WithPictures() []string { return slices.Sorted(maps.Keys(pictures)) }

func picturesOf(q *results.Question) []picture {
	var out []picture
	for _, draw := range pictures[q.Test] {
		p, err := draw(q)
		if err != nil {
			p.Missing, p.Drawing = err.Error(), nil
		}
		if p.Drawing != nil {
			p.Drawing.Label = p.Title + ". The table below has the same in words."
		}
		out = append(out, p)
	}
	return out
}

// factsNamed returns the facts whose name has a part, in the order of the run.
func factsNamed(q *results.Question, part string) []*results.Fact {
	return slices.DeleteFunc(q.Facts(), func(f *results.Fact) bool { return !strings.Contains(f.Name, part) })
}

func factNamed(q *results.Question, name string) (*results.Fact, error) {
	for _, f := range q.Facts() {
		if f.Name == name {
			return f, nil
		}
	}
	return nil, fmt.Errorf("the fact %q is missing", name)
}

// values returns the values of facts by their names. The error names the first fact that is missing.
func values(q *results.Question, names ...string) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range names {
		f, err := factNamed(q, name)
		if err != nil {
			return nil, err
		}
		out[name] = f.Value
	}
	return out, nil
}

// tableOf returns the elements of a fact that is a map from text to text; nil of another fact.
func tableOf(f *results.Fact) map[string]string {
	data, _ := f.Data.(map[string]any)
	if len(data) == 0 {
		return nil
	}
	out := map[string]string{}
	for k, v := range data {
		out[k], _ = v.(string)
	}
	return out
}

// listOf returns the elements of a fact that is a list of texts; nil of another fact.
func listOf(f *results.Fact) []string {
	data, _ := f.Data.([]any)
	out := make([]string, len(data))
	for i, v := range data {
		out[i], _ = v.(string)
	}
	return out
}
