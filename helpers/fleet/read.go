package fleet

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/sync/errgroup"

	"cdblab/helpers/results"
)

// A Node is a node of a fleet, with what the lab has observed on it.
type Node struct {
	Name  string
	Run   *results.Run
	Again bool // the argument has named a result of the same node before this one: the node was run twice
}

// Count returns how many nodes there are. A node that was run twice counts once.
func Count(nodes []Node) int {
	n := 0
	for _, node := range nodes {
		if !node.Again {
			n++
		}
	}
	return n
}

// A Problem says why nodes are not compared, or not in full.
type Problem struct {
	Nodes []string // or files, where the node is not known
	Text  string
}

// Read reads the results that the arguments name:
//
//   - a directory: it is searched for directories of results, for facts.json under any name that ends with .json, and for streams
//     whose name ends with .log; beside a facts.json a .log is that of its run, and no stream
//   - a file: a facts.json, or a stream of results
//   - "-": the stream stdin
//
// [reader.stream] says what a stream is. A node is named by the stream, or by the path of its results. The nodes are sorted by name.
// A result that cannot be read is a problem, and the others are read all the same.
func Read(cache *results.Cache, stdin io.Reader, args ...string) ([]Node, []Problem) {
	group := &errgroup.Group{}
	group.SetLimit(2 * runtime.GOMAXPROCS(0)) // each holds a file
	var readers []*reader
	for _, arg := range args {
		r := &reader{cache: cache, group: group, ofRun: map[string]bool{}}
		r.argument(arg, stdin)
		readers = append(readers, r)
	}
	_ = group.Wait() // each error is a problem
	var found []result
	var problems []Problem
	for i, r := range readers {
		for _, f := range r.found {
			f.argument = i
			found = append(found, f)
		}
		problems = append(problems, r.problems...)
	}
	slices.SortFunc(found, func(a, b result) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.source, b.source))
	})
	slices.SortFunc(problems, func(a, b Problem) int { return slices.Compare(a.Nodes, b.Nodes) })
	return nodes(found), problems
}

// reader reads what one argument names.
type reader struct {
	cache *results.Cache
	group *errgroup.Group // of all arguments

	tried int             // how many results were looked at
	ofRun map[string]bool // the directories that have a facts.json

	mu       sync.Mutex
	found    []result
	problems []Problem
}

// result is the result of a node.
type result struct {
	name     string // of the node
	source   string // where it was read
	run      *results.Run
	argument int // two arguments may have nodes of the same name
}

// nodes returns the nodes. If two have the same name, their sources tell them apart.
func nodes(found []result) []Node {
	type key struct {
		argument int
		name     string
	}
	times, again := map[string]int{}, map[key]bool{}
	for _, f := range found {
		times[f.name]++
	}
	var out []Node
	for _, f := range found {
		name := f.name
		if times[name] > 1 {
			name += " (" + f.source + ")"
		}
		k := key{f.argument, f.name}
		out = append(out, Node{plain(name), f.run, again[k]})
		again[k] = true
	}
	return out
}

// plain returns a name without what could change a terminal.
func plain(name string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, name)
}

func (r *reader) argument(arg string, stdin io.Reader) {
	if arg == "-" {
		r.stream("stdin", "stdin", stdin)
		return
	}
	info, err := os.Stat(arg)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.problem(arg, "there is no such file or directory\n"+
			"  what to do: name directories of results, facts.json files, or a directory that has many")
	case err != nil:
		r.problem(arg, "%v", err)
	case info.IsDir():
		r.search(arg)
	default:
		r.streamFile(nodeName(filepath.Base(filepath.Dir(absolute(arg))), filepath.Base(arg)), arg)
	}
}

// search finds the results below a directory.
func (r *reader) search(root string) {
	before := r.tried
	top := absolute(root)
	if real, err := filepath.EvalSymlinks(top); err == nil {
		root = real // WalkDir does not follow a link
	}
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			r.problem(path, "%v", err)
			return nil
		}
		below, _ := filepath.Rel(root, path)
		if entry.IsDir() {
			return r.directory(nodeName(filepath.Base(top), below), path)
		}
		ofRun := r.ofRun[filepath.Dir(path)]
		switch ext := filepath.Ext(path); {
		case entry.Type() == fs.ModeSymlink && entry.Name() != results.Latest && !leadsToFile(path):
			r.problem(path, "it is a link to a directory or to nothing, and is not followed\n"+
				"  what to do: put the directory in its place, or name the directory of each node as an argument")
		case entry.Name() == results.FactsFile || entry.Name() == results.StreamFile:
			// directory has read it, or has said what is wrong.
		case ext == ".json":
			r.json(nodeName(filepath.Base(top), below), path, ofRun)
		case ext == ".log" && !ofRun && r.isRegular(path):
			r.streamFile(nodeName(filepath.Base(top), below), path)
		}
		return nil
	})
	if r.tried == before {
		r.problem(root, "the directory has no results: no %s in it or below it\n  what to do: name the directory that the results of the nodes "+
			"were copied to", results.FactsFile)
	}
}

