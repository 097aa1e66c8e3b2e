//go:build linux

package bundle

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Flatten turns a configuration into a table, field → value as JSON, in which two can be compared line by line. A list
// whose elements have a name (a mount's destination, a namespace's type) is keyed by that, so that order alone makes no
// difference; any other list is one value.
func Flatten(s *specs.Spec) (map[string]string, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	out := map[string]string{}
	if err := flatten(out, "", tree); err != nil {
		return nil, err
	}
	return out, nil
}

func flatten(out map[string]string, path string, node any) error {
	switch n := node.(type) {
	case map[string]any:
		for k, v := range n {
			if err := flatten(out, path+"."+k, v); err != nil {
				return err
			}
		}
		return nil
	case []any:
		if named, ok := byName(n); ok {
			for name, v := range named {
				if err := flatten(out, fmt.Sprintf("%s[%s]", path, name), v); err != nil {
					return err
				}
			}
			return nil
		}
	}
	data, err := json.Marshal(node)
	if err != nil {
		return err
	}
	out[path[1:]] = string(data)
	return nil
}

// byName keys the elements of a list by the field that names them; ok is false where they have none, or not a unique one.
func byName(list []any) (named map[string]any, ok bool) {
	for _, key := range []string{"destination", "type", "path"} {
		named = map[string]any{}
		for _, e := range list {
			if m, isMap := e.(map[string]any); isMap {
				if name, isString := m[key].(string); isString {
					named[name] = m
				}
			}
		}
		if len(list) > 0 && len(named) == len(list) {
			return named, true
		}
	}
	return nil, false
}

// Difference lists, sorted, the fields in which two configurations differ: "- " as a has it, "+ " as b has it.
func Difference(a, b *specs.Spec) ([]string, error) {
	fa, err := Flatten(a)
	if err != nil {
		return nil, err
	}
	fb, err := Flatten(b)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(fa)
	maps.Copy(all, fb)
	var out []string
	for _, field := range slices.Sorted(maps.Keys(all)) {
		va, inA := fa[field]
		vb, inB := fb[field]
		if inA && inB && va == vb {
			continue
		}
		if inA {
			out = append(out, fmt.Sprintf("- %s = %s", field, va))
		}
		if inB {
			out = append(out, fmt.Sprintf("+ %s = %s", field, vb))
		}
	}
	return out, nil
}
