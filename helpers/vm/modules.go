//go:build linux

package vm

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
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
	// Pid 1 needs these modules to reach the ports and the disks, and to mount the root filesystem.
	bootModules = []string{"virtio_pci", "virtio_console", "virtio_blk", "erofs", "overlay"}

	// Containers may need these modules. The kernel loads them on demand through modprobe, so an unused one costs nothing.
	guestModules = []string{
		"overlay", "erofs", "loop", "fuse", "squashfs", "veth", "bridge", "br_netfilter", "dummy", "macvlan", "ipvlan", "tun",
		"nf_tables", "nft_chain_nat", "nft_masq", "nft_compat", "nft_ct", "xt_conntrack", "xt_MASQUERADE", "xt_comment", "sch_ingress",
		"xfrm_user", // runc opens a netlink socket for it when it moves a network device
	}
)

// kernelModule is a kernel module, as its own .modinfo section describes it.
type kernelModule struct {
	name    string
	path    string // below the modules' directory, without the suffix of the compression
	content []byte // uncompressed
	depends []string
	aliases []string
}

// readModules reads the named modules and all modules that they depend on, dependencies first. A module that is not found
// is built in, or does not exist in this kernel. The program that needs it will report that more precisely.
//
// The kernel's package has no modules.dep (depmod makes it during the installation), but each module names the modules
// that it needs.
func (k *kernel) readModules(names []string) ([]*kernelModule, error) {
	if k.modules == "" {
		return nil, nil
	}
	files := map[string]string{}
	err := filepath.WalkDir(k.modules+"/kernel", func(p string, d fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(p), ".ko"); err == nil && ok {
			files[strings.ReplaceAll(name, "-", "_")] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var (
		list []*kernelModule
		seen = map[string]bool{}
		add  func(name string) error
	)
	add = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		file, ok := files[name]
		if seen[name] || !ok {
			return nil
		}
		seen[name] = true
		m, err := readModule(file)
		if err != nil {
			do := "name the directory of other modules: CDB_MODULES=…"
			if k.dir != "" {
				do = "remove " + k.dir + ", and run again: the lab fetches it again"
			}
			return &Fault{Tried: "read the kernel module " + file, Seen: err.Error(), Do: do}
		}
		m.name = name
		rel, _ := filepath.Rel(k.modules, file)
		m.path = strings.TrimSuffix(rel, filepath.Ext(strings.TrimSuffix(rel, ".ko")))
		for _, d := range m.depends {
			if err := add(d); err != nil {
				return err
			}
		}
		list = append(list, m)
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func readModule(file string) (*kernelModule, error) {
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
	m := &kernelModule{content: b}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it has no .modinfo section")
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

// addModules adds the modules where modprobe looks for them, and the two indexes that modprobe reads.
func (t fileTree) addModules(release string, list []*kernelModule) {
	dir := "/usr/lib/modules/" + release + "/"
	var deps, aliases strings.Builder
	for _, m := range list {
		t[dir+m.path] = fileNode{content: m.content, mode: 0o644}
		fmt.Fprintf(&deps, "%s:", m.path)
		for _, n := range allDependencies(m, list) {
			fmt.Fprintf(&deps, " %s", n.path)
		}
		deps.WriteByte('\n')
		for _, a := range m.aliases {
			fmt.Fprintf(&aliases, "alias %s %s\n", a, m.name)
		}
	}
	t.addContent(dir+"modules.dep", deps.String())
	t.addContent(dir+"modules.alias", aliases.String())
}

// allDependencies returns the modules that m needs, directly or indirectly, the nearest first, as depmod writes them.
func allDependencies(m *kernelModule, list []*kernelModule) (needs []*kernelModule) {
	for _, d := range m.depends {
		i := slices.IndexFunc(list, func(o *kernelModule) bool { return o.name == strings.ReplaceAll(d, "-", "_") })
		if i < 0 {
			continue
		}
		for _, n := range append([]*kernelModule{list[i]}, allDependencies(list[i], list)...) {
			if !slices.Contains(needs, n) {
				needs = append(needs, n)
			}
		}
	}
	return needs
}
