//go:build linux

package runc

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"gotest.tools/v3/assert"

	"cdblab/helpers/lab"
)

// Features returns what `runc features` prints: what the runtime under test knows of config.json
// (https://github.com/opencontainers/runtime-spec/blob/main/features.md). Each runc since 1.1.0 has the command. Another runtime
// may lack it: its features are empty.
func Features(q *lab.Q) features.Features {
	q.Helper()
	out, err := lab.Output(q.UnderTest("runc").Path, "features")
	if !IsRunc(q) && err != nil {
		return features.Features{}
	}
	assert.NilError(q, err, "runc features")
	var f features.Features
	assert.NilError(q, json.Unmarshal(out, &f), "runc features printed: %.400s", out)
	return f
}

// KnowsIDMappedMounts reports whether the runtime knows mounts[].uidMappings and gidMappings.
func KnowsIDMappedMounts(q *lab.Q) bool {
	q.Helper()
	f := Features(q)
	known := f.Linux != nil && f.Linux.MountExtensions != nil && f.Linux.MountExtensions.IDMap != nil
	return known && f.Linux.MountExtensions.IDMap.Enabled != nil && *f.Linux.MountExtensions.IDMap.Enabled
}
