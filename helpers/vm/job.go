//go:build linux

package vm

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cdblab/helpers/vm/wire"
)

// testJob is the job for a test binary with its arguments, and the tree that it runs in. All paths stay as they are.
func testJob(argv []string, dir string) (*wire.Job, tree, error) {
	program, err := filepath.Abs(argv[0])
	if err != nil {
		return nil, nil, err
	}
	at := wire.Program + "/" + filepath.Base(program)
	j := &wire.Job{Args: append([]string{at}, argv[1:]...), Dir: dir, Tree: moduleAbove(dir)}
	if j.Tree == "" {
		j.Tree = dir
	}
	t := tree{}
	if err := t.program(at, program); err != nil {
		return nil, nil, err
	}
	t.dir(wire.Tree)
	err = t.add(wire.Tree, j.Tree, func(rel string, d fs.DirEntry) bool {
		name := d.Name()
		// Caches and results at the top: the tests have no business with them.
		top := !strings.Contains(rel, "/") && (strings.HasPrefix(name, ".") || name == "_artifacts") && d.IsDir()
		return top || name == ".git" || strings.HasSuffix(name, ".test")
	})
	if err != nil {
		return nil, nil, &Fault{Tried: "read the tree " + j.Tree, Seen: err.Error(), Do: "make it readable for you"}
	}
	j.Back, j.Mkdir = results(argv[1:], dir)
	return j, t, nil
}

// results finds where the flags of a test binary tell it to leave files, and the directories that have to be there.
//
// Only these come back. A guest that is made to misbehave can write what the caller asked to be written, no more.
func results(args []string, dir string) (back, mkdir []string) {
	value := map[string]string{}
	for _, a := range args {
		if name, v, ok := strings.Cut(strings.TrimLeft(a, "-"), "="); ok && strings.HasPrefix(a, "-") {
			value[strings.TrimPrefix(name, "test.")] = v
		} else if strings.HasPrefix(a, "-") {
			value[strings.TrimPrefix(name, "test.")] = "true"
		}
	}
	out := dir
	if v := value["outputdir"]; v != "" {
		out = abs(v, dir)
		mkdir = append(mkdir, out)
	}
	for _, name := range []string{"coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace"} {
		if v := value[name]; v != "" {
			v = abs(v, out) // as package testing does
			back, mkdir = append(back, v), append(mkdir, filepath.Dir(v))
		}
	}
	if v := value["gocoverdir"]; v != "" {
		v = abs(v, dir)
		back, mkdir = append(back, v), append(mkdir, v)
	}
	if v := value["testlogfile"]; v != "" {
		// It tells go test which files the result depends on, for its cache. The guest's are not the host's, so it
		// does not come back; but the test binary wants to write it.
		mkdir = append(mkdir, filepath.Dir(v))
	}
	if value["artifacts"] == "true" {
		back = append(back, filepath.Join(out, "_artifacts"))
	}
	return back, mkdir
}

func abs(p, dir string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(dir, p)
}

// timeout is the test binary's own, or 0.
func timeout(args []string) time.Duration {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "-test.timeout="); ok {
			d, _ := time.ParseDuration(v)
			return d
		}
	}
	return 0
}

// finishJob fills in what every job has.
func finishJob(j *wire.Job, c *Config, tools []string) {
	j.Cgroup = c.Cgroup
	j.Now = time.Now().UnixNano()
	j.Seed = make([]byte, 32)
	_, _ = rand.Read(j.Seed)
	j.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "TMPDIR=/tmp",
		"PWD=" + j.Dir, "CDB_DISPOSABLE=yes", "CDB_CGROUP=" + c.Cgroup,
	}, tools...)
	// Then what comes from outside, but for the names that are taken: the tools lie elsewhere in the guest, and of
	// two values of one name Go takes the first and a shell the last.
	taken := map[string]bool{}
	for _, e := range j.Env {
		name, _, _ := strings.Cut(e, "=")
		taken[name] = true
	}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "TERM", "GODEBUG", "GOTRACEBACK", "GORACE", "GOMAXPROCS":
		default:
			if taken[name] || !strings.HasPrefix(name, "CDB_") {
				continue
			}
		}
		j.Env = append(j.Env, e)
	}
}
