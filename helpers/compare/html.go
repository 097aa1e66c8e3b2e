package compare

import (
	_ "embed"
	"html/template"
	"io"
)

//go:embed compare.html
var comparePage string

//go:embed matrix.html
var matrixPage string

// html/template escapes all that comes from a run, so no text of a run is code in a page. The pages allow no script at all.
var (
	compareTemplate = template.Must(template.New("compare").Funcs(template.FuncMap{"split": splitForPage}).Parse(comparePage))
	matrixTemplate  = template.Must(template.New("matrix").Funcs(template.FuncMap{
		"columns": func(m *Matrix) int { return len(m.Columns) + 1 },
		"groups":  func() []int { return []int{1, 2, 3, 4, 5, 6} },
	}).Parse(matrixPage))
)

// WriteHTML writes a comparison as a page without references to other files.
func WriteHTML(w io.Writer, c *Comparison) error { return compareTemplate.Execute(w, c) }

// WriteMatrixHTML writes a matrix as a page without references to other files.
func WriteMatrixHTML(w io.Writer, m *Matrix) error { return matrixTemplate.Execute(w, m) }

// sides are two values with what differs between them.
type sides struct{ A, B []Segment }

func splitForPage(d Difference) sides {
	a, b := Segments(d.A, d.B)
	return sides{a, b}
}
