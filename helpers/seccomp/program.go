//go:build linux

package seccomp

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Entry is the instruction by which a program of amd64 enters the kernel, in machine code. The kernel takes the number of the call
// from the same register at each of them, and looks it up in the table of another architecture.
type Entry [2]byte

var (
	Syscall = Entry{0x0f, 0x05} // syscall: x86_64, or x32 if the number has the bit X32
	Int80   = Entry{0xcd, 0x80} // int 0x80: i386, also in a program of 64 bits, if the kernel has CONFIG_IA32_EMULATION
)

// X32 is the bit that makes a number of x86_64 one of x32 (__X32_SYSCALL_BIT).
const X32 = 0x4000_0000

// MkdirProgram returns a static program of amd64 that makes one directory, by the call with this number and by this entry. Its exit
// code is the number of the error, or 0. It is written in machine code, because a machine with the lab need not have a compiler.
func MkdirProgram(entry Entry, number uint32, path string) []byte {
	return mkdirProgram(nil, entry, number, path)
}

// ThreadSurvived is the exit code of a program of [MkdirInThreadProgram] whose first thread has outlived the second one.
const ThreadSurvived = 42

// MkdirInThreadProgram returns a program as [MkdirProgram] does, which makes the call in a second thread. Its first thread waits until the
// second one has ended, and then exits with ThreadSurvived.
func MkdirInThreadProgram(entry Entry, number uint32, path string) []byte {
	const flags = unix.CLONE_VM | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_VFORK
	var b []byte
	word := func(opcode byte, value uint32) { b = binary.LittleEndian.AppendUint32(append(b, opcode), value) }
	word(0xbf, flags)            // mov edi
	b = append(b, 0x31, 0xf6)    // xor esi, esi: the second thread has the same stack. Neither thread uses it.
	word(0xb8, 56)               // mov eax, clone
	b = append(b, Syscall[:]...) //
	b = append(b, 0x85, 0xc0)    // test eax, eax
	b = append(b, 0x74, 5+5+2)   // jz over the next three instructions: the second thread
	word(0xbf, ThreadSurvived)   // mov edi
	word(0xb8, 231)              // mov eax, exit_group
	b = append(b, Syscall[:]...) //
	return mkdirProgram(b, entry, number, path)
}

// mkdirProgram returns the program that makes a directory after the instructions of before.
func mkdirProgram(before []byte, entry Entry, number uint32, path string) []byte {
	code := func(pathAt uint32) []byte {
		b := bytes.NewBuffer(bytes.Clone(before))
		word := func(opcode byte, value uint32) {
			b.WriteByte(opcode)
			b.Write(binary.LittleEndian.AppendUint32(nil, value))
		}
		word(0xb8, number) // mov eax
		word(0xbb, pathAt) // mov ebx: the first argument of i386
		word(0xb9, 0o755)  // mov ecx: the second one
		word(0xbf, pathAt) // mov edi: the first argument of x86_64 and x32
		word(0xbe, 0o755)  // mov esi: the second one
		b.Write(entry[:])
		b.Write(exitWithErrno)
		return b.Bytes()
	}
	size := uint32(len(code(0)))
	return static(append(append(code(address+headers+size), path...), 0))
}

// SyscallProgram returns a static program of amd64 that makes one system call of x86_64 with three arguments. Its exit code is the number
// of the error, or 0.
func SyscallProgram(number uint32, arguments [3]int32) []byte {
	code := binary.LittleEndian.AppendUint32([]byte{0xb8}, number) // mov eax
	for i, register := range []byte{0xbf, 0xbe, 0xba} {            // mov edi, esi, edx
		code = binary.LittleEndian.AppendUint32(append(code, register), uint32(arguments[i]))
	}
	code = append(code, Syscall[:]...)
	return static(append(code, exitWithErrno...))
}

// exitWithErrno are the instructions neg eax; mov edi, eax; mov eax, exit; syscall.
var exitWithErrno = []byte{0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05}

const (
	address = 0x40_0000 // where the kernel maps the file of a program
	headers = 64 + 56   // of the file, and of its one segment
)

// static returns the file of a static program of amd64 that begins with the first instruction of text.
func static(text []byte) []byte {
	var file bytes.Buffer
	file.WriteString("\x7fELF\x02\x01\x01") // 64 bits, little endian, version 1
	file.Write(make([]byte, 9))
	total := uint64(headers + len(text))
	for _, field := range []any{
		// The header (elf(5)): an executable for x86_64; entry point, program headers, no sections; sizes and counts.
		uint16(2), uint16(62), uint32(1), uint64(address + headers), uint64(64), uint64(0), uint32(0),
		uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		// The program header: the whole file is loaded, readable and executable.
		uint32(1), uint32(5), uint64(0), uint64(address), uint64(address), total, total, uint64(0x1000),
	} {
		_ = binary.Write(&file, binary.LittleEndian, field) // a bytes.Buffer returns no error
	}
	file.Write(text)
	return file.Bytes()
}
