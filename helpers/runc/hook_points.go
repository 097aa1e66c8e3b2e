//go:build linux

package runc

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// HookPoint is a point of the lifecycle at which hooks run.
type HookPoint struct {
	Field    string // of config.json
	Of       func(*specs.Hooks) *[]specs.Hook
	InRootfs bool // its / is the container's: it runs after pivot_root
}

// HookPoints has one row for each field of hooks, in the order of the specification's lifecycle.
var HookPoints = []HookPoint{
	//lint:ignore SA1019 it is deprecated, but runtimes still run it
	{"hooks.prestart[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Prestart }, false},
	{"hooks.createRuntime[]", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateRuntime }, false},
	{"hooks.createContainer[]", func(h *specs.Hooks) *[]specs.Hook { return &h.CreateContainer }, false},
	{"hooks.startContainer[]", func(h *specs.Hooks) *[]specs.Hook { return &h.StartContainer }, true},
	{"hooks.poststart[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststart }, false},
	{"hooks.poststop[]", func(h *specs.Hooks) *[]specs.Hook { return &h.Poststop }, false},
}

// Name returns the name of the field in lower case, for a container's name.
func (p HookPoint) Name() string {
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(p.Field, "hooks."), "[]"))
}

// Dir returns the directory dir of a [HookLog] by the path that a hook at this point sees.
func (p HookPoint) Dir(dir string) string {
	if p.InRootfs {
		return HookDir
	}
	return dir
}

// HookReport is what a hook saw.
type HookReport struct {
	Cwd, UID   string
	Root       string            // "container" if its / has the file /in-rootfs, otherwise "host"
	Env        []string          // without what a shell sets by itself
	Namespaces map[string]string // type → link of /proc/self/ns
	State      specs.State       // the state document that it read from stdin
}

// hookScript writes a [HookReport] into the files $2 and $2.json of the directory $1. It adds $2 to the log of the hooks, and exits
// with the code $3.
const hookScript = `dir=$1 name=$2 code=$3
write_report() {
	echo "cwd=$(pwd)"
	echo "uid=$(id -u)"
	for n in cgroup ipc mnt net pid uts; do echo "ns.$n=$(readlink /proc/self/ns/$n)"; done
	if [ -e /in-rootfs ]; then echo root=container; else echo root=host; fi
	env | sed s/^/env./
}
write_report > $dir/$name
cat > $dir/$name.json
echo $name >> $dir/order
exit $code`

// ReportingHook returns a hook with this name that writes a [HookReport] and exits with the code.
func ReportingHook(p HookPoint, dir, name, code string) specs.Hook {
	return specs.Hook{
		Path: "/bin/sh", Args: []string{"sh", "-c", hookScript, "sh", p.Dir(dir), name, code}, Env: HookEnv(name),
	}
}

// HookEnv returns the environment of the [ReportingHook] with this name.
func HookEnv(name string) []string { return []string{"PATH=/bin:/usr/bin", "WITNESS=" + name} }

// Report reads what the hook with this name saw.
func (l HookLog) Report(name string) HookReport {
	l.q.Helper()
	report := HookReport{Namespaces: map[string]string{}}
	for line := range strings.Lines(file.Read(l.q, filepath.Join(l.Dir, name))) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch kind, rest, _ := strings.Cut(key, "."); {
		case key == "cwd":
			report.Cwd = value
		case key == "uid":
			report.UID = value
		case key == "root":
			report.Root = value
		case kind == "ns":
			report.Namespaces[rest] = value
		case kind == "env" && !slices.Contains([]string{"PWD", "OLDPWD", "SHLVL", "_", host.OwnerEnv}, rest):
			report.Env = append(report.Env, rest+"="+value)
		}
	}
	slices.Sort(report.Env)
	document := file.Read(l.q, filepath.Join(l.Dir, name+".json"))
	assert.NilError(l.q, json.Unmarshal([]byte(document), &report.State), "the stdin of the hook %s: %q", name, document)
	return report
}

// RunUntilHookFails takes a container from create to delete, until an operation fails because of its hooks at this point. It
// returns this operation and its result.
//
// A startContainer hook takes the place of the program. Start may return before such a hook has failed, so its exit code may be
// 0. RunUntilHookFails waits until the container is stopped then. The caller deletes it.
func (c *Container) RunUntilHookFails(point HookPoint) (operation string, result lab.Result) {
	c.q.Helper()
	if result = c.Try("create"); result.Code != 0 {
		return "create", result
	}
	p := c.Process()
	result = c.Try("start")
	if point.Field == "hooks.startContainer[]" {
		proc.WaitFor(c.q, proc.Dead(p.Identity))
		assert.Check(c.q, cmp.Equal(c.State().Status, specs.StateStopped), "status after the failure of %s", point.Field)
	}
	if point.Field == "hooks.startContainer[]" || result.Code != 0 {
		return "start", result
	}
	proc.WaitFor(c.q, proc.Runs(p.PID, "sleep"))
	c.Kill("KILL")
	proc.WaitFor(c.q, proc.Dead(p.Identity))
	return "delete", c.TryDelete()
}
