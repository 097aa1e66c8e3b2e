//go:build linux

// Package bundle builds an OCI bundle by hand: a directory with a config.json and a rootfs, as the runtime
// specification defines it (bundle.md).
package bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"cdblab/helpers/lab"
)

// ID is the chapter's id for a container that runc makes.
const ID = "cdb-runc"

// Bundle is a bundle on disk.
type Bundle struct {
	Dir  string      // absolute
	Name string      // the directory's name below the question's own
	Spec *specs.Spec // what config.json says

	q      *lab.Q
	rootfs string      // where it is another bundle's
	first  []byte      // config.json as New wrote it
	last   *specs.Spec // what Write wrote last, to tell what an edit changes
}

// Busybox builds the chapter's bundle, <question>/bundle: what `runc spec` writes, with the arguments given, without a
// terminal, in the question's own cgroup, over a rootfs of busybox.
func Busybox(q *lab.Q, args ...string) *Bundle {
	q.Helper()
	return New(q, "bundle", ID, Args(args...))
}

// New builds the same bundle in another directory below the question's own, for a container of another id, with edits.
func New(q *lab.Q, name, id string, edits ...func(*specs.Spec)) *Bundle {
	q.Helper()
	b := &Bundle{q: q, Dir: q.Mkdir(name), Name: name}
	b.writeRootfs()
	q.Must("runc", "spec", "--bundle", name)
	b.Spec, b.last = Read(q, b.Dir), Read(q, b.Dir)
	b.Spec.Process.Terminal = false
	b.Spec.Linux.CgroupsPath = filepath.Join(q.Cgroup, id)
	for _, edit := range edits {
		edit(b.Spec)
	}
	b.Write()
	b.first, _ = Marshal(b.Spec)
	return b
}

// Variant is another bundle, in a directory of its own, with the same configuration but for the edits, for a container of
// another id. It shares the rootfs.
func (b *Bundle) Variant(name, id string, edits ...func(*specs.Spec)) *Bundle {
	b.q.Helper()
	v := &Bundle{q: b.q, Dir: b.q.Mkdir(name), Name: name, Spec: &specs.Spec{}, last: b.last, rootfs: b.Rootfs()}
	data, err := Marshal(b.Spec)
	if err == nil {
		err = json.Unmarshal(data, v.Spec)
	}
	if err != nil {
		b.q.Fatalf("copy config.json: %v", err)
	}
	v.Spec.Linux.CgroupsPath = filepath.Join(b.q.Cgroup, id)
	if v.Spec.Root != nil {
		v.Spec.Root.Path = v.rootfs
	}
	for _, edit := range edits {
		edit(v.Spec)
	}
	b.q.LogCommand("mkdir %s", name)
	v.Write()
	v.first, _ = Marshal(v.Spec)
	return v
}

// In is the same bundle, in the hands of a part of the question, whose notes it then takes.
func (b *Bundle) InSubtest(q *lab.Q) *Bundle {
	c := *b
	c.q = q
	return &c
}

// Restore takes back all edits.
func (b *Bundle) Restore() {
	b.q.Helper()
	*b.Spec = specs.Spec{}
	if err := json.Unmarshal(b.first, b.Spec); err != nil {
		b.q.Fatalf("restore config.json: %v", err)
	}
	b.WriteRaw(string(b.first), "whole again")
}

// Args is an edit: the program and its arguments.
func Args(args ...string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = args }
}

// WithoutNamespace is an edit: the container stays in the host's namespace of that type.
func WithoutNamespace(ns specs.LinuxNamespaceType) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == ns })
	}
}

// writeRootfs does what the shell lines do that it notes.
func (b *Bundle) writeRootfs() {
	b.q.Helper()
	rootfs := filepath.Join(b.Dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		b.q.Fatalf("make the rootfs: %v", err)
	}
	if err := b.q.RootFS().WriteDir(rootfs); err != nil {
		b.q.Fatal(err)
	}
	b.q.LogCommand("mkdir -p %[1]s/rootfs && (cd %[1]s/rootfs && mkdir bin dev etc proc root run sys tmp && cp %[2]s bin/ && "+
		"for a in $(bin/busybox --list); do [ -e bin/$a ] || ln -s busybox bin/$a; done)", b.Name, b.q.UnderTest("busybox").Path)
}

// Edit changes the bundle's configuration and writes it.
func (b *Bundle) Edit(edit func(*specs.Spec)) *Bundle {
	b.q.Helper()
	edit(b.Spec)
	b.Write()
	return b
}

// Write writes config.json as it is in Spec.
func (b *Bundle) Write() {
	b.q.Helper()
	data, err := Marshal(b.Spec)
	if err != nil {
		b.q.Fatalf("write config.json: %v", err)
	}
	changes, err := Difference(b.last, b.Spec)
	if err != nil {
		b.q.Fatalf("write config.json: %v", err)
	}
	comment := strings.Join(changes, ", ")
	if len(changes) > 4 {
		comment = strings.Join(changes[:4], ", ") + ", …"
	}
	b.last = &specs.Spec{}
	if err := json.Unmarshal(data, b.last); err != nil {
		b.q.Fatalf("write config.json: %v", err)
	}
	b.WriteRaw(string(data), comment)
}

// WriteRaw writes anything at all into config.json; comment tells the reader what.
func (b *Bundle) WriteRaw(config, comment string) {
	b.q.Helper()
	if err := os.WriteFile(b.Config(), []byte(config), 0o644); err != nil {
		b.q.Fatalf("write config.json: %v", err)
	}
	b.q.LogCommandAs(fmt.Sprintf("cat > %s/config.json   # %s", b.Name, comment),
		fmt.Sprintf("cat > %s/config.json <<'END'\n%s\nEND", b.Name, strings.TrimSuffix(config, "\n")))
}

// Config is the path of config.json.
func (b *Bundle) Config() string { return filepath.Join(b.Dir, "config.json") }

// Rootfs is the path of a file of the rootfs, as the host sees it.
func (b *Bundle) Rootfs(name ...string) string {
	if b.rootfs != "" {
		return filepath.Join(append([]string{b.rootfs}, name...)...)
	}
	return filepath.Join(append([]string{b.Dir, "rootfs"}, name...)...)
}

// Marshal writes a spec in the form that `runc spec` gives it.
func Marshal(s *specs.Spec) ([]byte, error) { return json.MarshalIndent(s, "", "\t") }

// Read reads the config.json of a bundle that somebody else made.
func Read(q *lab.Q, dir string) *specs.Spec {
	q.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		q.Fatalf("read a bundle's configuration: %v", err)
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		q.Fatalf("read %s/config.json: %v", dir, err)
	}
	return &s
}

// NamespaceTypes lists the namespaces of a configuration, sorted.
func NamespaceTypes(s *specs.Spec) []string {
	var out []string
	for _, ns := range s.Linux.Namespaces {
		out = append(out, string(ns.Type))
	}
	slices.Sort(out)
	return out
}
