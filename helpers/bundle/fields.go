//go:build linux

package bundle

import (
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Fields lists the paths of the fields that config.json can have for a Linux container, sorted: process.user.uid, and
// mounts[].destination for a field of the elements of a list.
func Fields() []string {
	var out []string
	appendFields("", reflect.TypeFor[specs.Spec](), &out)
	slices.Sort(out)
	return slices.Compact(out)
}

// otherPlatforms are the top-level objects of config.json for other platforms.
var otherPlatforms = []string{"solaris", "windows", "vm", "zos", "freebsd"}

// appendFields appends the paths of the fields of a type. They begin with path.
func appendFields(path string, t reflect.Type, out *[]string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Slice:
		if element := t.Elem(); element.Kind() == reflect.Struct || element.Kind() == reflect.Pointer {
			appendFields(path+"[]", element, out)
			return
		}
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			platforms := f.Tag.Get("platform")
			switch {
			case f.Anonymous:
				appendFields(path, f.Type, out)
			case name == "-", slices.Contains(otherPlatforms, name) && path == "":
			case platforms != "" && !slices.Contains(strings.Split(platforms, ","), "linux"):
			default:
				appendFields(strings.TrimPrefix(path+"."+name, "."), f.Type, out)
			}
		}
		return
	}
	*out = append(*out, path)
}