func leadsToFile(link string) bool {
	info, err := os.Stat(link)
	return err == nil && !info.IsDir()
}

// directory reads a directory of results. It is searched like other directories, because a facts.json may have been copied to a
// directory that has the results of other nodes.
func (r *reader) directory(name, dir string) error {
	facts := filepath.Join(dir, results.FactsFile)
	if _, err := os.Lstat(facts); err == nil {
		r.file(name, facts)
		r.ofRun[dir] = true
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, results.StreamFile)); err == nil {
		r.tried++
		r.problem(dir, "it has a %s and no %s: the run did not come to its end\n  what to do: run the lab there again, or make the file of what "+
			"there is: lab report %s", results.StreamFile, results.FactsFile, dir)
		return fs.SkipDir
	}
	return nil
}

// isRegular reports whether a file that was found is a regular one, or a link to one. Others are a problem: a FIFO would never end.
func (r *reader) isRegular(path string) bool {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		r.problem(path, "%v", err)
	case !info.Mode().IsRegular():
		r.problem(path, "it is no regular file\n  what to do: remove it, or copy the results from the node again")
	}
	return err == nil && info.Mode().IsRegular()
}

// json reads a file that was found if it is a facts.json. A file that is no JSON is a damaged one: a full disk has left it empty, or it
// has the message of a server. Beside the facts.json of a run it is something else.
func (r *reader) json(name, path string, ofRun bool) {
	if !r.isRegular(path) {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		r.problem(path, "%v", err)
		return
	}
	defer f.Close()
	begin := make([]byte, 64)
	n, _ := io.ReadFull(f, begin)
	isJSON := bytes.ContainsAny(begin[:min(n, 1)], "{[\" \t\r\n")
	switch {
	case results.IsFacts(begin[:n]) || !isJSON && !ofRun:
		r.file(name, path)
	case results.IsStream(begin[:n]) && !ofRun:
		r.tried++
		r.problem(path, "it is the stream of a run, and no %s\n  what to do: copy the %s of the run, or make it: lab report %s",
			results.FactsFile, results.FactsFile, path)
	}
}

// file reads a facts.json.
func (r *reader) file(name, path string) {
	r.tried++
	if !r.isRegular(path) {
		return
	}
	r.group.Go(func() error {
		data, err := os.ReadFile(path)
		if err != nil {
			r.problem(path, "%v", err)
			return nil
		}
		r.add(name, path, data)
		return nil
	})
}

// add adds a result.
func (r *reader) add(name, source string, data []byte) {
	if len(bytes.TrimSpace(data)) == 0 {
		r.problem(source, "it is empty\n"+
			"  what to do: copy the file from the node again; if it is empty there, its disk was full: run the lab again")
		return
	}
	run, err := r.cache.Read(data)
	if err != nil {
		r.problem(source, "%v%s", err, whatToDo(err))
		return
	}
	if len(run.Questions) == 0 {
		r.problem(source, "it has no questions: the run ended before the first one\n  what to do: see what the run has printed on the node")
		return
	}
	if run.FailedAtEnd {
		r.problem(source, "the run failed for a reason that is not in its questions\n"+
			"  what to do: see what the run has printed on the node at its end")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found, result{name: name, source: source, run: run})
}

// whatToDo says what to do about a damaged file if the error does not.
func whatToDo(err error) string {
	if strings.Contains(err.Error(), "what to do") {
		return ""
	}
	return "\n  what to do: copy it from the node again; if it is damaged there, make it again from the stream: lab report DIRECTORY"
}

func (r *reader) problem(source, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, Problem{[]string{plain(source)}, fmt.Sprintf(format, args...)})
}

// nodeName returns the name of a node by the path of its results below the directory that the user named: rack1/node-7 for
// rack1/node-7/2026-11-26T21-00-47/facts.json. If nothing remains, it is the name of the directory, or the time of the run.
func nodeName(top, below string) string {
	if filepath.Base(below) == results.FactsFile {
		below = filepath.Dir(below)
	} else {
		below = strings.TrimSuffix(strings.TrimSuffix(below, ".json"), ".log")
	}
	if results.IsDirOfRun(filepath.Base(below)) && filepath.Dir(below) != "." {
		below = filepath.Dir(below)
	}
	if below == "." {
		return top
	}
	return filepath.ToSlash(below)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
