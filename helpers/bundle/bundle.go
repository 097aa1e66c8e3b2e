//go:build linux

// Package bundle makes OCI bundles: a directory with a config.json and a rootfs, as the runtime specification defines it
// (bundle.md).
package bundle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"al.essio.dev/pkg/shellescape"
	"github.com/opencontainers/runtime-spec/specs-go"

	"cdblab/helpers/lab"
)

// ID is the chapter's id for a container that runc creates.
const ID = "cdb-runc"

// Bundle is a bundle on disk.
type Bundle struct {
	Dir  string      // absolute
	Name string      // the directory's name below the question's directory
	Spec *specs.Spec // the configuration; after a change, call Write

	q            *lab.Q
	sharedRootfs string      // the rootfs of another bundle, which this bundle shares; "" if it has its own
	original     []byte      // config.json as New wrote it
	written      *specs.Spec // what Write wrote last, to compare an edit with
}

// Marshal returns the JSON of a configuration in the form in which `runc spec` writes it.
func Marshal(s *specs.Spec) ([]byte, error) { return json.MarshalIndent(s, "", "\t") }

// Read returns the configuration in the config.json of a bundle. Another program, such as containerd, may have made the bundle.
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

// Busybox makes the chapter's bundle in the question's directory bundle/. Its configuration is what `runc spec` writes, with
// these arguments of the program, without a terminal, and in the question's own cgroup. Its rootfs has busybox.
func Busybox(q *lab.Q, args ...string) *Bundle {
	q.Helper()
	return New(q, "bundle", ID, Args(args...))
}

// New is [Busybox] with another directory below the question's, for a container with another id, and with edits.
func New(q *lab.Q, name, id string, edits ...func(*specs.Spec)) *Bundle {
	q.Helper()
	b := &Bundle{q: q, Dir: q.Mkdir(name), Name: name}
	b.writeRootfs()
	q.Must("runc", "spec", "--bundle", name)
	b.Spec, b.written = Read(q, b.Dir), Read(q, b.Dir)
	b.Spec.Process.Terminal = false
	b.Spec.Linux.CgroupsPath = filepath.Join(q.Cgroup, id)
	for _, edit := range edits {
		edit(b.Spec)
	}
	b.Write()
	b.original, _ = Marshal(b.Spec)
	return b
}

// Variant makes another bundle for a container with another id. It has its own directory, the same configuration except for
// the edits, and shares the rootfs.
func (b *Bundle) Variant(name, id string, edits ...func(*specs.Spec)) *Bundle {
	b.q.Helper()
	v := &Bundle{q: b.q, Dir: b.q.Mkdir(name), Name: name, Spec: &specs.Spec{}, written: b.written, sharedRootfs: b.Rootfs()}
	data, err := Marshal(b.Spec)
	if err == nil {
		err = json.Unmarshal(data, v.Spec)
	}
	if err != nil {
		b.q.Fatalf("copy config.json: %v", err)
	}
	v.Spec.Linux.CgroupsPath = filepath.Join(b.q.Cgroup, id)
	if v.Spec.Root != nil {
		v.Spec.Root.Path = v.sharedRootfs
	}
	for _, edit := range edits {
		edit(v.Spec)
	}
	b.q.LogCommand("mkdir %s", name)
	v.Write()
	v.original, _ = Marshal(v.Spec)
	return v
}

// InSubtest returns the same bundle for the use in a subtest: its commands appear in the notes of the subtest, and its failures
// fail the subtest.
func (b *Bundle) InSubtest(q *lab.Q) *Bundle {
	c := *b
	c.q = q
	return &c
}

// Restore reverts all edits since the bundle was made.
func (b *Bundle) Restore() {
	b.q.Helper()
	*b.Spec = specs.Spec{}
	if err := json.Unmarshal(b.original, b.Spec); err != nil {
		b.q.Fatalf("restore config.json: %v", err)
	}
	b.WriteRaw(string(b.original), "without edits again")
}

// writeRootfs makes the rootfs, and notes shell commands that make the same.
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
		"for a in $(bin/busybox --list); do [ -e bin/$a ] || ln -s busybox bin/$a; done)",
		b.Name, shellescape.Quote(b.q.UnderTest("busybox").Path))
}

// Edit changes the bundle's configuration and writes it.
func (b *Bundle) Edit(edit func(*specs.Spec)) *Bundle {
	b.q.Helper()
	edit(b.Spec)
	b.Write()
	return b
}

// Write writes Spec into config.json.
func (b *Bundle) Write() {
	b.q.Helper()
	data, err := Marshal(b.Spec)
	if err != nil {
		b.q.Fatalf("write config.json: %v", err)
	}
	changes, err := Difference(b.written, b.Spec)
	if err != nil {
		b.q.Fatalf("write config.json: %v", err)
	}
	comment := strings.Join(changes, ", ")
	if len(changes) > 4 {
		comment = strings.Join(changes[:4], ", ") + ", …"
	}
	b.written = &specs.Spec{}
	if err := json.Unmarshal(data, b.written); err != nil {
		b.q.Fatalf("write config.json: %v", err)
	}
	b.WriteRaw(string(data), comment)
}

// WriteRaw writes any text into config.json. The comment says to the reader what is special in it.
func (b *Bundle) WriteRaw(config, comment string) {
	b.q.Helper()
	if err := os.WriteFile(b.Config(), []byte(config), 0o644); err != nil {
		b.q.Fatalf("write config.json: %v", err)
	}
	b.q.LogCommandAs(fmt.Sprintf("cat > %s/config.json   # %s", b.Name, comment),
		fmt.Sprintf("cat > %s/config.json <<'END'\n%s\nEND", b.Name, strings.TrimSuffix(config, "\n")))
}

// Config returns the path of config.json.
func (b *Bundle) Config() string { return filepath.Join(b.Dir, "config.json") }

// Rootfs returns the path of a file of the rootfs on the host, or of the rootfs itself.
func (b *Bundle) Rootfs(name ...string) string {
	if b.sharedRootfs != "" {
		return filepath.Join(append([]string{b.sharedRootfs}, name...)...)
	}
	return filepath.Join(append([]string{b.Dir, "rootfs"}, name...)...)
}

// NamespaceTypes lists the types of the namespaces in a configuration, sorted.
func NamespaceTypes(s *specs.Spec) []string {
	var out []string
	for _, ns := range s.Linux.Namespaces {
		out = append(out, string(ns.Type))
	}
	slices.Sort(out)
	return out
}
