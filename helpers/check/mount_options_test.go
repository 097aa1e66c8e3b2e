//go:build linux

package check

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestMountFlags_AreThoseOfMountinfo(t *testing.T) {
	for options, want := range map[string]string{
		"":                               "relatime rw",
		"rbind,rslave":                   "relatime rw",
		"nosuid,strictatime,mode=755":    "nosuid rw",
		"nosuid,noexec,nodev,ro":         "nodev noexec nosuid relatime ro",
		"ro,rw":                          "relatime rw",
		"noatime,nodiratime":             "noatime nodiratime rw",
		"strictatime,relatime":           "relatime rw",
		"rw,relatime,nosuid,nosymfollow": "nosuid nosymfollow relatime rw",
	} {
		assert.Check(t, cmp.Equal(strings.Join(MountFlags(strings.Split(options, ",")...), " "), want), "%q", options)
	}
	assert.Check(t, cmp.DeepEqual(FileSystemOptions([]string{"nosuid", "mode=0620", "gid=5", "size=64k"}),
		[]string{"mode=620", "gid=5", "size=64k"}))
}
