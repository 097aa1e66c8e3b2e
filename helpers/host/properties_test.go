package host

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestConfigProperties_OneForEachKey(t *testing.T) {
	got := configProperties([]byte(`version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
`))
	const key = ContainerdConfig + " plugins.io.containerd.grpc.v1.cri.containerd.runtimes.runc.options.SystemdCgroup"
	assert.DeepEqual(t, got, []Property{{key, "true"}, {ContainerdConfig + " version", "2"}})
	assert.Equal(t, configProperties([]byte("version = "))[0].Name, ContainerdConfig)
}

// The properties are in facts.json, which users commit.
func TestConfigProperties_HaveNoSecrets(t *testing.T) {
	for _, config := range []string{
		`[plugins."cri".registry.configs."a.example".auth]
username = "hidden"`,
		`[plugins."cri".registry.configs."a.example".auth]
password = "hidden"
auth = "hidden"
identitytoken = "hidden"`,
		`[plugins."cri".registry.headers]
Authorization = ["Basic hidden"]
X-Meta-Key = ["hidden"]`,
		`[plugins."cri".registry.mirrors."a.example"]
endpoint = ["https://user:hidden@b.example"]`,
		`[stream_processors."x"]
env = ["KEY=hidden"]`,
		`[[plugins."x".list]]
password = "hidden"`,
	} {
		got := configProperties([]byte(config))
		assert.Assert(t, len(got) > 0)
		for _, p := range got {
			assert.Check(t, cmp.Contains(p.Value, "(not recorded)"), p.Name)
			assert.Check(t, !strings.Contains(p.Value, "hidden"), p.Name)
		}
	}
	usual := configProperties([]byte("[plugins.\"x\"]\nenvironment = 1\nauthor = \"a\"\nlist = [\"https://b.example/@a\"]"))
	for _, p := range usual {
		assert.Check(t, !strings.Contains(p.Value, "(not recorded)"), p.Name)
	}
}

func TestRelevantParameters_LeavesOutWhatIsOfOneMachine(t *testing.T) {
	got := relevantParameters("BOOT_IMAGE=/vmlinuz root=UUID=1 ro systemd.unified_cgroup_hierarchy=0 quiet apparmor=1")
	assert.DeepEqual(t, got, []string{"systemd.unified_cgroup_hierarchy=0", "apparmor=1"})
}
