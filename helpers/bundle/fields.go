//go:build linux

package bundle

import (
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Fields lists the fields of config.json that a Linux container can have, by their path: process.user.uid, and
// mounts[].destination for a field of a list's elements.
func Fields() []string {
	var out []string
	fields("", reflect.TypeFor[specs.Spec](), &out)
	slices.Sort(out)
	return slices.Compact(out)
}

// otherPlatforms are the top-level sections that no Linux container has.
var otherPlatforms = []string{"solaris", "windows", "vm", "zos", "freebsd"}

func fields(path string, t reflect.Type, out *[]string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Slice:
		if element := t.Elem(); element.Kind() == reflect.Struct || element.Kind() == reflect.Pointer {
			fields(path+"[]", element, out)
			return
		}
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			platforms := f.Tag.Get("platform")
			switch {
			case f.Anonymous:
				fields(path, f.Type, out)
			case name == "-", slices.Contains(otherPlatforms, name) && path == "":
			case platforms != "" && !slices.Contains(strings.Split(platforms, ","), "linux"):
			default:
				fields(strings.TrimPrefix(path+"."+name, "."), f.Type, out)
			}
		}
		return
	}
	*out = append(*out, path)
}
