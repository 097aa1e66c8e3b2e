//go:build linux

package vm

import (
	"debug/elf"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"cdblab/helpers/tools"
)

// findTool finds a tool. It returns "" for a tool that is missing and that the lab runs without.
func findTool(t tools.Tool, module string) (string, error) {
	p, err := t.Find(module)
	if err == nil {
		return p.Path, nil
	}
	if t.Need != tools.Required {
		return "", nil
	}
	fault := &Fault{Tried: "find " + t.Name, Seen: err.Error()}
	if e, ok := errors.AsType[*tools.NotFoundError](err); ok {
		fault.Seen, fault.Do = e.Seen, e.Do
	}
	return "", fault
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
