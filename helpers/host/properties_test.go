package host

import (
	"testing"

	"gotest.tools/v3/assert"
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

func TestRelevantParameters_LeavesOutWhatIsOfOneMachine(t *testing.T) {
	got := relevantParameters("BOOT_IMAGE=/vmlinuz root=UUID=1 ro systemd.unified_cgroup_hierarchy=0 quiet apparmor=1")
	assert.DeepEqual(t, got, []string{"systemd.unified_cgroup_hierarchy=0", "apparmor=1"})
}
