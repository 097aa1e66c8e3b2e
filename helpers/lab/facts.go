//go:build linux

package lab

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"cdblab/helpers/host"
	"cdblab/helpers/tools"
)

// Volatile is a value that is different in each run, such as a pid. The method returns the kind of value, "pid". The first pid
// of a question is recorded as <pid 1>, another pid as <pid 2>, and the first pid again as <pid 1>. So the comparison of two
// runs still shows that a pid is the same as before.
type Volatile interface{ Volatile() string }

// Measured is a volatile value that is measured, such as a size. Two of them may be equal by chance, so they are recorded without
// a number: <size>.
type Measured interface {
	Volatile
	Measured()
}

// Elapsed is how long something took.
type Elapsed time.Duration

// Volatile returns the kind "duration".
func (Elapsed) Volatile() string { return "duration" }

// Measured marks a duration as measured.
func (Elapsed) Measured() {}

func (e Elapsed) String() string { return time.Duration(e).Round(100 * time.Microsecond).String() }

// Chance is an outcome that may be different in the next run although nothing is wrong.
type Chance string

// Volatile returns the kind "chance".
func (Chance) Volatile() string { return "chance" }

// Measured marks an outcome as measured: two outcomes may be equal by chance.
func (Chance) Measured() {}

// VolatileName is a name that is different in the next run, such as that of a blob or a directory.
type VolatileName struct{ kind, name string }

// VolatileNames returns the names of things of one kind ("digest", "directory") as the value of a fact. The reader sees the
// names. Where two runs are compared, the first name of the kind is <kind 1>.
func VolatileNames[S ~string](kind string, names ...S) []VolatileName {
	var out []VolatileName
	for _, name := range names {
		out = append(out, VolatileName{kind, string(name)})
	}
	return out
}

// Volatile returns the word that stands for such a name where two runs are compared.
func (n VolatileName) Volatile() string { return n.kind }

func (n VolatileName) String() string { return n.name }

// facts are the names of a question's facts, and the numbers of their volatile values.
type facts struct {
	mu      sync.Mutex
	paths   *strings.Replacer
	names   map[string]bool
	numbers map[string]map[string]int // kind → value → number
}

// newFacts returns the record of a question's facts. The programs under test are found by their path: two runs of the same
// program are the same, whatever directory has it.
func newFacts(owner host.Owner, programs map[string]tools.Program) *facts {
	paths := []string{owner.Mark(), "$MARK", owner.Dir(), "$Q", owner.Cgroup(), "$CGROUP", owner.ID(""), "", filepath.Dir(owner.Dir()), "$RUN"}
	// The path of containerd is the beginning of the path of containerd-shim-runc-v2, so the longer name is looked for first.
	for _, p := range slices.Backward(slices.Sorted(maps.Keys(programs))) {
		// /bin/busybox is also the path of a program in each container.
		if path := programs[p].Path; path != "" && p != "busybox" {
			paths = append(paths, path, p)
		}
	}
	return &facts{
		paths:   strings.NewReplacer(paths...),
		names:   map[string]bool{},
		numbers: map[string]map[string]int{},
	}
}

// isNew reports whether no fact of the question had the name before, and remembers the name.
func (f *facts) isNew(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.names[name]
	f.names[name] = true
	return !known
}

// normalize renders a value so that two runs can be compared: volatile values by kind and number, paths relative to the run,
// and programs under test by their name.
func (f *facts) normalize(value any) string { return f.normalizeText(render(value, f.number)) }

func (f *facts) normalizeText(text string) string {
	// A digest depends on the busybox of this machine. Which digests are the same, and which are not, does not.
	return sha256.ReplaceAllStringFunc(f.paths.Replace(text), func(digest string) string { return f.number(VolatileName{"digest", digest}) })
}

var sha256 = regexp.MustCompile(`\bsha256:[0-9a-f]{64}\b`)

// data returns a map or a slice with the elements as [facts.normalize] renders them. Of another value it returns nil.
// It is called after normalize, so that the volatile values have their numbers.
func (f *facts) data(value any) any {
	if _, ok := value.(Volatile); ok {
		return nil
	}
	element := func(v reflect.Value) any {
		if data := f.data(v.Interface()); data != nil {
			return data
		}
		return f.normalize(v.Interface())
	}
	switch rv := reflect.ValueOf(value); rv.Kind() {
	case reflect.Slice:
		list := []any{}
		for i := range rv.Len() {
			list = append(list, element(rv.Index(i)))
		}
		return list
	case reflect.Map:
		table := map[string]any{}
		for _, k := range rv.MapKeys() {
			table[fmt.Sprint(k)] = element(rv.MapIndex(k))
		}
		return table
	}
	return nil
}

func (f *facts) number(v Volatile) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind, key := v.Volatile(), fmt.Sprint(v)
	if _, ok := v.(Measured); ok {
		return fmt.Sprintf("<%s>", kind)
	}
	if f.numbers[kind] == nil {
		f.numbers[kind] = map[string]int{}
	}
	if f.numbers[kind][key] == 0 {
		f.numbers[kind][key] = len(f.numbers[kind]) + 1
	}
	return fmt.Sprintf("<%s %d>", kind, f.numbers[kind][key])
}

// plain renders a value for the reader, who sees volatile values as they are.
func plain(value any) string { return render(value, func(v Volatile) string { return fmt.Sprint(v) }) }

// render renders a value on one line: slices and maps element by element, maps in the order of their keys. The function
// volatile renders a volatile value.
func render(value any, volatile func(Volatile) string) string {
	if v, ok := value.(Volatile); ok {
		return volatile(v)
	}
	if s, ok := value.(fmt.Stringer); ok {
		return s.String()
	}
	rv := reflect.ValueOf(value)
	switch rv.Kind() {
	case reflect.Slice:
		var parts []string
		for i := range rv.Len() {
			parts = append(parts, render(rv.Index(i).Interface(), volatile))
		}
		if len(parts) == 0 {
			return "none"
		}
		return strings.Join(parts, " ")
	case reflect.Map:
		keys := map[string]reflect.Value{}
		for _, k := range rv.MapKeys() {
			keys[fmt.Sprint(k)] = k
		}
		var out []string
		// The order of the keys decides which numbers the volatile values get.
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			out = append(out, k+"="+render(rv.MapIndex(keys[k]).Interface(), volatile))
		}
		return strings.Join(out, " ")
	}
	return strings.ReplaceAll(fmt.Sprint(value), "\n", " ⏎ ")
}
