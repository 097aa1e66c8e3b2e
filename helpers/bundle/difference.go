//go:build linux

package bundle

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Table is a configuration as a table, so that two can be compared line by line.
type Table struct {
	// Fields has each field's value as JSON. The elements of a list have a line each: by the name that they have (a
	// mount's destination, a namespace's type), so that order alone makes no difference, else by their index.
	Fields map[string]string
	// Words has the lists of words whose order means nothing: capabilities, environment, paths.
	Words map[string][]string
}

// Flatten makes the table of a configuration.
func Flatten(s *specs.Spec) (Table, error) {
	t := Table{Fields: map[string]string{}, Words: map[string][]string{}}
	data, err := json.Marshal(s)
	if err != nil {
		return t, err
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		return t, err
	}
	return t, t.object("", tree)
}

func (t Table) object(path string, node map[string]any) error {
	for key, value := range node {
		field := strings.TrimPrefix(path+"."+key, ".")
		var err error
		switch v := value.(type) {
		case map[string]any:
			err = t.object(field, v)
		case []any:
			err = t.list(field, v)
		default:
			err = t.field(field, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t Table) list(field string, list []any) error {
	if field == "process.args" { // its order is its meaning
		return t.field(field, list)
	}
	name := namesOf(list)
	for i, v := range list {
		if word, ok := v.(string); ok {
			t.Words[field] = append(t.Words[field], word)
		} else if err := t.field(fmt.Sprintf("%s[%s]", field, name(i)), v); err != nil {
			return err
		}
	}
	return nil
}

func (t Table) field(field string, value any) error {
	data, err := json.Marshal(value)
	t.Fields[field] = string(data)
	return err
}

// namesOf names the elements of a list by the one field that names all of them, if there is one.
func namesOf(list []any) func(int) string {
	for _, key := range []string{"destination", "type", "path"} {
		var names []string
		for _, e := range list {
			m, _ := e.(map[string]any)
			if name, ok := m[key].(string); ok && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		if len(names) == len(list) {
			return func(i int) string { return names[i] }
		}
	}
	return func(i int) string { return fmt.Sprint(i) }
}

// Difference lists, sorted by field, where two configurations differ: "- " is a's side, "+ " is b's.
func Difference(a, b *specs.Spec) ([]string, error) {
	ta, err := Flatten(a)
	if err != nil {
		return nil, err
	}
	tb, err := Flatten(b)
	if err != nil {
		return nil, err
	}
	lines := map[string][]string{}
	add := func(sign string, t, other Table) {
		for field, v := range t.Fields {
			if w, ok := other.Fields[field]; !ok || w != v {
				lines[field] = append(lines[field], sign+" "+field+" = "+v)
			}
		}
		for field, words := range t.Words {
			only := slices.DeleteFunc(slices.Sorted(slices.Values(words)), func(w string) bool { return slices.Contains(other.Words[field], w) })
			if len(only) > 0 {
				lines[field] = append(lines[field], sign+" "+field+" has "+strings.Join(only, " "))
			}
		}
	}
	add("-", ta, tb)
	add("+", tb, ta)
	var out []string
	for _, field := range slices.Sorted(maps.Keys(lines)) {
		out = append(out, lines[field]...)
	}
	return out, nil
}
