package vm

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

var (
	// What pid 1 needs to reach the ports and the disks, and for the root.
	bootModules = []string{"virtio_pci", "virtio_console", "virtio_blk", "erofs", "overlay"}

	// What containers may ask for. The kernel loads them on demand through modprobe, so they cost nothing unused.
	guestModules = []string{
		"overlay", "erofs", "loop", "fuse", "squashfs", "veth", "bridge", "br_netfilter", "dummy", "macvlan", "ipvlan", "tun",
		"nf_tables", "nft_chain_nat", "nft_masq", "nft_compat", "nft_ct", "xt_conntrack", "xt_MASQUERADE", "xt_comment", "sch_ingress",
		"xfrm_user", // runc opens a netlink socket for it when it moves a network device
	}
)

// module is one kernel module, as its own .modinfo section describes it.
type module struct {
	name    string
	path    string // below the modules' directory, without the suffix of a compression
	content []byte // uncompressed
	depends []string
	aliases []string
}

// modules reads the named modules and all that they depend on, dependencies first. A module that is not there is
// built in, or does not exist in this kernel; whoever needs it will say so better.
//
// The package has no modules.dep (that is made when it is installed), but each module names what it needs.
func (k *Kernel) modules(names []string) ([]*module, error) {
	if k.Modules == "" {
		return nil, nil
	}
	files := map[string]string{}
	err := filepath.WalkDir(k.Modules+"/kernel", func(p string, d fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(p), ".ko"); err == nil && ok {
			files[strings.ReplaceAll(name, "-", "_")] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var (
		list []*module
		seen = map[string]bool{}
		load func(name string) error
	)
	load = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		file, ok := files[name]
		if seen[name] || !ok {
			return nil
		}
		seen[name] = true
		m, err := readModule(file)
		if err != nil {
			return &Fault{Tried: "read the kernel module " + file, Seen: err.Error(), Do: "remove " + filepath.Dir(filepath.Dir(k.Modules)) + " if it is the lab's own, and run again: it is fetched anew"}
		}
		m.name = name
		rel, _ := filepath.Rel(k.Modules, file)
		m.path = strings.TrimSuffix(rel, filepath.Ext(strings.TrimSuffix(rel, ".ko")))
		for _, d := range m.depends {
			if err := load(d); err != nil {
				return err
			}
		}
		list = append(list, m)
		return nil
	}
	for _, n := range names {
		if err := load(n); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func readModule(file string) (*module, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	switch filepath.Ext(file) {
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(b))
	case ".zst":
		r, err = zstd.NewReader(bytes.NewReader(b))
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(b))
	}
	if r != nil && err == nil {
		b, err = io.ReadAll(r)
	}
	if err != nil {
		return nil, err
	}
	m := &module{content: b}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("it has no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for _, entry := range strings.Split(string(info), "\x00") {
		switch key, value, _ := strings.Cut(entry, "="); key {
		case "depends":
			m.depends = append(m.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			if pre, ok := strings.CutPrefix(value, "pre:"); ok {
				pre, _, _ = strings.Cut(pre, "post:")
				m.depends = append(m.depends, strings.Fields(pre)...)
			}
		case "alias":
			m.aliases = append(m.aliases, value)
		}
	}
	return m, nil
}

// install puts modules where modprobe looks for them, with the two indexes that it reads.
func (t tree) modules(release string, list []*module) {
	dir := "/usr/lib/modules/" + release + "/"
	var deps, aliases strings.Builder
	paths := map[string]string{}
	for _, m := range list {
		paths[m.name] = m.path
		t[dir+m.path] = node{data: m.content, mode: 0o644}
		needs := closure(m, list)
		fmt.Fprintf(&deps, "%s:", m.path)
		for _, n := range needs {
			fmt.Fprintf(&deps, " %s", n.path)
		}
		deps.WriteByte('\n')
		for _, a := range m.aliases {
			fmt.Fprintf(&aliases, "alias %s %s\n", a, m.name)
		}
	}
	t.data(dir+"modules.dep", deps.String())
	t.data(dir+"modules.alias", aliases.String())
}

// closure is what m needs, the nearest first, as depmod writes it.
func closure(m *module, list []*module) (needs []*module) {
	for _, d := range m.depends {
		i := slices.IndexFunc(list, func(o *module) bool { return o.name == strings.ReplaceAll(d, "-", "_") })
		if i < 0 {
			continue
		}
		for _, n := range append([]*module{list[i]}, closure(list[i], list)...) {
			if !slices.Contains(needs, n) {
				needs = append(needs, n)
			}
		}
	}
	return needs
}
