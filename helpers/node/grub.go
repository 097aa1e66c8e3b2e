package node

import (
	"encoding/binary"
	"fmt"
)

// A BIOS loads the first sector of the disk, which is GRUB's boot.img. It loads the first sector of core.img, which loads the
// rest. Each has to know in which sector the next one begins. grub-bios-setup writes that, but only to a disk, as root.
//
// https://git.savannah.gnu.org/cgit/grub.git/tree/include/grub/i386/pc/boot.h
const (
	sectorSize     = 512
	bootCodeSize   = 440    // of the first sector; the partition table follows
	kernelSectorAt = 0x5c   // in boot.img: the first sector of core.img
	blockListAt    = 500    // in the first sector of core.img: sector (8 bytes), number of sectors (2), segment (2)
	segmentAt      = 510    // of this list
	loadSegment    = 0x0820 // where core.img is loaded to
)

// bootSectors returns the code of the disk's first sector, and core.img as it must be in the sector at.
func bootSectors(boot, core []byte, at uint64) (code, placed []byte, err error) {
	if len(boot) != sectorSize || boot[510] != 0x55 || boot[511] != 0xaa {
		return nil, nil, fmt.Errorf("boot.img has %d bytes, expected a boot sector of %d bytes that ends with 55 aa", len(boot), sectorSize)
	}
	if len(core) < 2*sectorSize || binary.LittleEndian.Uint16(core[segmentAt:]) != loadSegment {
		return nil, nil, fmt.Errorf("core.img has %d bytes, expected GRUB's diskboot.img at its beginning, with the segment %#x at byte %d",
			len(core), loadSegment, segmentAt)
	}
	code, placed = append([]byte(nil), boot[:bootCodeSize]...), append([]byte(nil), core...)
	binary.LittleEndian.PutUint64(code[kernelSectorAt:], at)
	binary.LittleEndian.PutUint64(placed[blockListAt:], at+1)
	return code, placed, nil
}
