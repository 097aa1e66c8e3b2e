//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
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

// What is wrong with a bundle is noticed by three: by runc when it reads config.json, by the kernel when runc builds
// the container, or by execve(2), when it is too late.
//
// What the first two refuse fails create, and nothing is left: no state, no cgroup, no process, and the id is free.
// What only execve(2) can know, such as a script without its interpreter, fails neither create nor start: the program
// just never runs, and the container is stopped. Some of what the specification forbids nobody notices: that is the
// next question.
//
// Hint: which of the messages end in the words of an errno?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#valid-values
// Kernel: https://man7.org/linux/man-pages/man2/execve.2.html, https://man7.org/linux/man-pages/man3/errno.3.html
func TestBundle_WhatDoesRuncRefuse(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc refuse?")
	b := bundle.Busybox(q, "sleep", "300")
	c := runc.New(q, b)
	good, err := os.ReadFile(b.Config())
	assert.NilError(q, err)
	before := q.TakeInventory()

	by := map[string]int{}
	for _, bad := range readBadBundles(q) {
		q.Run(bad.Name, func(q *lab.Q) {
			q.Step("%s: %s", bad.Name, bad.Why)
			c := c.InSubtest(q)
			q.Cleanup(func() { // the next one is asked under the same id
				if file.Exists(c.StateDir()) {
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
				} else if q.UnderTest("runc").Pinned {
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
	proc.WaitFor(q, c.NoLeftovers(before))
	q.Fact("left on the host by all of them", c.Leftovers(before))
	q.Fact("noticed by", by)
	for _, who := range []string{byRunc, byKernel, byExecve} {
		assert.Check(q, by[who] > 0, "none is noticed by %s", who)
	}
	q.Clause("Create: If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new container MUST NOT be created.", lab.Met)

	q.Answer("What is wrong in config.json, and what the kernel refuses, at create. What only execve knows, nobody.")
}

// refusedByCreate asserts that create fails and says what the bundle's file expects; it returns what was said, or
// nothing where another runtime than the pinned one accepts the bundle.
func refusedByCreate(q *lab.Q, c *runc.Container, bad badBundle) string {
	q.Helper()
	pinned := q.UnderTest("runc").Pinned
	r := c.Try("create")
	if r.Code == 0 {
		if pinned {
			q.Errorf("create succeeds, and should not. %s\n%s", bad.Why, r)
		}
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
	standIn := proc.Snapshot(q, proc.PID(c.State().Pid))
	c.Start()
	proc.WaitFor(q, proc.Dead(standIn.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped), "after start")
	said := file.Read(q, stderr)
	assert.NilError(q, os.Remove(stderr))
	assert.Check(q, cmp.Regexp(bad.Says, said), "nobody says what is wrong")
	q.Fact("create and start", "succeed")
	q.Fact("then, on the container's stderr", steady(said))
	c.Delete()
	return said
}

// assertNoneLeft asserts, for a hundredth of the price of a look at the whole host, that there is no state and no
// cgroup. A cgroup that is gone holds no process (cgroups(7)); those outside it are seen at the end.
func assertNoneLeft(q *lab.Q, c *runc.Container) {
	q.Helper()
	states, err := os.ReadDir(c.Root)
	assert.NilError(q, err)
	assert.Check(q, cmp.Len(states, 0), "state is left below %s", c.Root)
	for _, dir := range cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Dirs() {
		assert.Check(q, !file.Exists(dir), "the cgroup is left: %s", dir)
	}
}

// Who notices what is wrong with a bundle.
const (
	byRunc   = "runc"
	byKernel = "the kernel, at create"
	byExecve = "execve, after start"
	byNobody = "nobody"
)

var errnoWords = regexp.MustCompile(
	`(?i)no such (file|device)|not a directory|is a directory|permission denied|too many levels|invalid argument`)

// noticed says who noticed what is wrong, by the words: those of an errno are the kernel's.
func noticed(step, said string) string {
	switch {
	case said == "":
		return byNobody
	case step == "exec":
		return byExecve
	case errnoWords.MatchString(said):
		return byKernel
	}
	return byRunc
}

// volatileNumber is a pid, a descriptor, an address or a size that no two runs agree on.
var volatileNumber = regexp.MustCompile(`(\[|/proc/|fd/|usage: )[0-9]+|0x[0-9a-f]+`)

// steady is a message that two runs agree on: the last line, without volatile numbers, and without what the child
// process says when its parent has given up.
func steady(stderr string) string {
	msg, _, _ := strings.Cut(runc.LastLogMessage(lab.Result{Stderr: stderr}), "; nsexec-")
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
		step := bad.Step == "create" || bad.Step == "exec"
		ok := bad.Why != "" && bad.Says != "" && step && (bad.Raw == nil) == (bad.Patch != nil)
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

// lenient is a value that the specification does not allow, and what becomes of it.
type lenient struct {
	field  string
	patch  string // a merge patch onto config.json
	demand string // what the specification says
	want   string // what see returns where the value is accepted
	effect bool   // the container is another one for it; else the value is as good as not there
	see    func(q *lab.Q, c *runc.Container, sh *runc.Shell, pid proc.PID) string
}

var leniently = []lenient{
	{"ociVersion", `{"ociVersion": "moon"}`,
		"MUST be in SemVer v2.0.0 format", "the program runs", false,
		func(_ *lab.Q, _ *runc.Container, sh *runc.Shell, _ proc.PID) string {
			return sh.Run("echo the program runs").Out
		}},
	// Names are case-sensitive in JSON, but not in Go's reader of it.
	{"hostname", `{"hostname": null, "HOSTNAME": "moon"}`,
		"Runtimes … MUST otherwise ignore [unknown properties]", "moon", true,
		func(_ *lab.Q, _ *runc.Container, sh *runc.Shell, _ proc.PID) string { return sh.Run("hostname").Out }},
	{"process.rlimits[].type", `{"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64},
			{"type": "RLIMIT_NOFILE", "soft": 32, "hard": 32}]}}`,
		"If rlimits contains duplicated entries with same type, the runtime MUST generate an error", "32 32", true,
		func(q *lab.Q, _ *runc.Container, _ *runc.Shell, pid proc.PID) string {
			l := proc.Limit(q, pid, "Max open files")
			return l[0] + " " + l[1]
		}},
	// 010000: one bit more than a mode has. umask(2) leaves it out.
	{"process.user.umask", `{"process": {"user": {"umask": 4096}}}`,
		"Runtimes MUST generate an error when invalid or unsupported values are encountered", "0000", true,
		func(q *lab.Q, _ *runc.Container, _ *runc.Shell, pid proc.PID) string {
			return proc.Status(q, pid, "Umask")
		}},
	{"hooks.createRuntime[].path", `{"hooks": {"createRuntime": [
			{"path": "../bundle/rootfs/bin/busybox", "args": ["touch", "hooked"]}]}}`,
		"path MUST be absolute", "the hook ran", true,
		func(_ *lab.Q, c *runc.Container, _ *runc.Shell, _ proc.PID) string {
			if file.Exists(filepath.Join(c.Bundle.Dir, "hooked")) {
				return "the hook ran"
			}
			return "no hook ran"
		}},
	// Both are taken from the root directory, where the stand-in happens to be.
	{"linux.maskedPaths", `{"linux": {"maskedPaths": ["etc"]}}`,
		"The values MUST be absolute paths", "1", true,
		func(_ *lab.Q, _ *runc.Container, sh *runc.Shell, _ proc.PID) string {
			return sh.Run("grep -c ' /etc ' /proc/self/mountinfo").Out
		}},
	{"linux.readonlyPaths", `{"linux": {"readonlyPaths": ["run"]}}`,
		"The values MUST be absolute paths", "1", true,
		func(_ *lab.Q, _ *runc.Container, sh *runc.Shell, _ proc.PID) string {
			return sh.Run("grep -c ' /run ' /proc/self/mountinfo").Out
		}},
	{"linux.seccomp.syscalls[].names", `{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
			"syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}}}`,
		"names MUST contain at least one entry", "2", true,
		func(q *lab.Q, _ *runc.Container, _ *runc.Shell, pid proc.PID) string {
			return proc.Status(q, pid, "Seccomp")
		}},
	{"linux.personality.flags", `{"linux": {"personality": {"domain": "LINUX", "flags": ["MOON"]}}}`,
		"Runtimes MUST generate an error when invalid or unsupported values are encountered", "00000000", false,
		func(q *lab.Q, _ *runc.Container, _ *runc.Shell, pid proc.PID) string {
			return proc.File(q, pid, "personality")
		}},
	// … and no user namespace in which it could be applied.
	{"linux.uidMappings[].hostID", `{"linux": {"uidMappings": [{"containerID": 0, "hostID": 100000, "size": 10}]}}`,
		"Runtimes MUST generate an error when invalid or unsupported values are encountered", "0 0 4294967295", false,
		func(q *lab.Q, _ *runc.Container, _ *runc.Shell, pid proc.PID) string {
			return strings.Join(strings.Fields(proc.File(q, pid, "uid_map")), " ")
		}},
	{"linux.devices[].path", `{"linux": {"devices": [{"path": "/moon", "type": "c", "major": 1, "minor": 3}]}}`,
		"If a file already exists at path that does not match the requested device, the runtime MUST generate an error",
		"regular file", false,
		func(_ *lab.Q, _ *runc.Container, sh *runc.Shell, _ proc.PID) string {
			return sh.Run("stat -c %F /moon").Out
		}},
}

// Invalid values that it never looks at, and those that the kernel takes in its own way.
//
// The specification wants an error for what is invalid, twice or relative; runc checks what could harm the host, and
// leaves the rest to the kernel. Some of the values are as good as not there, such as mappings without a user
// namespace. Others do something: of two limits the last one holds, and a field in capitals is the field, for Go's
// JSON reader takes it as such.
//
// Hint: compare each with a container without it: what is another one, and what is the same?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#valid-values
// Kernel: https://man7.org/linux/man-pages/man2/umask.2.html, https://man7.org/linux/man-pages/man2/getrlimit.2.html
func TestBundle_WhatDoesRuncAcceptThoughTheSpecificationForbidsIt(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc accept though the specification forbids it?")
	b := bundle.Busybox(q, "sleep", "300")
	assert.NilError(q, os.WriteFile(b.Rootfs("moon"), []byte("no device\n"), 0o644))
	q.LogCommand("echo no device > bundle/rootfs/moon")
	c := runc.Variant(q, b, "lenient")
	sh := c.UseShell()
	config, err := os.ReadFile(c.Bundle.Config())
	assert.NilError(q, err)
	write := func(ls ...lenient) {
		var patches []json.RawMessage
		for _, l := range ls {
			patches = append(patches, json.RawMessage(l.patch))
		}
		c.Bundle.WriteRaw(patched(q, string(config), patches...), fmt.Sprintf("with %d invalid values", len(ls)))
	}

	q.Step("a configuration with %d invalid values: one container has them all", len(leniently))
	accepted := leniently
	write(accepted...)
	if r := c.Try("create"); r.Code != 0 {
		// This runtime looks closer: see at which of them.
		if q.UnderTest("runc").Pinned {
			q.Errorf("create fails: one of the values is refused now\n%s", r)
		}
		accepted = nil
		for _, l := range leniently {
			write(l)
			if r := c.Try("create"); r.Code != 0 {
				q.Fact(l.field+" is refused", steady(r.Stderr))
				continue
			}
			c.Must("delete", "--force")
			accepted = append(accepted, l)
		}
		write(accepted...)
		c.Create()
	}
	pid := c.State().Pid
	c.Start()
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sh"))

	q.Step("what becomes of each")
	for _, l := range accepted {
		got := l.see(q, c, sh, proc.PID(pid))
		assert.Check(q, cmp.Equal(got, l.want), "%s, of which the specification says: %s", l.field, l.demand)
		q.Fact(l.field, got)
		if l.effect {
			q.Fact("  although", l.demand)
		} else {
			q.Fact("  as without it, although", l.demand)
		}
	}
	if slices.ContainsFunc(accepted, func(l lenient) bool { return !l.effect }) {
		q.Clause("Create: If the runtime cannot apply a property as specified in the configuration, it MUST generate an error and a new container MUST NOT be created.", lab.DeviatesUnless(false,
			"values that cannot be applied are left out, such as mappings without a user namespace"))

	}

	q.Control("a container without the invalid values")
	plain, plainSh, p := runc.StartWithShell(q, b, "plain")
	for _, l := range accepted {
		got := l.see(q, plain, plainSh, p.PID)
		if l.effect {
			assert.Check(q, got != l.want, "%s is also %s where config.json does not say so", l.field, got)
		} else {
			assert.Check(q, cmp.Equal(got, l.want), "%s is not as it is without the invalid value", l.field)
		}
		q.Fact(l.field+", without", got)
	}

	q.Answer("What does the host no harm: relative paths, limits given twice, unknown flags, a version that is none.")
}

// Letters, digits, and _ + - . as long as it is a name of one directory.
//
// The id becomes the name of a directory below the runtime's root, and that is where the rules come from: no slash,
// not "." and "..", at most 255 bytes, and nothing that a shell, a log or a cgroup would have trouble with. It must
// be unique, but only within one --root: that is what runc takes for the host.
//
// Hint: what is made of the id, and where?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#create
// Kernel: https://man7.org/linux/man-pages/man7/path_resolution.7.html
func TestBundle_WhichIDsMayAContainerHave(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which ids may a container have?")
	b := bundle.Busybox(q, "sleep", "300")
	root := q.Mkdir("root")
	create := func(id string) lab.Result {
		q.Helper()
		return q.Exec("runc", "--root", root, "create", "--bundle", b.Name, "--", id)
	}
	remove := func(id string) {
		q.Helper()
		q.Must("runc", "--root", root, "delete", "--force", "--", id)
	}
	q.Cleanup(func() {
		states, _ := os.ReadDir(root)
		for _, s := range states {
			remove(s.Name())
		}
	})
	group := cgroup.Of(q, b.Spec.Linux.CgroupsPath)

	q.Step("refused, and nothing is made: neither below the root nor beside it")
	before := below(q, q.Dir)
	for _, row := range []struct{ why, id string }{
		{"empty", ""},
		{"a directory and a name", "a/b"},
		{"a name from the root", "/a"},
		{"a name beside the root", "../a"},
		{"the root", "."},
		{"the root's parent", ".."},
		{"a slash at the end", "a/"},
		{"a space", "a b"},
		{"a line's end", "a\n"},
		{"a colon", "a:b"},
		{"an at", "a@b"},
		{"a wildcard", "*"},
		{"a letter of two bytes", "ü"},
		{"a byte that is no letter", "a\xff"},
		{"256 bytes, one more than a file's name has", strings.Repeat("a", 256)},
		{"5000 bytes, more than a path has", strings.Repeat("a", 5000)},
	} {
		r := create(row.id)
		assert.Check(q, r.Code != 0, "%s: %.40q is accepted", row.why, row.id)
		assert.Check(q, strings.TrimSpace(r.Stderr) != "", "%s: nothing is said", row.why)
		assert.Check(q, cmp.DeepEqual(below(q, q.Dir), before), "%s: something was made", row.why)
		for _, dir := range group.Dirs() {
			assert.Check(q, !file.Exists(dir), "%s: there is a cgroup %s", row.why, dir)
		}
		q.Fact(row.why, longName.ReplaceAllString(steady(r.Stderr), "/aaa…"))
	}
	q.Clause("Create: If the ID provided is not unique across all containers within the scope of the runtime, or is not valid in any other way, the implementation MUST generate an error and a new container MUST NOT be created.", lab.Met)

	q.Step("allowed: its state is in a directory of that name, and of no other")
	for _, id := range []string{"a", "0", "_", "+", "-a", "A_b-c+d.e", ".a", "...", strings.Repeat("a", 255)} {
		r := create(id)
		if !assert.Check(q, r.Code == 0, "%.40q is refused:\n%s", id, r) {
			continue
		}
		states, err := os.ReadDir(root)
		assert.NilError(q, err)
		assert.Assert(q, cmp.Len(states, 1), "state below %s", root)
		assert.Check(q, cmp.Equal(states[0].Name(), id))
		assert.Check(q, cmp.Len(group.Procs(), 1), "members of the cgroup of %.40q", id)
		q.Fact(fmt.Sprintf("%.20q", id), fmt.Sprintf("created, %d bytes", len(id)))
		if id != "a" {
			remove(id)
			continue
		}

		// The same id again, while the container is there.
		held := group.Procs()
		again := create(id)
		assert.Check(q, again.Code != 0, "the id %q is given twice", id)
		assert.Check(q, cmp.Regexp("exist", again.Stderr))
		assert.Check(q, cmp.DeepEqual(group.Procs(), held), "the first container's process is another one")
		q.Fact("  the same once more", steady(again.Stderr))
		remove(id)
		assert.Check(q, create(id).Code == 0, "the id of a deleted container is not free")
		q.Fact("  and once the container is deleted", "created")
		remove(id)
	}

	q.Control("the same id below another root: unique means within one root")
	one, other := runc.Variant(q, b, "one"), runc.Variant(q, b, "other")
	other.ID = one.ID
	one.Create()
	other.Create()
	pids := []int{one.State().Pid, other.State().Pid}
	assert.Check(q, pids[0] != pids[1], "both are process %d", pids[0])
	q.Fact("two containers "+one.ID, []proc.PID{proc.PID(pids[0]), proc.PID(pids[1])})

	q.Answer("Letters, digits, _ + - and . as long as it is one directory's name, and nobody else's below that root.")
}

// longName is an id that is too long, in a path.
var longName = regexp.MustCompile(`/+a{256,}`)

// below lists what is below a directory, but for the rootfs's files.
func below(q *lab.Q, dir string) []string {
	q.Helper()
	var out []string
	assert.NilError(q, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		out = append(out, path)
		if d != nil && d.Name() == "rootfs" {
			return fs.SkipDir
		}
		return err
	}))
	return out
}
