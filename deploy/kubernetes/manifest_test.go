// Package kubernetes has the manifests of a job that runs the lab in VMs, and their tests.
package kubernetes

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

var built = flag.String("manifest", "", "check this `file` as well: what kustomize build has printed")

func job(t *testing.T, text []byte) *batch.Job {
	t.Helper()
	var job batch.Job
	assert.NilError(t, yaml.UnmarshalStrict(text, &job), "the API of batch/v1 does not know this Job")
	assert.DeepEqual(t, []string{job.APIVersion, job.Kind}, []string{"batch/v1", "Job"})
	return &job
}

// A field that the API does not know would be dropped by the cluster, or refused.
func TestJob_HasFieldsThatTheAPIKnows(t *testing.T) {
	text, err := os.ReadFile("job.yaml")
	assert.NilError(t, err)
	j := job(t, text)
	assert.Equal(t, *j.Spec.CompletionMode, batch.IndexedCompletion)
	disks, err := os.ReadFile("disks.txt")
	assert.NilError(t, err)
	assert.Equal(t, int(*j.Spec.Completions), strings.Count(string(disks), "\n"), "completions, and the lines of disks.txt")
}

// README.md promises it: the lab runs in a VM, and nothing of it on the node.
func TestJob_HasNoPrivilege(t *testing.T) {
	text, err := os.ReadFile("job.yaml")
	assert.NilError(t, err)
	pod := job(t, text).Spec.Template.Spec
	assert.Check(t, !pod.HostPID && !pod.HostNetwork && !pod.HostIPC, "the pod shares a namespace with the node")
	assert.Check(t, pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken, "the pod has a token for the cluster")
	for _, v := range pod.Volumes {
		assert.Check(t, v.HostPath == nil, "the volume %s is a directory of the node", v.Name)
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		assert.Assert(t, s != nil && s.Capabilities != nil && s.AllowPrivilegeEscalation != nil && s.SeccompProfile != nil)
		assert.Check(t, s.Privileged == nil || !*s.Privileged, "the container %s is privileged", c.Name)
		assert.Check(t, !*s.AllowPrivilegeEscalation)
		assert.DeepEqual(t, s.Capabilities.Drop, []core.Capability{"ALL"})
		assert.Equal(t, len(s.Capabilities.Add), 0)
		assert.Equal(t, s.SeccompProfile.Type, core.SeccompProfileTypeRuntimeDefault)
	}
}

// make lint-deploy builds the manifest with kustomize, and gives it to this test.
func TestBuilt_IsAJobWithItsConfiguration(t *testing.T) {
	if *built == "" {
		t.Skip("there is no manifest of kustomize; make lint-deploy makes one")
	}
	text, err := os.ReadFile(*built)
	assert.NilError(t, err)
	configs, jobs := map[string]core.ConfigMap{}, []*batch.Job{}
	for _, document := range strings.Split(string(text), "\n---\n") {
		if strings.Contains(document, "\nkind: Job\n") {
			jobs = append(jobs, job(t, []byte(document)))
			continue
		}
		var config core.ConfigMap
		assert.NilError(t, yaml.UnmarshalStrict([]byte(document), &config))
		assert.Equal(t, config.Kind, "ConfigMap")
		configs[config.Name] = config
	}
	assert.Equal(t, len(jobs), 1)
	pod := jobs[0].Spec.Template.Spec
	config, ok := configs[pod.Volumes[0].ConfigMap.Name]
	assert.Assert(t, ok, "the job mounts the ConfigMap %s, which is not there", pod.Volumes[0].ConfigMap.Name)
	assert.Check(t, cmp.Contains(config.Data["run.sh"], "cdblab facts"))
	assert.Check(t, config.Data["disks.txt"] != "")
	assert.Check(t, strings.HasPrefix(pod.Containers[0].Image, "registry.example.com/"), "image %s", pod.Containers[0].Image)
}

// runScript runs run.sh with a cdblab that logs its arguments. Each of its commands ends with the exit code that the test names.
func runScript(t *testing.T, index, run, facts string) (calls string, code int) {
	t.Helper()
	dir := t.TempDir()
	program := "#!/bin/sh\necho \"$*\" >>" + dir + "/calls\ncase $1 in run) exit " + run + ";; facts) exit " + facts + ";; esac\n"
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "cdblab"), []byte(program), 0o755))
	script := exec.Command("/bin/sh", "run.sh", ".", "/disks", "/results")
	script.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "JOB_COMPLETION_INDEX="+index, "NODE_NAME=worker-3")
	out, err := script.CombinedOutput()
	t.Logf("%s%v", out, err)
	log, _ := os.ReadFile(filepath.Join(dir, "calls"))
	return string(log), script.ProcessState.ExitCode()
}

func TestScript(t *testing.T) {
	const both = "run -disk /disks/tomorrow.qcow2 -o /results\nfacts -node worker-3/tomorrow.qcow2 /results/latest\n"
	for _, row := range []struct {
		name, index, run, facts string
		calls                   string
		code                    int
	}{
		{"all answered", "1", "0", "0", both, 0},
		{"a question failed: that is a result", "1", "1", "0", both, 0},
		{"the VM failed", "1", "125", "0", both, 125},
		{"there is no result", "1", "0", "1", both, 1},
		{"more indexes than images", "2", "0", "0", "", 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			calls, code := runScript(t, row.index, row.run, row.facts)
			assert.Equal(t, calls, row.calls)
			assert.Equal(t, code, row.code)
		})
	}
}
