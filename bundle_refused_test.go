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
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
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
	Unsafe string          `json:"unsafe"`
}

// What is wrong with a bundle is noticed at one of three places: by runc when it reads config.json, by the kernel when runc
// builds the container, or by execve(2), when it is too late.
//
// What the first two refuse fails create, and nothing is left: no state, no cgroup, no process, and the id is free.
// What only execve(2) can know, such as a script without its interpreter, fails neither create nor start: the program
// just never runs, and the container is stopped. Some of what the specification forbids is never noticed: that is the
// next question.
//
// Hint: which of the messages end in the words of an errno?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#valid-values
// Kernel: https://man7.org/linux/man-pages/man2/execve.2.html, https://man7.org/linux/man-pages/man3/errno.3.html
func TestBundle_WhatDoesRuncRefuse(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc refuse?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")
	c := runc.New(q, b)
	good, err := os.ReadFile(b.Config())
	assert.NilError(q, err)
	before := q.TakeInventory()

	// What noticed that the bundle is broken shows in the message: the words of an errno come from the kernel.
	const byRunc, byKernel, byExecve, notNoticed = "runc", "the kernel, at create", "execve, after start", "not noticed"
	errnoWords := regexp.MustCompile(
		`(?i)no such (file|device)|not a directory|is a directory|permission denied|too many levels|invalid argument`)
	noticedBy := func(step, message string) string {
		switch {
		case message == "":
			return notNoticed
		case step == "exec":
			return byExecve
		case errnoWords.MatchString(message):
			return byKernel
		}
		return byRunc
	}

	bundlesNoticedBy, asked := map[string]int{}, 0
	bundles := readBadBundles(q)
	for _, bad := range bundles {
		q.Run(bad.Name, func(q *lab.Q) {
			asked++
			q.Step("%s: %s", bad.Name, bad.Why)
			c := c.InSubtest(q)
			q.Cleanup(func() { // the next bundle's container has the same id
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
				c.Bundle.WriteRaw(bundle.MergePatch(q, string(good), bad.Patch), "patched with "+string(bad.Patch))
			}
			message := ""
			if bad.Step == "exec" {
				message = assertExecveFails(q, c, bad)
			} else {
				message = assertCreateFails(q, c, bad)
			}
			c.AssertNoStateOrCgroup() // processes outside of the cgroup are looked for at the end
			bundlesNoticedBy[noticedBy(bad.Step, message)]++

			if bad.Mend != nil && message != "" {
				mended := bundle.MergePatch(q, string(good), bad.Patch, bad.Mend)
				c.Bundle.WriteRaw(mended, "mended with "+string(bad.Mend))
				if r := c.Try("create"); r.Code == 0 {
					c.Must("delete", "--force")
				} else if q.UnderTest("runc").Pinned {
					q.Errorf("the mended bundle is refused too: something else is wrong with it.\n%s", r)
				} else {
					q.Fact(bad.Name+": mended, it is refused too", runc.StableMessage(r.Stderr))
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
	q.Fact("noticed by", bundlesNoticedBy)
	for _, by := range []string{byRunc, byKernel, byExecve} {
		onlySome := asked < len(bundles) // -run selects subtests
		assert.Check(q, bundlesNoticedBy[by] > 0 || onlySome, "no broken bundle is noticed by %s", by)
	}
	q.Clause("Create: If the runtime cannot apply a property as specified in the configuration, it MUST "+
		"generate an error and a new container MUST NOT be created.", lab.Met)

	q.Answer("What is wrong in config.json, and what the kernel refuses, fails create. " +
		"What only execve can detect fails after start, and no runc command reports it.")
}

// assertCreateFails asserts that create fails with the error that the bundle's file expects, and returns the error. It returns
// "" if the runtime under test is not the pinned one and accepts the bundle. No runtime may accept one that is unsafe.
func assertCreateFails(q *lab.Q, c *runc.Container, bad badBundle) string {
	q.Helper()
	pinned := q.UnderTest("runc").Pinned
	r := c.Try("create")
	if r.Code == 0 {
		switch {
		case bad.Unsafe != "":
			q.Errorf("create succeeds, and every runtime must refuse this bundle. %s Otherwise: %s\n%s", bad.Why, bad.Unsafe, r)
		case pinned:
			q.Errorf("create succeeds, and should not. %s\n%s", bad.Why, r)
		}
		q.Fact(bad.Name+": create says", "nothing, it succeeds: this runtime does not look at it, or does not know it")
		c.Must("delete", "--force")
		return ""
	}
	if asExpected := cmp.Regexp(bad.Says, r.Stderr); pinned {
		assert.Check(q, asExpected, "the error of create does not name what is wrong")
	} else if !asExpected().Success() {
		q.Logf("%s: this runtime has other words than the pinned runc", bad.Name)
	}
	q.Fact(bad.Name+": create says", runc.StableMessage(r.Stderr))
	return r.Stderr
}

// assertExecveFails asserts that create and start succeed, that the program never runs, and that the container's stderr has
// the error that the bundle's file expects. It returns the error.
func assertExecveFails(q *lab.Q, c *runc.Container, bad badBundle) string {
	q.Helper()
	// `runc init` writes the error after start has returned, to the stderr that create gave it.
	stderr := filepath.Join(c.Bundle.Dir, "stderr-"+bad.Name)
	q.Must("sh", "-c", fmt.Sprintf("runc --root %s create --bundle %s %s 2> %s", c.Root, c.Bundle.Name, c.ID, stderr))
	runcInit := proc.Snapshot(q, proc.PID(c.State().Pid))
	c.Start()
	proc.WaitFor(q, proc.Dead(runcInit.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped), "after start")
	message := file.Read(q, stderr)
	assert.NilError(q, os.Remove(stderr))
	assert.Check(q, cmp.Regexp(bad.Says, message), "the container's stderr does not name what is wrong")
	q.Fact(bad.Name+": create and start", "succeed")
	q.Fact(bad.Name+": then, on the container's stderr", runc.StableMessage(message))
	c.Delete()
	return message
}

// readBadBundles reads the broken bundles, sorted by name.
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
		stepIsKnown := bad.Step == "create" || bad.Step == "exec"
		complete := bad.Why != "" && bad.Says != "" && stepIsKnown && (bad.Raw == nil) == (bad.Patch != nil)
		assert.Assert(q, complete, "%s/%s lacks a key: see %s/README.md", dir, f.Name(), dir)
		out = append(out, bad)
	}
	return out
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
	defer q.Recover()

	type runningContainer struct {
		*runc.Container
		sh  *runc.Shell
		pid proc.PID
	}
	type forbiddenValue struct {
		field     string
		patch     string                        // a merge patch onto config.json
		demand    string                        // of the specification
		observe   func(runningContainer) string // what has become of the value
		want      string                        // what observe returns where the value is accepted
		hasEffect bool                          // without the value, observe returns something else
	}
	const unsupportedIsAnError = "Runtimes MUST generate an error when invalid or unsupported values are encountered"
	inheritedFilters := check.Int(q, proc.Status(q, proc.Self(q).PID, "Seccomp_filters"))
	values := []forbiddenValue{
		{"ociVersion", `{"ociVersion": "moon"}`, "MUST be in SemVer v2.0.0 format",
			func(c runningContainer) string { return c.sh.Run("echo the program runs").Out },
			"the program runs", false},
		// Names are case-sensitive in JSON, but not in Go's reader of it.
		{"hostname", `{"hostname": null, "HOSTNAME": "moon"}`, "Runtimes … MUST otherwise ignore [unknown properties]",
			func(c runningContainer) string { return c.sh.Run("hostname").Out },
			"moon", true},
		{"process.rlimits[].type", `{"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64},
			{"type": "RLIMIT_NOFILE", "soft": 32, "hard": 32}]}}`,
			"If rlimits contains duplicated entries with same type, the runtime MUST generate an error",
			func(c runningContainer) string {
				l := proc.Limit(q, c.pid, "Max open files")
				return l[0] + " " + l[1]
			},
			"32 32", true},
		// 010000: one bit more than a mode has. umask(2) leaves it out.
		{"process.user.umask", `{"process": {"user": {"umask": 4096}}}`, unsupportedIsAnError,
			func(c runningContainer) string { return proc.Status(q, c.pid, "Umask") },
			"0000", true},
		{"hooks.createRuntime[].path", `{"hooks": {"createRuntime": [
			{"path": "../bundle/rootfs/bin/busybox", "args": ["touch", "hooked"]}]}}`, "path MUST be absolute",
			func(c runningContainer) string {
				if file.Exists(filepath.Join(c.Bundle.Dir, "hooked")) {
					return "the hook ran"
				}
				return "no hook ran"
			},
			"the hook ran", true},
		// Both are taken from the root directory, which is the working directory of `runc init` at that moment.
		{"linux.maskedPaths", `{"linux": {"maskedPaths": ["etc"]}}`, "The values MUST be absolute paths",
			func(c runningContainer) string { return c.sh.Run("grep -c ' /etc ' /proc/self/mountinfo").Out },
			"1", true},
		{"linux.readonlyPaths", `{"linux": {"readonlyPaths": ["run"]}}`, "The values MUST be absolute paths",
			func(c runningContainer) string { return c.sh.Run("grep -c ' /run ' /proc/self/mountinfo").Out },
			"1", true},
		{"linux.seccomp.syscalls[].names", `{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
			"syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}}}`, "names MUST contain at least one entry",
			func(c runningContainer) string {
				return fmt.Sprint(check.Int(q, proc.Status(q, c.pid, "Seccomp_filters"))-inheritedFilters, " filter")
			},
			"1 filter", true},
		{"linux.personality.flags", `{"linux": {"personality": {"domain": "LINUX", "flags": ["MOON"]}}}`, unsupportedIsAnError,
			func(c runningContainer) string { return proc.File(q, c.pid, "personality") },
			"00000000", false},
		// The container has no user namespace in which the mapping could be applied.
		{"linux.uidMappings[].hostID", `{"linux": {"uidMappings": [{"containerID": 0, "hostID": 100000, "size": 10}]}}`,
			unsupportedIsAnError,
			func(c runningContainer) string {
				return strings.Join(strings.Fields(proc.File(q, c.pid, "uid_map")), " ")
			},
			"0 0 4294967295", false},
		{"linux.devices[].path", `{"linux": {"devices": [{"path": "/moon", "type": "c", "major": 1, "minor": 3}]}}`,
			"If a file already exists at path that does not match the requested device, the runtime MUST generate an error",
			func(c runningContainer) string { return c.sh.Run("stat -c %F /moon").Out },
			"regular file", false},
	}

	b := bundle.Busybox(q, "sleep", "300")
	assert.NilError(q, os.WriteFile(b.Rootfs("moon"), []byte("no device\n"), 0o644))
	q.LogCommand("echo no device > bundle/rootfs/moon")
	c := runc.Variant(q, b, "lenient")
	sh := c.UseShell()
	config, err := os.ReadFile(c.Bundle.Config())
	assert.NilError(q, err)
	writeConfigWith := func(values ...forbiddenValue) {
		var patches []json.RawMessage
		for _, v := range values {
			patches = append(patches, json.RawMessage(v.patch))
		}
		c.Bundle.WriteRaw(bundle.MergePatch(q, string(config), patches...), fmt.Sprintf("with %d invalid values", len(values)))
	}

	q.Step("a configuration with %d invalid values: one container has them all", len(values))
	accepted := values
	writeConfigWith(accepted...)
	if r := c.Try("create"); r.Code != 0 {
		// This runtime checks more: find out which of the values it refuses.
		if q.UnderTest("runc").Pinned {
			q.Errorf("create fails: one of the values is refused now\n%s", r)
		}
		accepted = nil
		for _, v := range values {
			writeConfigWith(v)
			if r := c.Try("create"); r.Code != 0 {
				q.Fact(v.field+" is refused", runc.StableMessage(r.Stderr))
				continue
			}
			c.Must("delete", "--force")
			accepted = append(accepted, v)
		}
		writeConfigWith(accepted...)
		c.Create()
	}
	pid := proc.PID(c.State().Pid)
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sh"))

	q.Step("what becomes of each")
	for _, v := range accepted {
		got := v.observe(runningContainer{c, sh, pid})
		assert.Check(q, cmp.Equal(got, v.want), "%s, of which the specification says: %s", v.field, v.demand)
		q.Fact(v.field, got)
		if v.hasEffect {
			q.Fact(v.field+" has an effect, although", v.demand)
		} else {
			q.Fact(v.field+" is as without it, although", v.demand)
		}
	}
	if slices.ContainsFunc(accepted, func(v forbiddenValue) bool { return !v.hasEffect }) {
		q.Clause("Create: If the runtime cannot apply a property as specified in the configuration, it MUST "+
			"generate an error and a new container MUST NOT be created.", lab.DeviatesUnless(false,
			"values that cannot be applied are left out, such as mappings without a user namespace"))
	}

	q.Control("a container without the invalid values")
	plain, plainShell, p := runc.StartWithShell(q, b, "plain")
	for _, v := range accepted {
		got := v.observe(runningContainer{plain, plainShell, p.PID})
		if v.hasEffect {
			assert.Check(q, got != v.want, "%s is also %s where config.json does not say so", v.field, got)
		} else {
			assert.Check(q, cmp.Equal(got, v.want), "%s is not as it is without the invalid value", v.field)
		}
		q.Fact(v.field+", without", got)
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
	defer q.Recover()
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
	pathsBelowQuestion := func() []string { return file.PathsBelow(q, q.Dir, "rootfs") }
	longID := regexp.MustCompile(`/+a{256,}`) // an id that is too long, in a path

	q.Step("refused, and nothing is made: neither below the root nor beside it")
	before := pathsBelowQuestion()
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
		assert.Check(q, strings.TrimSpace(r.Stderr) != "", "%s: create fails without an error message", row.why)
		assert.Check(q, cmp.DeepEqual(pathsBelowQuestion(), before), "%s: the refused create left files", row.why)
		for _, dir := range group.Dirs() {
			assert.Check(q, !file.Exists(dir), "%s: the refused create left the cgroup %s", row.why, dir)
		}
		q.Fact(row.why, longID.ReplaceAllString(runc.StableMessage(r.Stderr), "/aaa…"))
	}
	q.Clause("Create: If the ID provided is not unique across all containers within the scope of the "+
		"runtime, or is not valid in any other way, the implementation MUST generate an error and a "+
		"new container MUST NOT be created.", lab.Met)

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

		// The same id again, while the container exists.
		members := group.Procs()
		again := create(id)
		assert.Check(q, again.Code != 0, "a second container of the id %q is created", id)
		assert.Check(q, cmp.Regexp("exist", again.Stderr))
		assert.Check(q, cmp.DeepEqual(group.Procs(), members), "the first container's process is another one")
		q.Fact(fmt.Sprintf("%q once more", id), runc.StableMessage(again.Stderr))
		remove(id)
		assert.Check(q, create(id).Code == 0, "the id of a deleted container is not free")
		q.Fact(fmt.Sprintf("%q, once the container is deleted", id), "created")
		remove(id)
	}

	q.Control("the same id below another root: unique means within one root")
	one, other := runc.Variant(q, b, "one"), runc.Variant(q, b, "other")
	other.ID = one.ID
	one.Create()
	other.Create()
	pids := []proc.PID{proc.PID(one.State().Pid), proc.PID(other.State().Pid)}
	assert.Check(q, pids[0] != pids[1], "both are process %d", pids[0])
	q.Fact("two containers "+one.ID, pids)

	q.Answer("Letters, digits, _ + - and . as long as it is one directory's name, and no other container's below that root.")
}
