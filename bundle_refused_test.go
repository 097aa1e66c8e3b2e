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
	Knows  string          `json:"knows"`
	Since  string          `json:"since"`
	By     string          `json:"by"`

	Without string `json:"without"`
}

// What notices that a bundle is broken.
const byRunc, byKernel, byExecve, notNoticed = "runc", "the kernel, at create", "execve, after start", "not noticed"

// An error in a bundle is noticed at one of three places: by runc, when it reads config.json or while it builds the container; by the
// kernel, while runc builds the container; or by execve(2) after start.
//
// If runc or the kernel notices the error, create fails and leaves nothing: no state, no cgroup and no process, and the id is
// free. If only execve(2) notices it, create and start succeed: a script without its interpreter is an example. Then the
// program never runs, and the container is stopped. Some values that the specification forbids are never noticed: they are
// the next question.
//
// Hint: which of the messages end in the words of an errno?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#valid-values
// Kernel: https://man7.org/linux/man-pages/man2/execve.2.html, https://man7.org/linux/man-pages/man3/errno.3.html
func TestBundle_WhatDoesRuncRefuse(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc refuse?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	c := runc.New(q, b)
	good, err := os.ReadFile(b.Config())
	assert.NilError(q, err)
	before := q.TakeInventory()

	// The message shows what has noticed that the bundle is broken. Most words of an errno come from the kernel, as does the OOM killer.
	// Where Go's library or runc chose the words, the bundle has the key by.
	errnoWords := regexp.MustCompile(
		`(?i)no such (file|device)|not a directory|is a directory|permission denied|too many levels|invalid argument|OOM-killed`)
	noticedBy := func(bad badBundle, message string) string {
		switch {
		case message == "":
			return notNoticed
		case bad.By != "":
			return bad.By
		case bad.Step == "exec":
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
			bundlesNoticedBy[noticedBy(bad, message)]++

			if bad.Mend != nil && message != "" {
				mended := bundle.MergePatch(q, string(good), bad.Patch, bad.Mend)
				c.Bundle.WriteRaw(mended, "mended with "+string(bad.Mend))
				if r := c.Try("create"); r.Code == 0 {
					c.Must("delete", "--force")
				} else if bad.mustBeRefused(q) {
					q.Errorf("the mended bundle has to be accepted, and create refuses it, too: something else is wrong.\n%s", r)
				} else { // a runtime that does not know the field may not know what else is in the bundle, such as a time namespace
					q.Fact(bad.Name+": mended, it is refused too", runc.StableMessage(r.Stderr))
				}
				c.AssertNoStateOrCgroup()
			}
		})
	}

	q.Control("the good bundle is created under the id that all the broken ones had")
	c.Bundle.WriteRaw(string(good), "whole again")
	c.Create()
	status := c.State().Status
	assert.Equal(q, status, specs.StateCreated)
	q.Fact("good bundle: status after create", status)
	c.Must("delete", "--force")
	proc.WaitFor(q, c.NoLeftovers(before))
	q.Fact("left on the host by all of them", c.Leftovers(before))
	q.Fact("noticed by", bundlesNoticedBy)
	for _, by := range []string{byRunc, byKernel, byExecve} {
		onlySome := asked < len(bundles) // -run selects subtests
		assert.Check(q, bundlesNoticedBy[by] > 0 || onlySome, "no broken bundle is noticed by %s", by)
	}
	q.Clause("Create: If the runtime cannot apply a property as specified in the configuration, it MUST "+
		"generate an error and a new container MUST NOT be created.",
		lab.MetIf(bundlesNoticedBy[notNoticed] == 0, fmt.Sprintf("%d of %d broken bundles are accepted", bundlesNoticedBy[notNoticed], asked)))

	q.Answer("`runc create` rejects an invalid config.json, and fails if the kernel refuses a part of it. " +
		"Errors that only execve can detect appear after `runc start`, and no runc command reports them.")
}

