package fleet

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
)

// hostile would be markup in an element, an attribute or a style if it were not escaped.
const hostile = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>" +
	"\"onload=alert(1) 'onclick=alert(1) javascript:alert(1) {{.}} -->"

func TestWriteHTML_NothingOfAResultIsMarkup(t *testing.T) {
	bad := question("Test"+hostile, "fact"+hostile, "1"+hostile, "vanished"+hostile, "")
	bad.Text, bad.Steps[1].Text = hostile, hostile
	worse := question("Test"+hostile, "fact"+hostile, "2"+hostile)
	worse.Text, worse.Steps[1].Text = hostile, hostile
	f := fleetOf(t, false, members{hostile, 2, run(bad)}, members{"b" + hostile, 1, with(
		run(worse, ended(question("TestY"+hostile), results.Failed)),
		func(s *results.Stack) {
			s.Kernel = hostile
			s.Programs = []results.Program{{Name: hostile, Version: hostile, Digest: hostile}}
		})})
	f.Problems = []Problem{{[]string{hostile}, hostile}}
	var page strings.Builder
	assert.NilError(t, WriteHTML(&page, f))

	root, err := html.Parse(strings.NewReader(page.String()))
	assert.NilError(t, err)
	elements, attributes := map[string]int{}, map[string]int{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		elements[n.Data]++
		for _, a := range n.Attr {
			attributes[a.Key]++
			if a.Key == "href" {
				assert.Check(t, strings.HasPrefix(a.Val, "#group-"), "link to %s", a.Val)
			}
		}
	}
	assert.DeepEqual(t, []int{elements["script"], elements["img"], elements["style"], elements["meta"], elements["title"]},
		[]int{0, 0, 1, 3, 1})
	assert.DeepEqual(t, []int{attributes["onerror"], attributes["onload"], attributes["onclick"], attributes["src"]}, []int{0, 0, 0, 0})
	assert.Check(t, cmp.Contains(page.String(), `content="default-src 'none'; style-src 'unsafe-inline'"`))
	assert.Check(t, strings.Contains(page.String(), "&lt;script&gt;"), "the page does not show the hostile text at all")
}

// With more groups than the page shows, the largest one is there: the others are compared with it.
func TestWriteHTML_OfManyGroupsHasTheirBase(t *testing.T) {
	all := []members{{"a", 2, run(question("TestX", "x", "0"))}}
	for i := range pageGroups + 5 {
		all = append(all, members{fmt.Sprintf("n%d-", i), 1, run(question("TestX", "x", fmt.Sprint(i+1)))})
	}
	var page strings.Builder
	assert.NilError(t, WriteHTML(&page, fleetOf(t, false, all...)))
	assert.Check(t, strings.Contains(page.String(), `<section id="group-1">`), "the links to group 1 lead nowhere")
	assert.Equal(t, strings.Count(page.String(), "<section "), pageGroups+1)
	assert.Check(t, cmp.Contains(page.String(), "… and 5 more groups: "))
}

func TestWriteHTML_HasAllNodesAndBothValues(t *testing.T) {
	var page strings.Builder
	assert.NilError(t, WriteHTML(&page, odd(t)))
	for _, want := range []string{
		"<li>a7</li>", `<section id="group-3">`, `<td class="value"><mark>there</mark></td><td class="value"><mark>gone</mark></td>`,
		`4 differences from <a href="#group-1">group 1</a>`, "Failed: TestY", "(no such fact)", "kernel: A 6.1, B 6.12",
		"1 of A&#39;s facts were not observed in B: there the question is failed.",
	} {
		assert.Check(t, cmp.Contains(page.String(), want))
	}
	assert.Check(t, strings.Index(page.String(), `id="group-3"`) < strings.Index(page.String(), `id="group-1"`), "the odd ones come first")
}
