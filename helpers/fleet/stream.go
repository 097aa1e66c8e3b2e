package fleet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"

	"cdblab/helpers/results"
)

// A line of a stream that has envelope in it has a result from there on, in one line: {"node":"NAME","facts":{...}}. A string in
// JSON cannot have these bytes, because its quotation marks are escaped.
const envelope = `{"node":`

// WriteLine writes a facts.json as one line of a stream, with the name of its node. The file itself does not name the node: the facts
// of two nodes must be comparable.
func WriteLine(w io.Writer, node string, facts []byte) error {
	var line bytes.Buffer
	name, err := json.Marshal(node)
	if err != nil {
		return err
	}
	fmt.Fprintf(&line, `%s%s,"facts":`, envelope, name)
	if err := json.Compact(&line, facts); err != nil {
		return fmt.Errorf("it is no JSON, or it is cut short: %w", err)
	}
	line.WriteString("}\n")
	_, err = w.Write(line.Bytes())
	return err
}

func (r *reader) streamFile(name, path string) {
	f, err := os.Open(path)
	if err != nil {
		r.problem(path, "%v", err)
		return
	}
	defer f.Close()
	r.stream(name, path, f)
}

// stream reads results that follow each other, between other lines: the log of a pod, or those of many. A result is
//
//   - a line of [WriteLine]. What is before it in the line, such as the prefix of a log, is left out.
//   - a facts.json as [results.WriteFacts] writes it: from a line "{" to a line "}". It has no name, so it gets that of the stream.
//   - a facts.json that begins a line and has no other one.
func (r *reader) stream(name, source string, in io.Reader) {
	d := &documents{reader: r, name: name, source: source}
	r.tried++
	if err := results.EachLine(in, d.line); err != nil {
		r.problem(source, "it could be read up to line %d: %v", d.number, err)
	}
	d.cut()
	if d.results == 0 {
		r.problem(source, "there is no result in it\n"+
			"  what to do: name a %s, or a log with the line that `cdblab facts` prints", results.FactsFile)
	}
}

// documents finds the results in a stream.
type documents struct {
	reader       *reader
	name, source string
	number       int // of the line
	results      int
	unnamed      int    // results that have no name of their own
	open         []byte // a facts.json of many lines, up to this line
	begin        int    // the line at which it began
}

// line reads a line. A result is copied, because it is read while the stream goes on.
func (d *documents) line(line []byte) {
	d.number++
	line = bytes.TrimRight(line, "\r\n")
	switch at := bytes.Index(line, []byte(envelope)); {
	case at >= 0:
		d.cut()
		d.named(bytes.Clone(line[at:]))
	case results.IsFacts(line):
		d.cut()
		d.add(bytes.Clone(line), d.number)
	case string(line) == "{":
		d.cut()
		d.open, d.begin = append([]byte(nil), "{\n"...), d.number
	case d.open != nil:
		d.open = append(append(d.open, line...), '\n')
		if d.number == d.begin+1 && !results.IsFacts(d.open) {
			d.open = nil // another JSON document
		} else if string(line) == "}" {
			d.add(d.open, d.begin)
			d.open = nil
		}
	}
}

// cut reports a facts.json that has no end. Another result, or the end of the stream, follows it.
func (d *documents) cut() {
	if d.open != nil {
		d.results++
		d.reader.problem(d.at(d.begin), "the result that begins there is cut short\n  what to do: take the log of this node again")
	}
	d.open = nil
}

func (d *documents) at(line int) string { return fmt.Sprintf("%s, line %d", d.source, line) }

// add adds a facts.json. Its name is that of the stream. A second one has the line as well.
func (d *documents) add(facts []byte, line int) {
	d.results++
	d.unnamed++
	name := d.name
	if d.unnamed > 1 {
		name = d.at(line)
	}
	d.reader.group.Go(func() error {
		d.reader.add(name, d.at(line), facts)
		return nil
	})
}

var nameInCut = regexp.MustCompile(`^\{"node":("(?:[^"\\]|\\.)*")`)

// named adds a result that has the name of its node, and those that follow it in the line: a log can lose the newline between two.
func (d *documents) named(line []byte) {
	d.results++
	at := d.at(d.number)
	d.reader.group.Go(func() error {
		for i := 0; i >= 0; i = bytes.Index(line, []byte(envelope)) {
			line = d.first(at, line[i:])
		}
		return nil
	})
}

// first adds the result with which a line begins, and returns what follows it. Of a result that is cut short this begins within it.
func (d *documents) first(at string, line []byte) (rest []byte) {
	var result struct {
		Node  string
		Facts json.RawMessage
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	err := decoder.Decode(&result)
	rest = line[max(int(decoder.InputOffset()), len(envelope)):]
	switch {
	case err != nil:
		if name := nameInCut.FindSubmatch(line); name != nil && json.Unmarshal(name[1], &result.Node) == nil {
			at = fmt.Sprintf("%s (%s)", result.Node, at)
		}
		d.reader.problem(at, "the line is cut short, or damaged: %v\n"+
			"  what to do: take the log of this node again. Logs on the node itself split lines of more than 16 KiB; "+
			"kubectl logs joins them", err)
	case result.Node == "":
		d.reader.problem(at, "the result does not name its node\n  what to do: cdblab facts -node NAME")
	default:
		d.reader.add(result.Node, at, result.Facts)
	}
	return rest
}
