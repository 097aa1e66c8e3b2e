// Package notebook renders a run of the lab as one page that explains itself: what was tested, the syllabus with the verdicts, and
// of each question the answer, the experiment and the pictures.
//
// The page needs no other file, no server and no network. Names and values of a run are text in it: html/template escapes them,
// and a Content-Security-Policy allows no other script and no other style than the page's own.
package notebook

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"

	"cdblab/helpers/howto"
	"cdblab/helpers/results"
)

var (
	//go:embed page.html
	markup string
	//go:embed page.css
	style string
	//go:embed page.js
	script string

	page = template.Must(template.New("page").Funcs(template.FuncMap{
		"spans": spans, "raw": raw, "value": value, "runOnly": howto.RunOnly,
	}).Parse(markup))
)

// Write writes the page of a run. A run of which something is missing gives a page that says what is missing.
func Write(w io.Writer, run *results.Run) error {
	out := bufio.NewWriterSize(w, 1<<16) // the template writes in small pieces
	err := page.Execute(out, struct {
		*view
		Style                 template.CSS
		Script                template.JS
		StyleHash, ScriptHash string
	}{newView(run), template.CSS(style), template.JS(script), hash(style), hash(script)})
	if err != nil {
		return err
	}
	return out.Flush()
}

// hash returns the source of a Content-Security-Policy that allows a script or a style with this text.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
