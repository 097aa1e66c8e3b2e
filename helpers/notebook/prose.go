package notebook

import (
	"html/template"
	"regexp"
	"strings"
)

// span is a piece of a sentence.
type span struct {
	Text string
	Code bool
}

// spans cuts a sentence at its backquotes, between which it has code, as in Markdown. A backquote without its counterpart is text.
func spans(s string) []span {
	var out []span
	for {
		before, rest, found := strings.Cut(s, "`")
		code, after, closed := strings.Cut(rest, "`")
		if !found || !closed {
			return append(out, span{Text: s})
		}
		out = append(out, span{Text: before}, span{code, true})
		s = after
	}
}

// raw escapes a text that stands between two tags. Other than html/template it keeps quotation marks, which mean nothing there: the
// many config.json would have five bytes for each.
func raw(s string) template.HTML {
	return template.HTML(strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\x00", "\ufffd").Replace(s))
}

// volatileValue matches a value that is different in each run: <pid 1>.
var volatileValue = regexp.MustCompile(`<(\w[\w ]*) (\d+)>`)

// value escapes the value of a fact, as [raw] does. No line breaks within a <pid 1>.
func value(s string) template.HTML {
	return raw(volatileValue.ReplaceAllString(s, "<$1\u00a0$2>"))
}
