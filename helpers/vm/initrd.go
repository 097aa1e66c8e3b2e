package vm

import (
	"bytes"
	"fmt"
	"os"

	"cdblab/helpers/vm/wire"
)

// initrd is the first root: pid 1, and the modules that it loads before it can see the disks.
func (k *Kernel) initrd(init string) ([]byte, error) {
	program, err := os.ReadFile(init)
	if err != nil {
		return nil, err
	}
	list, err := k.modules(bootModules)
	if err != nil {
		return nil, err
	}
	a := new(archive)
	a.add("dev", 0o040755, nil)
	a.add("init", 0o100755, program)
	a.add(wire.Modules[1:], 0o040755, nil)
	for i, m := range list {
		a.add(fmt.Sprintf("%s/%02d-%s.ko", wire.Modules[1:], i, m.name), 0o100644, m.content)
	}
	return a.bytes(), nil
}

// archive is a cpio archive in the "newc" format, the one that the kernel reads.
//
// https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
type archive struct {
	buf bytes.Buffer
	ino int
}

func (a *archive) add(name string, mode int, content []byte) {
	a.ino++
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", a.ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	a.buf.WriteString(name + "\x00")
	a.pad()
	a.buf.Write(content)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

func (a *archive) bytes() []byte {
	a.add("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}
