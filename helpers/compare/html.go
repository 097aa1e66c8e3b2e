package compare

import (
	_ "embed"
	"html/template"
	"io"
)

//go:embed compare.html
var page string

// html/template escapes all that comes from a run, so no text of a run is code in the page. The page allows no script at all.
var pageTemplate = template.Must(template.New("compare").Funcs(template.FuncMap{"split": splitForPage}).Parse(page))

// WriteHTML writes a comparison as a page without references to other files.
func WriteHTML(w io.Writer, c *Comparison) error { return pageTemplate.Execute(w, c) }

// pieces are two values with what differs between them.
type pieces struct{ Prefix, A, B, Suffix string }

func splitForPage(d Difference) pieces {
	if d.Change != Changed {
		return pieces{A: d.A, B: d.B}
	}
	p, a, b, s := Split(d.A, d.B)
	return pieces{p, a, b, s}
}
