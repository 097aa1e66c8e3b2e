package compare

import (
	"slices"
	"strings"
)

// A Segment is a part of a value. What one value has and the other one has not differs.
type Segment struct {
	Text    string
	Differs bool
}

// Segments splits two values, between words, into what is the same in both and what differs.
func Segments(a, b string) (inA, inB []Segment) {
	wordsA, wordsB := strings.SplitAfter(a, " "), strings.SplitAfter(b, " ")
	sameA, sameB := commonWords(wordsA, wordsB)
	return segments(wordsA, sameA), segments(wordsB, sameB)
}

// commonWords reports which words belong to the longest sequence of words that both have. A last word has no space after it.
func commonWords(a, b []string) (inA, inB []bool) {
	equal := func(i, j int) bool { return strings.TrimSpace(a[i]) == strings.TrimSpace(b[j]) }
	inA, inB = make([]bool, len(a)), make([]bool, len(b))
	const limit = 2000 // words: longer values are shown in full
	if len(a) > limit || len(b) > limit {
		return inA, inB
	}
	longest := make([][]int, len(a)+1) // longest[i][j] is the length of the sequence in a[i:] and b[j:]
	for i := range longest {
		longest[i] = make([]int, len(b)+1)
	}
	for i := range slices.Backward(a) {
		for j := range slices.Backward(b) {
			longest[i][j] = max(longest[i+1][j], longest[i][j+1])
			if equal(i, j) {
				longest[i][j] = longest[i+1][j+1] + 1
			}
		}
	}
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case equal(i, j):
			inA[i], inB[j] = true, true
			i, j = i+1, j+1
		case longest[i+1][j] >= longest[i][j+1]:
			i++
		default:
			j++
		}
	}
	return inA, inB
}

func segments(words []string, same []bool) []Segment {
	var out []Segment
	for i, w := range words {
		if n := len(out); n > 0 && out[n-1].Differs != same[i] {
			out[n-1].Text += w
		} else if w != "" {
			out = append(out, Segment{w, !same[i]})
		}
	}
	return out
}

// Values longer than this are cut to the words that differ.
const longValue = 100

// Excerpt returns two values as the reader compares them: of long values, the words that differ with some words around them.
func Excerpt(a, b string) (string, string) {
	if len(a) <= longValue && len(b) <= longValue {
		return a, b
	}
	inA, inB := Segments(a, b)
	return excerpt(inA), excerpt(inB)
}

func excerpt(segments []Segment) string {
	if len(segments) == 1 {
		return segments[0].Text // the other value has more, or nothing is the same
	}
	var out strings.Builder
	for i, s := range segments {
		if s.Differs {
			out.WriteString(s.Text)
			continue
		}
		out.WriteString(shorten(s.Text, i > 0, i < len(segments)-1))
	}
	return out.String()
}

// shorten keeps the words of a common text that are beside a difference: before it, after it, or both.
func shorten(text string, after, before bool) string {
	const keep = 4
	words := strings.SplitAfter(strings.TrimSuffix(text, " "), " ")
	begin, end := 0, 0
	if after {
		begin = keep
	}
	if before {
		end = keep
	}
	if len(words) <= begin+end+1 {
		return text
	}
	out := strings.Join(words[:begin], "") + "… " + strings.Join(words[len(words)-end:], "")
	if before {
		return out + " "
	}
	return strings.TrimSuffix(out, " ")
}