// assertCreateFails asserts that create fails with the error that the bundle's file expects, and returns the error. It returns
// "" if the runtime accepts the bundle, which is an error if the bundle must be refused.
func assertCreateFails(q *lab.Q, c *runc.Container, bad badBundle) string {
	q.Helper()
	r := c.Try("create")
	if r.Code == 0 {
		if bad.mustBeRefused(q) {
			danger := ""
			if bad.Unsafe != "" {
				danger = "\nIt is unsafe to accept it: " + bad.Unsafe
			}
			q.Errorf("create has to refuse this bundle, and succeeds. %s%s\n%s", bad.Why, danger, r)
		}
		status := c.State().Status
		q.Fact(bad.Name+": create says", fmt.Sprintf("nothing: the bundle is accepted, and the status is %s", status))
		c.Must("delete", "--force")
		return ""
	}
	// A runtime that does not know the field may refuse something else in the bundle.
	if runc.IsRunc(q) && bad.mustBeRefused(q) {
		assert.Check(q, cmp.Regexp(bad.Says, r.Stderr), "the error of create does not name what is wrong")
	}
	q.Fact(bad.Name+": create says", runc.StableMessage(r.Stderr))
	return r.Stderr
}

// mustBeRefused reports whether the runtime under test has to refuse the bundle. Another runtime than runc has to refuse only
// what is unsafe. An old runc may lack the field, which it then has to ignore, or the check:
// https://github.com/opencontainers/runtime-spec/blob/main/config.md#extensibility
func (bad badBundle) mustBeRefused(q *lab.Q) bool {
	q.Helper()
	if !runc.IsRunc(q) {
		return bad.Unsafe != ""
	}
	if bad.Since != "" && q.UnderTest("runc").Precedes(bad.Since) {
		return false
	}
	return bad.Knows == "" || runc.Knows(q, bad.Knows)
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
	status := c.State().Status
	assert.Check(q, cmp.Equal(status, specs.StateStopped), "after start")
	message := file.Read(q, stderr)
	assert.NilError(q, os.Remove(stderr))
	if runc.IsRunc(q) {
		assert.Check(q, cmp.Regexp(bad.Says, message), "the container's stderr does not name what is wrong")
	} else {
		assert.Check(q, message != "", "the container's stderr is empty: no message says why the program does not run")
	}
	q.Fact(bad.Name+": create and start succeed, and the status is", status)
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
		known := []string{"", byRunc, byKernel}
		assert.Assert(q, slices.Contains(known, bad.By), "%s/%s: by is %q, and has to be one of %q", dir, f.Name(), bad.By, known[1:])
		if bad.Without == "" || !file.Exists(bad.Without) { // a machine that has what the bundle asks for may run it
			out = append(out, bad)
		}
	}
	return out
}

