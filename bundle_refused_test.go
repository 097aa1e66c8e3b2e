//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The broken bundles go into the VM with the test binary. Their README says how one is written.
//
//go:embed testdata/bad-bundles/*.json
var badBundles embed.FS

// badBundle is one file of testdata/bad-bundles.
type badBundle struct {
	Name   string          `json:"-"`
	Why    string          `json:"why"`
	Step   string          `json:"step"`
	Rootfs string          `json:"rootfs"`
	Raw    *string         `json:"raw"`
	Patch  json.RawMessage `json:"patch"`
	Says   string          `json:"says"`
	Mend   json.RawMessage `json:"mend"`
}

// What is wrong with a bundle is noticed by three: by runc when it reads config.json, by the kernel when runc builds the
// container, or by execve(2), when it is too late.
//
// What the first two refuse fails create, and nothing is left: no state, no cgroup, no process, and the id is free. What
// only execve(2) can know, such as a script without its interpreter, fails neither create nor start: the program just
// never runs, and the container is stopped.
//
// Hint: which of the messages end in the words of an errno?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#valid-values
// Kernel: https://man7.org/linux/man-pages/man2/execve.2.html, https://man7.org/linux/man-pages/man3/errno.3.html
func TestBundle_WhatDoesRuncRefuse(t *testing.T) {
	q := lab.Question(t, lab.MutatesVM, "What does runc refuse?")
	b := bundle.Busybox(q, "sleep", "300")
	c := runc.New(q, b)
	good, err := os.ReadFile(b.Config())
	assert.NilError(q, err)
	before := picture(q)

	by := map[string]int{}
	for _, bad := range readBadBundles(q) {
		q.Run(bad.Name, func(q *lab.Q) {
			q.Step("%s: %s", bad.Name, bad.Why)
			c := c.In(q)
			q.Cleanup(func() { // the next one is asked under the same id
				if exists(c.StateDir()) {
					c.Must("delete", "--force")
				}
			})
			if bad.Rootfs != "" {
				q.Must("sh", "-c", "cd "+b.Name+"/rootfs && "+bad.Rootfs)
			}
			if bad.Raw != nil {
				c.Bundle.WriteRaw(*bad.Raw, "text that is no configuration")
			} else {
				c.Bundle.WriteRaw(patched(q, string(good), bad.Patch), "patched with "+string(bad.Patch))
			}
			said := ""
			if bad.Step == "exec" {
				said = refusedByExec(q, c, bad)
			} else {
				said = refusedByCreate(q, c, bad)
			}
			assertNoneLeft(q, c)
			by[noticed(bad.Step, said)]++

			if bad.Mend != nil && said != "" {
				c.Bundle.WriteRaw(patched(q, string(good), bad.Patch, bad.Mend), "mended with "+string(bad.Mend))
				if r := c.Try("create"); r.Code == 0 {
					c.Must("delete", "--force")
				} else if lab.UnderTest("runc").Pinned {
					q.Errorf("the mended bundle is refused too: something else is wrong with it.\n%s", r)
				} else {
					q.Fact("mended, it is refused too", steady(r.Stderr))
				}
			}
		})
	}

	q.Control("the good bundle is created under the id that all the broken ones had")
	c.Bundle.WriteRaw(string(good), "whole again")
	c.Create()
	assert.Equal(q, c.State().Status, specs.StateCreated)
	q.Fact("good bundle", specs.StateCreated)
	c.Must("delete", "--force")
	proc.WaitFor(q, nothing(q, before, c))
	q.Fact("left on the host by all of them", left(q, before, c))
	for who, n := range by {
		assert.Check(q, n > 0)
		if lab.UnderTest("runc").Pinned {
			q.Fact("noticed by "+who, n)
		}
	}
	q.Proves("Create: If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new container MUST NOT be created.")

	q.Answer("What it can see is wrong in config.json, and what the kernel refuses: both at create. What only execve knows, nobody refuses.")
}

// refusedByCreate asserts that create fails and says what the bundle's file expects; it returns what was said, or nothing
// where another runtime than the pinned one accepts the bundle.
func refusedByCreate(q *lab.Q, c *runc.Container, bad badBundle) string {
	q.Helper()
	pinned := lab.UnderTest("runc").Pinned
	r := c.Try("create")
	if r.Code == 0 {
		assert.Check(q, !pinned, "create succeeds though %s\n%s", bad.Why, r)
		q.Fact("create", "succeeds: this runtime does not look at it, or does not know it")
		c.Must("delete", "--force")
		return ""
	}
	if says := cmp.Regexp(bad.Says, r.Stderr); pinned {
		assert.Check(q, says, "create does not say what is wrong")
	} else if !says().Success() {
		q.Fact("other words than the pinned runc's", "yes")
	}
	q.Fact("create says", steady(r.Stderr))
	return r.Stderr
}

