package vm

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// tool is a program under test, or one that the tests use.
type tool struct {
	variable string   // the variable of the environment that names another, outside and in the guest
	guest    string   // its place in the guest
	paths    []string // where it is looked for outside; relative ones are below the module
	remedy   string   // "" where the lab does without
}

var tools = []tool{
	{"CDB_RUNC", "/usr/local/bin/runc", []string{".lab/bin/runc"}, "run `make tools`"},
	{"CDB_CONTAINERD", "/usr/local/bin/containerd", []string{".lab/bin/containerd"}, "run `make tools`"},
	{"CDB_SHIM", "/usr/local/bin/containerd-shim-runc-v2", []string{".lab/bin/containerd-shim-runc-v2"}, "run `make tools`"},
	{"CDB_CTR", "/usr/local/bin/ctr", []string{".lab/bin/ctr"}, "run `make tools`"},
	{"CDB_BUSYBOX", "/usr/bin/busybox", []string{"/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/usr/lib/busybox/busybox-static"}, "run `make deps`, which installs a static busybox"},
	{"", "/usr/bin/strace", []string{"/usr/bin/strace", "/usr/local/bin/strace"}, ""},
	{"", "/usr/bin/crun", []string{"/usr/bin/crun", "/usr/local/bin/crun"}, ""},
	{"", "/usr/bin/mkfs.erofs", []string{"/usr/bin/mkfs.erofs", "/usr/sbin/mkfs.erofs", "/usr/local/bin/mkfs.erofs"}, ""},
	{"", "/usr/sbin/criu", []string{"/usr/sbin/criu", "/usr/local/sbin/criu"}, ""},
}

// find is the tool's file outside, or "" for one that can be done without.
func (t tool) find(module string) (string, error) {
	name := filepath.Base(t.guest)
	if v := os.Getenv(t.variable); t.variable != "" && v != "" {
		p, err := exec.LookPath(v) // a bare name, too: CDB_RUNC=crun
		if err != nil {
			return "", &Fault{Tried: "find " + name, Seen: fmt.Sprintf("%s=%s: %v", t.variable, v, err), Do: "name a program, or unset " + t.variable}
		}
		return filepath.Abs(p)
	}
	for _, p := range t.paths {
		if !filepath.IsAbs(p) {
			p = filepath.Join(module, p)
		}
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p, nil
		}
	}
	if t.remedy == "" {
		return "", nil
	}
	return "", &Fault{Tried: "find " + name, Seen: "it is in none of " + strings.Join(t.paths, ", "), Do: t.remedy + ", or set " + t.variable + " to its path"}
}

// program adds a program and the shared libraries that it needs. The libraries keep their paths.
func (t tree) program(at, from string) error {
	t.file(at, from, 0o755)
	libs, err := libraries(from)
	if err != nil {
		return &Fault{Tried: "find the shared libraries of " + from, Seen: err.Error(), Do: "see that it runs here, or give a static one"}
	}
	for _, lib := range libs {
		t.file(merged(lib), lib, 0o755)
	}
	return nil
}

// merged is the path with /lib, /bin and such resolved to the guest's /usr/lib, /usr/bin.
func merged(p string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	switch first {
	case "bin", "sbin", "lib", "lib64", "lib32":
		return path.Join("/usr", p)
	}
	return path.Clean(p)
}

// libraries asks the program's own loader, which alone knows all the rules. A static program and a script have none.
func libraries(program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	var loader string
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, err
			}
			loader = strings.TrimRight(string(b), "\x00")
		}
	}
	if loader == "" {
		return nil, nil
	}
	libs := []string{loader}
	out, err := exec.Command(loader, "--list", program).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %s", loader, lastLine(out))
	}
	// "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)"
	for line := range strings.Lines(string(out)) {
		field := strings.Fields(line)
		if len(field) >= 3 && field[1] == "=>" && filepath.IsAbs(field[2]) {
			libs = append(libs, field[2])
		}
	}
	return libs, nil
}