// runc accepts some values that the specification forbids: relative paths of hooks, maskedPaths and readonlyPaths, limits given twice,
// unknown flags of personality, and mappings without a user namespace.
//
// The specification wants an error for each of them, except for HOSTNAME: a runtime has to ignore an unknown property. runc sets the
// hostname by it, because Go's JSON reader ignores the case of names. runc ignores some of the values, and warns only of
// personality.flags (since 1.2). So with uidMappings, but without a user namespace, the program is root on the host, and no message
// says so. Other values have an effect: of two limits of a type the last one counts. A hook with a relative path is looked up in the
// bundle, and runs on the host.
//
// Hint: compare the container with one that lacks the values. Which of them make a difference?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#valid-values
// Kernel: https://man7.org/linux/man-pages/man2/umask.2.html, https://man7.org/linux/man-pages/man2/getrlimit.2.html
func TestBundle_WhatDoesRuncAcceptThoughTheSpecificationForbidsIt(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc accept though the specification forbids it?")
	defer q.Recover()
	values := forbiddenValues(q)

	b := bundle.Busybox(q, "sleep", "3600")
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
	created := c.Try("create")
	if created.Code != 0 {
		// This runtime checks more, as the specification demands. Find out which of the values it refuses.
		accepted = nil
		for _, v := range values {
			writeConfigWith(v)
			if r := c.Try("create"); r.Code != 0 {
				assert.Check(q, strings.TrimSpace(r.Stderr) != "", "create refuses %s without an error message", v.field)
				c.AssertNoStateOrCgroup()
				q.Fact(v.field+" is refused", runc.StableMessage(r.Stderr))
				continue
			}
			c.Must("delete", "--force")
			accepted = append(accepted, v)
		}
		assert.Assert(q, len(accepted) > 0, "this runtime refuses each of the values, as the specification demands. The question's "+
			"answer is not true of it: drop the question")
		assert.Assert(q, len(accepted) < len(values), "create fails with all of the values, and accepts each of them alone:\n%s", created)
		writeConfigWith(accepted...)
		created = c.Must("create")
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
	plain := runc.Variant(q, b, "plain")
	plainShell := plain.UseShell()
	assertWarnings(q, created, plain.Must("create"))
	p := plain.Process()
	plain.Start()
	proc.WaitFor(q, proc.Runs(p.PID, "sh"))
	for _, v := range accepted {
		got := v.observe(runningContainer{plain, plainShell, p.PID})
		if v.hasEffect {
			assert.Check(q, got != v.want, "%s is also %s where config.json does not say so", v.field, got)
		} else {
			assert.Check(q, cmp.Equal(got, v.want), "%s is not as it is without the invalid value", v.field)
		}
		q.Fact(v.field+", without", got)
	}

	var fields []string
	for _, v := range accepted {
		fields = append(fields, v.field)
	}
	if len(accepted) < len(values) {
		q.Answer("This runtime accepts values that the specification forbids in these fields, and refuses those of others: %s.",
			strings.Join(fields, ", "))
		return
	}
	q.Answer("runc accepts values that the specification forbids, such as relative paths of hooks, maskedPaths and readonlyPaths, limits " +
		"given twice, and unknown flags of personality. Some values are ignored without a message: mappings without a user namespace leave the " +
		"program root on the host. Others have an effect: a hook with a relative path runs on the host.")
}

// assertWarnings asserts which of the invalid values runc warns of: of personality.flags alone, and before 1.2.0 of none. It does not
// count a warning that create prints for the container without the values, too.
func assertWarnings(q *lab.Q, invalid, plain lab.Result) {
	q.Helper()
	messages := func(r lab.Result) (messages []string) {
		for line := range strings.Lines(r.Stderr) {
			messages = append(messages, runc.LogMessage(strings.TrimSpace(line)))
		}
		return messages
	}
	ofBoth := messages(plain)
	warnings := slices.DeleteFunc(messages(invalid), func(message string) bool { return slices.Contains(ofBoth, message) })
	q.Fact("messages of create about the values", warnings)
	if !runc.IsRunc(q) {
		return
	}
	if !runc.Knows(q, "unsupported personality flags") { // the text of the warning
		assert.Check(q, cmp.Len(warnings, 0), "messages of create, which does not know the warning")
		return
	}
	assert.Assert(q, cmp.Len(warnings, 1), "messages of create about the values: one is about personality.flags")
	assert.Check(q, cmp.Contains(warnings[0], "personality"), "the only message of create about the values")
}

// runningContainer is a container whose program runs: the process pid, with a shell in the container.
type runningContainer struct {
	*runc.Container
	sh  *runc.Shell
	pid proc.PID
}

// forbiddenValue is a value in config.json that the specification forbids or wants ignored.
type forbiddenValue struct {
	field     string
	patch     string                        // a merge patch onto config.json
	demand    string                        // of the specification
	observe   func(runningContainer) string // what has become of the value
	want      string                        // what observe returns where the value is accepted
	hasEffect bool                          // without the value, observe returns something else
}

// forbiddenValues returns values that runc never checks.
func forbiddenValues(q *lab.Q) []forbiddenValue {
	q.Helper()
	const unsupportedIsAnError = "Runtimes MUST generate an error when invalid or unsupported values are encountered"
	return []forbiddenValue{
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
			// The bundle's directory is in the host's mount namespace only.
			func(c runningContainer) string {
				return fmt.Sprint("the hook has made a file on the host: ", file.Exists(filepath.Join(c.Bundle.Dir, "hooked")))
			},
			"the hook has made a file on the host: true", true},
		// Both are taken from the root directory, which is the working directory of `runc init` at that moment.
		{"linux.maskedPaths", `{"linux": {"maskedPaths": ["etc"]}}`, "The values MUST be absolute paths",
			func(c runningContainer) string { return c.sh.Run("grep -c ' /etc ' /proc/self/mountinfo").Out },
			"1", true},
		{"linux.readonlyPaths", `{"linux": {"readonlyPaths": ["run"]}}`, "The values MUST be absolute paths",
			func(c runningContainer) string { return c.sh.Run("grep -c ' /run ' /proc/self/mountinfo").Out },
			"1", true},
		{"linux.seccomp.syscalls[].names", `{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
			"syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}}}`, "names MUST contain at least one entry",
			// A rule without names refuses no call: with a rule for all calls, no program could run.
			func(c runningContainer) string { return c.sh.Run("echo the program runs").Out },
			"the program runs", false},
		{"linux.personality.flags", `{"linux": {"personality": {"domain": "LINUX", "flags": ["MOON"]}}}`, unsupportedIsAnError,
			func(c runningContainer) string { return proc.File(q, c.pid, "personality") },
			"00000000", false},
		// The container has no user namespace in which the mapping could be applied.
		{"linux.uidMappings[].hostID", `{"linux": {"uidMappings": [{"containerID": 0, "hostID": 100000, "size": 10}]}}`,
			unsupportedIsAnError,
			func(c runningContainer) string {
				uidMap := strings.Join(strings.Fields(proc.File(q, c.pid, "uid_map")), " ")
				return fmt.Sprintf("uid_map %s, uid on the host %s", uidMap, proc.IDs(q, c.pid, "Uid")[1])
			},
			"uid_map 0 0 4294967295, uid on the host 0", false},
		{"linux.devices[].path", `{"linux": {"devices": [{"path": "/moon", "type": "c", "major": 1, "minor": 3}]}}`,
			"If a file already exists at path that does not match the requested device, the runtime MUST generate an error",
			func(c runningContainer) string { return c.sh.Run("stat -c %F /moon").Out },
			"regular file", false},
	}
}

