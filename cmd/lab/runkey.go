//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/mutants"
	"cdblab/helpers/results"
	"cdblab/helpers/tools"
	"cdblab/helpers/vm"
)

// compareDir has the results of the runs that were compared.
const compareDir = ".lab/compare"

// keyFile is the file beside a stream that says which run it is.
const keyFile = "key.json"

// A runKey is all that the facts of a run depend on. Two runs with the same key have the same facts, so one is enough.
type runKey struct {
	Source    string            // digest of the lab's own source
	Programs  map[string]string // name → digest, of the programs under test and of those that questions use, with earlier releases
	Where     string            // vm or here
	Kernel    string
	Cgroup    string   // here: how this machine mounts the hierarchies
	Settings  []string // of the VM, and of the lab: CDB_CGROUP=v1
	Questions string   // regular expression; "" for all
	Disk      []string `json:",omitempty"` // digests of the files of the disk image, and of the user's data for its cloud-init

	Node []host.Property `json:",omitempty"` // here: what else the facts depend on, such as the configuration of this machine's containerd
}

// The variables of the environment that change the VM of a run, and those that change what the questions observe or which verdict they
// have.
var (
	settingsOfVM = []string{
		"CDB_CGROUP", "CDB_MEM", "CDB_CPUS", "CDB_ACCEL", "CDB_VM_APPEND", "CDB_MODULES", "CDB_FIRMWARE", "CDB_DISK_PINNED",
	}
	settingsOfQuestions = []string{"CDB_IMAGE", "CDB_KEEP", "CDB_PINNED", "CDB_REQUIRE", "CDB_TIMEOUT"}
)

// newRunKey returns the key of a run in an environment.
func newRunKey(ctx context.Context, where string, environ []string) (runKey, error) {
	get := func(name string) string {
		for _, e := range environ {
			if value, ok := strings.CutPrefix(e, name+"="); ok {
				return value
			}
		}
		return ""
	}
	k := runKey{Where: where, Programs: map[string]string{}}
	for _, name := range slices.Concat(settingsOfVM, settingsOfQuestions) {
		if value := get(name); value != "" {
			k.Settings = append(k.Settings, name+"="+value)
		}
	}
	var err error
	if k.Source, err = sourceDigest(where, nil); err != nil {
		return k, err
	}
	if get("CDB_DISK") != "" {
		return k, k.ofDisk(ctx, where, get)
	}
	for _, t := range tools.All {
		path := get(t.Env)
		if t.Env == "" || path == "" {
			p, err := t.Find(".")
			if err != nil && t.Need == tools.Required {
				return k, err
			}
			path = p.Path
		}
		if path == "" {
			continue // the questions that need it are skipped
		}
		if k.Programs[t.Name], err = tools.Digest(path); err != nil {
			return k, err
		}
	}
	if err := k.addEarlier(); err != nil {
		return k, err
	}
	if where == "here" {
		return k, k.here(get)
	}
	cache, err := vm.OpenCache()
	if err != nil {
		return k, err
	}
	k.Kernel, err = cache.KernelName(ctx, get("CDB_KERNEL"), logf)
	return k, err
}

