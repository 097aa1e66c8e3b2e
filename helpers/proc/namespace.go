//go:build linux

package proc

// NamespaceName returns the name that /proc/PID/ns has for a type of namespace of config.json: "mnt" for "mount".
func NamespaceName(ociType string) string {
	switch ociType {
	case "mount":
		return "mnt"
	case "network":
		return "net"
	}
	return ociType
}