// An id consists of ASCII letters, digits, and the characters _ + - and . It is the name of one directory, of 255 bytes at most.
//
// runc makes a directory with this name below its root (--root). From that follow some of the rules: no slash, neither "." nor "..",
// and at most 255 bytes. Which characters are allowed is runc's own choice. The specification demands that an id is unique on the host.
// runc compares ids only within one --root.
//
// Hint: which directory does runc make for an id?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#create
// Kernel: https://man7.org/linux/man-pages/man7/path_resolution.7.html
func TestBundle_WhichIDsMayAContainerHave(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which ids may a container have?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	root := q.Mkdir("root")
	create := func(id string) lab.Result {
		q.Helper()
		return q.Exec("runc", "--root", root, "create", "--bundle", b.Name, "--", id)
	}
	remove := func(id string) {
		q.Helper()
		runc.MustDelete(q, "runc", "--root", root, "delete", "--force", "--", id)
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
	for _, row := range invalidIDs {
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
		q.Fact(fmt.Sprintf("%.20q", id), fmt.Sprintf("%d bytes; the directory of its state has a name of %d bytes", len(id),
			len(states[0].Name())))
		if id != "a" {
			remove(id)
			continue
		}

		// The same id again, while the container exists.
		members := group.Procs()
		again := create(id)
		assert.Check(q, again.Code != 0, "a second container of the id %q is created", id)
		runc.AssertMessage(q, again.Stderr, "exist")
		assert.Check(q, cmp.DeepEqual(group.Procs(), members), "the first container's process is another one")
		q.Fact(fmt.Sprintf("%q once more", id), runc.StableMessage(again.Stderr))
		remove(id)
		assert.Check(q, create(id).Code == 0, "the id of a deleted container is not free")
		assert.Check(q, cmp.Len(group.Procs(), 1), "members of the cgroup of the second container %q", id)
		q.Fact(fmt.Sprintf("%q, once the container is deleted: processes in the cgroup of the second container", id), len(group.Procs()))
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

	q.Step("with --root, runc makes nothing elsewhere: run a container in a mount namespace whose /run was empty")
	short := runc.Variant(q, b, "short", bundle.Args("true"))
	madeInRun := func(argv []string) []string {
		q.Helper()
		r := runc.InEmptyRun(q, append([]string{"sh", "-ec", `"$@"; ls /run`, "sh"}, argv...)...)
		assert.Assert(q, cmp.Equal(r.Code, 0), "a run in an empty /run:\n%s", r)
		return slices.DeleteFunc(strings.Fields(r.Stdout), func(name string) bool { return name == "cdb-lab" })
	}
	with := madeInRun(short.Argv("run"))
	assert.Check(q, cmp.Len(with, 0), "directories in /run, after run with --root")
	q.Fact("run with --root: made in an empty /run", with)
	q.Control("without --root, runc makes its default root in /run")
	without := madeInRun([]string{"runc", "run", "--bundle", short.Bundle.Name, short.ID})
	assert.Check(q, len(without) > 0, "run without --root makes no directory in /run")
	q.Fact("run without --root: made in an empty /run", without)

	q.Answer("An id may have ASCII letters, digits, and the characters _ + - and . It has to be the name of one directory, of 255 bytes " +
		"at most, and no other container below the same --root may have it.")
}

// invalidIDs are ids that a container may not have, and why.
var invalidIDs = []struct{ why, id string }{
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
}
