//go:build linux

package lab

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/rootfs"
	"cdblab/helpers/tools"
)

// UnderTest returns a program under test by the name that the chapter types: runc, containerd, ctr,
// containerd-shim-runc-v2 or busybox.
func (s *Session) UnderTest(name string) tools.Program { return s.tools[name] }

// Pinned reports whether all of runc, containerd, ctr and the shim are those that go.mod pins.
func (s *Session) Pinned() bool {
	for name, program := range s.tools {
		if name != "busybox" && !program.Pinned {
			return false
		}
	}
	return true
}

// RootFS returns the root filesystem that all bundles and the image of this run have.
func (s *Session) RootFS() *rootfs.FS { return s.rootfs }

// chapterImage is the reference of the image that the questions about containerd pull, as the chapter types it.
const chapterImage = "docker.io/library/busybox:latest"

// Image returns the reference of the image that questions pull, and whether it is the lab's own. The lab's registry serves the
// lab's own image on loopback. The image that CDB_IMAGE names is pulled from its real registry.
func (s *Session) Image() (ref string, ours bool) {
	if r := os.Getenv(imageEnv); r != "" {
		return r, false
	}
	return chapterImage, true
}

// stack is what is tested, as the attr event of each question says it.
type stack struct {
	Kernel   string          `json:"kernel"`  // release: 6.1.0-48-cloud-amd64
	Machine  string          `json:"machine"` // x86_64
	Cgroup   string          `json:"cgroup"`  // v1, v2 or hybrid
	Chapter  string          `json:"chapter"` // digest of the source of the questions
	Programs []program       `json:"programs"`
	Node     []host.Property `json:"node"`
}

type program struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Path    string `json:"path"`
	Digest  string `json:"digest"`
	Pinned  bool   `json:"pinned"`
	Package string `json:"package,omitempty"` // of the distribution: runc 1.1.5+ds1-1
}

// describe finds out the versions of the programs, and what they run on.
func (s *Session) describe() {
	tools.Describe(s.tools, cleanEnviron())
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	hierarchies, _ := cgroup.Hierarchies()
	s.stack = stack{
		Kernel: unix.ByteSliceToString(uts.Release[:]), Machine: unix.ByteSliceToString(uts.Machine[:]),
		Cgroup: string(cgroup.ModeOf(hierarchies)), Chapter: digestOf(s.chapter), Node: host.Properties(),
	}
	for _, tool := range tools.All {
		if p, ok := s.tools[tool.Name]; ok {
			s.stack.Programs = append(s.stack.Programs, program{
				p.Name, p.Version, p.Path, p.Digest, p.Pinned && tool.Build != nil, os.Getenv(tool.PackageEnv()),
			})
		}
	}
}

// digestOf returns a digest of the source of the questions. Runs of different questions cannot be compared fact by fact, and
// this tells them apart.
func digestOf(chapter fs.FS) string {
	d := digest.SHA256.Digester()
	_ = fs.WalkDir(chapter, ".", func(name string, entry fs.DirEntry, err error) error { // in the order of the names
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(chapter, name)
		fmt.Fprintf(d.Hash(), "%s %d\n%s", name, len(content), content)
		return err
	})
	return d.Digest().String()
}

// oldest are the oldest releases that the questions are kept green for, except where a release has a bug that was found later. Then the
// question that shows the bug fails, and should: for example TestTask_HowIsTheShimReached with containerd 1.7.27 and 1.7.28
// (CVE-2024-25621), and TestBundle_WhichMountsDoesTheContainerSee with runc 1.1 (CVE-2026-41579). Such bugs are in
// testdata/released-bugs.toml.
var oldest = map[string]string{
	"runc": "1.1.12", "containerd": "1.7.27", "ctr": "1.7.27", "containerd-shim-runc-v2": "1.7.27",
}

// tooOld returns a line for each program that is older than what the lab supports. Its questions may fail for this reason alone.
func tooOld(programs map[string]tools.Program) (lines []string) {
	for _, tool := range tools.All {
		p, ok := programs[tool.Name]
		if version := oldest[tool.Name]; ok && version != "" && p.Precedes(version) {
			lines = append(lines, fmt.Sprintf("%s is older than %s, the oldest release that the lab supports: a question may fail for this "+
				"reason alone, unless the distribution has patched the program", p.Name, version))
		}
	}
	return lines
}

// printUnderTest prints the programs, the kernel and the image under test, so that a result can be understood a year later.
func (s *Session) printUnderTest() {
	s.describe()
	vmEvidence, ok := host.Virtual()
	if !ok {
		vmEvidence = "not recognised as a VM; " + disposableEnv + "=yes"
	}
	fmt.Printf("cdblab: under test\n")
	fmt.Printf("  %-24s %s %s (%s)\n", "kernel", s.stack.Kernel, s.stack.Machine, vmEvidence)
	fmt.Printf("  %-24s %s\n", "cgroup", s.stack.Cgroup)
	for _, p := range s.stack.Node {
		if !strings.Contains(p.Name, "/") { // the keys of a configuration are many, and the lab's own containerd does not read it
			fmt.Printf("  %-24s %s\n", strings.TrimPrefix(p.Name, "sysctl "), p.Value)
		}
	}
	for _, p := range s.stack.Programs {
		fmt.Printf("  %-24s %s\n  %-24s %s %s\n", p.Name, p.Version, "", p.Path, p.Digest)
	}
	for _, line := range tooOld(s.tools) {
		fmt.Printf("  %-24s %s\n", "!", line)
	}
	digest, err := s.rootfs.Digest()
	if err != nil {
		digest = err.Error()
	}
	fmt.Printf("  %-24s %s\n", "rootfs", digest)
	ref, ours := s.Image()
	if !ours {
		ref += " (" + imageEnv + ")"
	}
	fmt.Printf("  %-24s %s\n  %-24s %s\n", "image", ref, "run", s.run.Dir())
}
