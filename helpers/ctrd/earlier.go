//go:build linux

package ctrd

import (
	"debug/buildinfo"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"gotest.tools/v3/assert"

	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// StartEarlier starts a containerd of an earlier release for a question or a subtest, with the shim and the ctr of this release. The
// name is that of [StartNamed].
func StartEarlier(q *lab.Q, name, version string) *Daemon {
	q.Helper()
	UseEarlier(q, version)
	return StartNamed(q, name)
}

// UseEarlier has the question use the daemon, the shim and the ctr of a release: [lab.Q.Use].
func UseEarlier(q *lab.Q, version string) {
	q.Helper()
	for _, program := range q.EarlierStack("containerd", version) {
		q.Use(program)
	}
}

// ReleaseOf returns the release of a running daemon or shim, "v1.7.29", from the build information in its program file. It returns
// "unknown" for a program that has none.
func ReleaseOf(pid proc.PID) string {
	info, err := buildinfo.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}

// addressFiles are the files of a bundle in which a release of containerd writes how the shim is reached.
var addressFiles = []string{"address", "bootstrap.json"}

// AddressFiles returns those files in a bundle that say how the shim is reached: "address" of containerd 1, "bootstrap.json" of
// containerd 2. After an upgrade a bundle may have both.
func AddressFiles(q *lab.Q, bundle string) []string {
	q.Helper()
	return slices.DeleteFunc(file.Names(q, bundle), func(name string) bool { return !slices.Contains(addressFiles, name) })
}

// ReadsAddressFile reports whether the containerd that the question uses reads one of these files of a bundle. "address" is read by
// every release: containerd 2 makes the other file from it.
func ReadsAddressFile(q *lab.Q, files []string) bool {
	q.Helper()
	return slices.ContainsFunc(files, func(name string) bool {
		return name == "address" || Knows(q, "containerd", name)
	})
}

// SchemaVersion returns the version of the metadata database's schema, while no daemon runs.
func (d *Daemon) SchemaVersion() int64 {
	d.q.Helper()
	path := filepath.Join(d.Root, "io.containerd.metadata.v1.bolt/meta.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	assert.NilError(d.q, err, "open %s: the daemon has to be stopped", path)
	defer db.Close()
	version := int64(-1)
	assert.NilError(d.q, db.View(func(tx *bolt.Tx) error {
		if v1 := tx.Bucket([]byte("v1")); v1 != nil {
			version, _ = binary.Varint(v1.Get([]byte("version")))
		}
		return nil
	}))
	return version
}

// ConfigVersion returns the version of the configuration that the containerd which the question uses writes by default.
func ConfigVersion(q *lab.Q) string {
	q.Helper()
	for line := range strings.Lines(q.Must("containerd", "config", "default").Stdout) {
		if version, ok := strings.CutPrefix(strings.TrimSpace(line), "version = "); ok {
			return version
		}
	}
	q.Fatal("containerd config default prints no version")
	return ""
}