// addEarlier adds the earlier releases that are built. The questions skip what needs another one.
func (k *runKey) addEarlier() error {
	for _, r := range tools.Earlier {
		for _, t := range r.Tools() {
			p, err := t.FindEarlier(".", r.Version)
			if err != nil {
				continue
			}
			if k.Programs[t.Name+" "+r.Version], err = tools.Digest(p.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofDisk adds what a run in a VM that boots a disk image depends on: the image has its own kernel and programs. An image may consist of
// several files: QEMU reads what a snapshot does not change from the file below it.
func (k *runKey) ofDisk(ctx context.Context, where string, get func(name string) string) error {
	if where == "here" {
		return errors.New("DISK is an image for a VM, and the run is to be made on this machine\n  what to do: leave out WHERE=here")
	}
	if err := checkNoProgram(get); err != nil {
		return err
	}
	files, err := vm.DiskFiles(ctx, get("CDB_DISK"))
	if err != nil {
		return err
	}
	if path := get("CDB_USER_DATA"); path != "" {
		files = append(files, path)
	}
	for _, path := range files {
		digest, err := tools.Digest(path)
		if err != nil {
			return err
		}
		k.Disk = append(k.Disk, digest)
	}
	return nil
}

// here adds what a run on this machine depends on.
func (k *runKey) here(get func(name string) string) error {
	for _, name := range append(slices.Clone(settingsOfVM), "CDB_KERNEL") {
		if value := get(name); value != "" {
			return fmt.Errorf("%s=%s is a setting of the VM, and the run is to be made on this machine\n"+
				"  what to do: leave it out, or use WHERE=vm", name, value)
		}
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	k.Kernel = unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Version[:])
	hierarchies, err := cgroup.Hierarchies()
	k.Cgroup = string(cgroup.ModeOf(hierarchies))
	k.Node = host.Properties()
	return err
}

// digest returns a digest of the key, as a name.
func (k runKey) digest() string {
	data, err := json.Marshal(k) // the keys of maps are sorted
	if err != nil {
		panic(err) // strings can always be encoded
	}
	digest := sha256.Sum256(data)
	return fmt.Sprintf("%x", digest[:6])
}

func (k runKey) dir() string { return filepath.Join(compareDir, k.digest()) }

// store keeps a stream for the next comparison. The file is linked, so it takes no room while the results of the run are there. Where
// it cannot be linked (the results are on another disk, another run of the same key has just been stored) it is copied.
func (k runKey) store(stream string) error {
	dir := k.dir()
	data, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, results.StreamFile)
	err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, keyFile), append(data, '\n'), 0o644))
	_ = os.Remove(file)
	if err == nil && os.Link(stream, file) != nil {
		err = copyStream(stream, file)
	}
	if err != nil {
		return fmt.Errorf("keep the results for the next comparison: %w", err)
	}
	return nil
}

// pruneCompared removes the runs that no comparison has used for a time, and returns how many it has removed.
func pruneCompared(unused time.Duration) (n int, err error) {
	keys, err := filepath.Glob(filepath.Join(compareDir, "*", keyFile))
	for _, file := range keys {
		dir := filepath.Dir(file)
		if info, statErr := os.Stat(dir); statErr != nil || time.Since(info.ModTime()) < unused {
			continue
		}
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			err = errors.Join(err, removeErr)
			continue
		}
		n++
	}
	return n, err
}

// check reports whether a run has tested the programs of the key.
func (k runKey) check(s *results.Stack) error {
	if s == nil {
		return errors.New("they do not say what was tested")
	}
	for _, p := range s.Programs {
		if want := k.Programs[p.Name]; want != p.Digest && k.Disk == nil {
			return fmt.Errorf("they are of %s %s, expected %s", p.Name, p.Digest, want)
		}
	}
	return nil
}

// notInBinary are the directories of which the test binary has nothing, and that do not run it either: they read what a run has
// printed, or choose the program under test.
var notInBinary = []string{
	"cmd/lab", "deploy", "selftest", "helpers/compare", "helpers/confine", "helpers/display", "helpers/doctor", "helpers/fleet",
	"helpers/mutants", "helpers/node", "helpers/notebook", "helpers/released", "helpers/results", "helpers/sabotage", "helpers/trial",
}

// onlyInVM are the directories on which only a run in the VM depends.
var onlyInVM = []string{"cmd/lab-init", "helpers/vm"}

// noQuestionReads are files of testdata that are tables of the lab itself.
var noQuestionReads = []string{mutants.VerdictsFile, releasedTable, "testdata/sabotage.toml"}

// sourceDigest returns a digest of the files that a run is made of: the source of the test binary with the files that it embeds, and
// for a run in the VM that of the VM. The unit tests of the helpers are no part of it. skip selects more files that are none, by
// their path and content; nil for none.
func sourceDigest(where string, skip func(path string, data []byte) bool) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains(notInBinary, path) ||
				where == "here" && slices.Contains(onlyInVM, path)) {
				return fs.SkipDir
			}
			return nil
		}
		if !isOfRun(path) || slices.Contains(noQuestionReads, path) {
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil && (skip == nil || !skip(path, data)) {
			fmt.Fprintf(h, "%s %x\n", filepath.ToSlash(path), sha256.Sum256(data))
		}
		return err
	})
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), err
}

// isOfRun reports whether a run depends on a file, by the name of the file. Helpers embed schemas and scripts.
func isOfRun(path string) bool {
	top, _, below := strings.Cut(filepath.ToSlash(path), "/")
	ext := filepath.Ext(path)
	switch {
	case !below:
		return ext == ".go" || path == "go.mod" || path == "go.sum"
	case top == "testdata":
		return true
	case strings.HasSuffix(path, "_test.go"), strings.Contains(path, "testdata"):
		return false // of a unit test
	}
	return ext == ".go" || top == "helpers" && slices.Contains([]string{".json", ".service", ".sh"}, ext)
}
