//go:build linux

package vm

import (
	"context"
	"debug/elf"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// addProgram adds the program hostPath as guestPath, and the shared libraries that it needs. The libraries keep their
// paths.
func (t fileTree) addProgram(ctx context.Context, guestPath, hostPath string) error {
	t.addHostFile(guestPath, hostPath, 0o755)
	libs, err := sharedLibraries(ctx, hostPath)
	if err != nil {
		return &Fault{Tried: "find the shared libraries of " + hostPath, Seen: err.Error(), Do: "check that it runs on this machine, or name a static one"}
	}
	for _, lib := range libs {
		t.addHostFile(mergedUsr(lib), lib, 0o755)
	}
	return nil
}

// mergedUsr returns the path that a file has in the guest. There /bin, /lib and so on are links to /usr/bin and /usr/lib.
func mergedUsr(p string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	switch first {
	case "bin", "sbin", "lib", "lib64", "lib32":
		return path.Join("/usr", p)
	}
	return path.Clean(p)
}

// sharedLibraries returns the program's dynamic loader and its shared libraries. It asks the loader itself, because only
// the loader knows all the rules. A static program and a script have none.
func sharedLibraries(ctx context.Context, program string) ([]string, error) {
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
	out, err := runHelper(ctx, quickLimit, nil, loader, "--list", program)
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", loader, err)
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
