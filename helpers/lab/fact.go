//go:build linux

package lab

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"cdblab/helpers/host"
)

// Fact records what was observed. The name is unique within the question. Two runs can be compared by their facts: paths
// of the run and volatile values (see [Volatile]) are recorded under names that do not change, while the reader sees them
// as they are. A fact knows the step, or control, in which it was observed.
func (q *Q) Fact(name string, value any) {
	q.Helper()
	if q.notes.t == nil {
		return
	}
	if !q.notes.facts.isNew(name) {
		q.Errorf("two facts of this question are named %q: a fact is found by its name, so give each its own", name)
	}
	q.notes.attrJSON("fact", struct {
		Name  string `json:"name"`
		Value string `json:"value"`
		Step  int    `json:"step"` // number of the step or control; 0 before the first
	}{name, q.notes.facts.normalize(value), q.notes.steps.last})
	q.notes.line("     · %-34s %s", name, plain(value))
}

// Volatile is a value on which no two runs agree, such as a pid. Volatile returns what kind of value it is: the first
// pid of a question is recorded as <pid 1>, another one as <pid 2>, and the first one again as <pid 1>, so that "the
// same pid as before" is still seen.
type Volatile interface{ Volatile() string }

// Elapsed is how long something took.
type Elapsed time.Duration

// Volatile returns the word that stands for a duration where two runs are compared.
func (Elapsed) Volatile() string { return "duration" }

func (e Elapsed) String() string { return time.Duration(e).Round(100 * time.Microsecond).String() }

// Chance is an outcome that may be different in the next run, without anything being wrong.
type Chance string

// Volatile returns the word that stands for such an outcome where two runs are compared.
func (Chance) Volatile() string { return "chance" }

// facts are the names of a question's facts, and the numbers of their volatile values.
type facts struct {
	mu      sync.Mutex
	paths   *strings.Replacer
	names   map[string]bool
	numbers map[string]map[string]int // kind → value → number
}

func newFacts(owner host.Owner) *facts {
	return &facts{
		paths:   strings.NewReplacer(owner.Dir(), "$Q", owner.Cgroup(), "$CGROUP", owner.ID(""), "", filepath.Dir(owner.Dir()), "$RUN"),
		names:   map[string]bool{},
		numbers: map[string]map[string]int{},
	}
}

// isNew reports whether no fact had the name before.
func (f *facts) isNew(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.names[name]
	f.names[name] = true
	return !known
}

// normalize writes a value so that two runs can be compared.
func (f *facts) normalize(value any) string { return f.paths.Replace(render(value, f.number)) }

func (f *facts) number(v Volatile) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind, key := v.Volatile(), fmt.Sprint(v)
	if f.numbers[kind] == nil {
		f.numbers[kind] = map[string]int{}
	}
	if f.numbers[kind][key] == 0 {
		f.numbers[kind][key] = len(f.numbers[kind]) + 1
	}
	return fmt.Sprintf("<%s %d>", kind, f.numbers[kind][key])
}

func plain(value any) string { return render(value, func(v Volatile) string { return fmt.Sprint(v) }) }

// render writes a value on one line; slices and maps element by element, maps in the order of their keys.
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
		// In the order of the keys, which the numbers of volatile values follow.
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			out = append(out, k+"="+render(rv.MapIndex(keys[k]).Interface(), volatile))
		}
		return strings.Join(out, " ")
	}
	return strings.ReplaceAll(fmt.Sprint(value), "\n", " ⏎ ")
}
