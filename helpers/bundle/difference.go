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
	// Fields has the value of each field as JSON. Each element of a list is a field of its own. It is named by its own name (a
	// mount's destination, a namespace's type), so that order alone makes no difference, or else by its index.
	Fields map[string]string
	// Words has the lists of words without a meaningful order: capabilities, environment, paths.
	Words map[string][]string
}

// Flatten returns the table of a configuration.
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
	return t, t.addObject("", tree)
}

// addObject adds the fields of a JSON object. Their paths begin with path.
func (t Table) addObject(path string, node map[string]any) error {
	for key, value := range node {
		field := strings.TrimPrefix(path+"."+key, ".")
		var err error
		switch v := value.(type) {
		case map[string]any:
			err = t.addObject(field, v)
		case []any:
			err = t.addList(field, v)
		default:
			err = t.addField(field, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t Table) addList(field string, list []any) error {
	if field == "process.args" { // its order is meaningful
		return t.addField(field, list)
	}
	name := elementNames(list)
	for i, v := range list {
		if word, ok := v.(string); ok {
			t.Words[field] = append(t.Words[field], word)
		} else if err := t.addField(fmt.Sprintf("%s[%s]", field, name(i)), v); err != nil {
			return err
		}
	}
	return nil
}

func (t Table) addField(field string, value any) error {
	data, err := json.Marshal(value)
	t.Fields[field] = string(data)
	return err
}

// elementNames returns the function that names the i-th element of a list: by a field whose values are different in all elements,
// or else by its index.
func elementNames(list []any) func(int) string {
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

// Difference lists the differences of two configurations, sorted by field. A line with "- " is in a only, with "+ " in b only.
func Difference(a, b *specs.Spec) ([]string, error) {
	tableA, err := Flatten(a)
	if err != nil {
		return nil, err
	}
	tableB, err := Flatten(b)
	if err != nil {
		return nil, err
	}
	lines := map[string][]string{}
	add := func(sign string, t, other Table) {
		for field, value := range t.Fields {
			if otherValue, ok := other.Fields[field]; !ok || otherValue != value {
				lines[field] = append(lines[field], sign+" "+field+" = "+value)
			}
		}
		for field, words := range t.Words {
			only := slices.DeleteFunc(slices.Sorted(slices.Values(words)), func(word string) bool {
				return slices.Contains(other.Words[field], word)
			})
			if len(only) > 0 {
				lines[field] = append(lines[field], sign+" "+field+" has "+strings.Join(only, " "))
			}
		}
	}
	add("-", tableA, tableB)
	add("+", tableB, tableA)
	var out []string
	for _, field := range slices.Sorted(maps.Keys(lines)) {
		out = append(out, lines[field]...)
	}
	return out, nil
}