// refusedByExec asserts that create and start succeed, that the program never runs, and that its stderr says why.
func refusedByExec(q *lab.Q, c *runc.Container, bad badBundle) string {
	q.Helper()
	// The words come after start has returned, from the stand-in, on the stderr that create gave it.
	stderr := filepath.Join(c.Bundle.Dir, "stderr-"+bad.Name)
	q.Must("sh", "-c", fmt.Sprintf("runc --root %s create --bundle %s %s 2> %s", c.Root, c.Bundle.Name, c.ID, stderr))
	standIn := proc.Snapshot(q, c.State().Pid)
	c.Start()
	proc.WaitFor(q, proc.Dead(standIn.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped), "after start")
	said := contents(q, stderr)
	assert.Check(q, cmp.Regexp(bad.Says, said), "nobody says what is wrong")
	q.Fact("create and start", "succeed")
	q.Fact("then, on the container's stderr", steady(said))
	c.Delete()
	return said
}

// assertNoneLeft asserts what a look at the whole host would, for a hundredth of its price.
func assertNoneLeft(q *lab.Q, c *runc.Container) {
	q.Helper()
	states, err := os.ReadDir(c.Root)
	assert.NilError(q, err)
	assert.Check(q, cmp.Len(states, 0), "state is left below %s", c.Root)
	group := cgroup.Of(q, filepath.Join(q.Cgroup, c.ID))
	for _, dir := range group.Dirs() {
		assert.Check(q, !exists(dir), "the cgroup is left: %s", dir)
	}
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		ps, err := host.Processes()
		if err != nil {
			return poll.Error(err)
		}
		for _, p := range ps {
			if p.Of(q.Part) {
				return poll.Continue("a process is left: %s", p)
			}
		}
		return poll.Success()
	})
}

// noticed says who noticed what is wrong, by the words: those of an errno are the kernel's.
func noticed(step, said string) string {
	errno := regexp.MustCompile(`(?i)(no such (file|device)|not a directory|is a directory|permission denied|too many levels|invalid argument|out of range)`)
	switch {
	case said == "":
		return "nobody"
	case step == "exec":
		return "execve, too late"
	case errno.MatchString(said):
		return "the kernel, when the container is built"
	}
	return "runc"
}

// volatileNumber is a pid, a descriptor, an address or a size that no two runs agree on.
var volatileNumber = regexp.MustCompile(`(\[|/proc/|fd/|usage: )[0-9]+|0x[0-9a-f]+`)

// steady is a message that two runs agree on: the last line, without volatile numbers, and without what the child process
// says when its parent has given up.
func steady(stderr string) string {
	msg, _, _ := strings.Cut(said(lab.Result{Stderr: stderr}), "; nsexec-1")
	return volatileNumber.ReplaceAllString(msg, "${1}N")
}

// readBadBundles reads the broken bundles, by name.
func readBadBundles(q *lab.Q) []badBundle {
	q.Helper()
	const dir = "testdata/bad-bundles"
	files, err := badBundles.ReadDir(dir)
	assert.NilError(q, err)
	var out []badBundle
	for _, f := range files {
		data, err := badBundles.ReadFile(dir + "/" + f.Name())
		assert.NilError(q, err)
		bad := badBundle{Name: strings.TrimSuffix(f.Name(), ".json")}
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		assert.NilError(q, d.Decode(&bad), "%s/%s", dir, f.Name())
		ok := bad.Why != "" && bad.Says != "" && (bad.Step == "create" || bad.Step == "exec") && (bad.Raw == nil) == (bad.Patch != nil)
		assert.Assert(q, ok, "%s/%s: see %s/README.md", dir, f.Name(), dir)
		out = append(out, bad)
	}
	return out
}

// patched is a JSON document with merge patches applied (RFC 7386).
func patched(q *lab.Q, document string, patches ...json.RawMessage) string {
	q.Helper()
	decode := func(text string) (v any) {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber() // as written: a float64 has no room for a limit of 64 bits
		assert.NilError(q, d.Decode(&v), "%s", text)
		return v
	}
	v := decode(document)
	for _, p := range patches {
		v = merged(v, decode(string(p)))
	}
	out, err := json.MarshalIndent(v, "", "\t")
	assert.NilError(q, err)
	return string(out)
}

func merged(target, patch any) any {
	fields, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range fields {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = merged(object[name], value)
		}
	}
	return object
}
