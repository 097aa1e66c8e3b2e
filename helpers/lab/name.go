//go:build linux

package lab

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
