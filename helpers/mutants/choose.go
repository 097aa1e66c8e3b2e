//go:build linux

package mutants

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"iter"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// A Program is the source of a target: its packages with their types.
type Program struct {
	fset       *token.FileSet
	packages   map[string]*packages.Package // by import path
	candidates []candidate                  // sorted: the same source has the same candidates in the same order
	sources    map[string]string            // file of the mutants → path on the disk
}

// Load loads the packages of the target that the questions execute.
func (s *Source) Load(ctx context.Context, profile *Profile) (*Program, error) {
	config := func(mode packages.LoadMode) *packages.Config {
		env, args := s.build("")
		return &packages.Config{
			Context: ctx, Mode: mode, Dir: s.module, Env: append(os.Environ(), env, "GOFLAGS=-mod=readonly"),
			BuildFlags: args[1 : len(args)-1],
		}
	}
	const files = packages.NeedName | packages.NeedFiles
	program, err := packages.Load(config(files|packages.NeedImports|packages.NeedDeps), s.target.Tool.Build.Package)
	if err != nil {
		return nil, fmt.Errorf("list the packages of %s: %w", s.target.Name, err)
	}
	var paths []string
	packages.Visit(program, nil, func(p *packages.Package) {
		executed := slices.ContainsFunc(p.GoFiles, func(f string) bool { return profile.mayExecute(path.Join(p.PkgPath, filepath.Base(f))) })
		if s.target.owns(p.PkgPath) && executed {
			paths = append(paths, p.PkgPath)
		}
	})
	slices.Sort(paths)
	if len(paths) == 0 {
		return nil, fmt.Errorf("the questions execute no package of %s: look at the profile of the coverage", s.target.Name)
	}
	loaded, err := packages.Load(config(files|packages.NeedCompiledGoFiles|packages.NeedImports|packages.NeedSyntax|
		packages.NeedTypes|packages.NeedTypesInfo|packages.NeedTypesSizes|packages.NeedModule), paths...)
	if err != nil {
		return nil, fmt.Errorf("load the packages of %s: %w", s.target.Name, err)
	}
	return newProgram(loaded, profile)
}

// newProgram collects the candidates of packages.
func newProgram(loaded []*packages.Package, profile *Profile) (*Program, error) {
	p := &Program{packages: map[string]*packages.Package{}, sources: map[string]string{}}
	for _, pkg := range loaded {
		if len(pkg.Errors) > 0 {
			return nil, fmt.Errorf("load %s: %v", pkg.PkgPath, pkg.Errors[0])
		}
		p.fset = pkg.Fset
		p.packages[pkg.PkgPath] = pkg
		for _, f := range pkg.Syntax {
			source := pkg.Fset.PositionFor(f.FileStart, false).Filename
			// A file that cgo has written has no source that can be changed. So no mutant is made of a file that imports "C".
			if !slices.Contains(pkg.GoFiles, source) || ast.IsGenerated(f) {
				continue
			}
			src, err := os.ReadFile(source)
			if err != nil {
				return nil, err
			}
			file := path.Join(pkg.PkgPath, filepath.Base(source))
			p.sources[file] = source
			for _, c := range candidates(pkg.Fset, f, src, pkg.TypesInfo, file) {
				if profile.Executes(file, c.at) {
					p.candidates = append(p.candidates, c)
				}
			}
		}
	}
	slices.SortStableFunc(p.candidates, func(a, b candidate) int { return compareMutants(a.Mutant, b.Mutant) })
	return p, nil
}

func compareMutants(a, b Mutant) int {
	return cmp.Or(strings.Compare(a.File, b.File), a.Start-b.Start, a.End-b.End, strings.Compare(a.New, b.New))
}

// Draw returns the mutants of some kinds in the order of a seed: first a kind by chance, and then a mutant of it. It leaves out those
// whose types do not fit, and further mutants of a line.
func (p *Program) Draw(seed uint64, of []Kind) iter.Seq[Mutant] {
	return func(yield func(Mutant) bool) {
		random := rand.New(rand.NewPCG(seed, 13))
		byKind := map[Kind][]Mutant{}
		for _, c := range p.candidates {
			byKind[c.Kind] = append(byKind[c.Kind], c.Mutant)
		}
		kinds := slices.DeleteFunc(slices.Clone(of), func(k Kind) bool { return len(byKind[k]) == 0 })
		lines := map[string]bool{}
		for len(kinds) > 0 {
			i := random.IntN(len(kinds))
			kind := kinds[i]
			j := random.IntN(len(byKind[kind]))
			m := byKind[kind][j]
			byKind[kind] = slices.Delete(byKind[kind], j, j+1)
			if len(byKind[kind]) == 0 {
				kinds = slices.Delete(kinds, i, i+1)
			}
			if lines[m.Place()] || p.check(m) != nil {
				continue
			}
			lines[m.Place()] = true
			if !yield(m) {
				return
			}
		}
	}
}

// Count returns how many faults of each kind can be made.
func (p *Program) Count() map[Kind]int {
	n := map[Kind]int{}
	for _, c := range p.candidates {
		n[c.Kind]++
	}
	return n
}

// check returns an error if the package with the fault has wrong types, such as a variable that is not used any more. It takes a
// hundredth of the time of a build.
func (p *Program) check(m Mutant) error {
	source := p.sources[m.File]
	src, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	changed, err := parser.ParseFile(p.fset, source, m.Apply(src), parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	pkg := p.packages[m.dir()]
	files := slices.Clone(pkg.Syntax)
	for i, f := range files {
		if p.fset.PositionFor(f.FileStart, false).Filename == source {
			files[i] = changed
		}
	}
	config := types.Config{Importer: importer{pkg.Types, p.packages}, Sizes: pkg.TypesSizes}
	if pkg.Module != nil && pkg.Module.GoVersion != "" {
		config.GoVersion = "go" + pkg.Module.GoVersion
	}
	_, err = config.Check(pkg.PkgPath, p.fset, files, nil)
	return err
}

// importer imports what a package has imported already, and otherwise what another package of the program has.
type importer struct {
	pkg    *types.Package
	others map[string]*packages.Package
}

func (i importer) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	for _, p := range i.pkg.Imports() {
		if p.Path() == path {
			return p, nil
		}
	}
	for _, other := range i.others {
		for _, p := range other.Types.Imports() {
			if p.Path() == path && path == "time" { // of a delay
				return p, nil
			}
		}
	}
	return nil, errors.New("the package did not import " + path)
}
