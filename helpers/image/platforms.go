//go:build linux

package image

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"cdblab/helpers/rootfs"
)

// Platforms is the name of an image for two platforms. The image for this machine is the lab's image. The one for [Foreign] has the
// layers of [Layered], so the two have their first layer in common, and both have programs for this machine.
const Platforms = "docker.io/library/busybox:platforms"

// Foreign is the second platform of [Platforms], on which the lab does not run.
const Foreign = "linux/s390x"

// PlatformsIndex returns the image [Platforms], as [Index] returns the lab's image.
func PlatformsIndex(fs *rootfs.FS) (v1.ImageIndex, error) {
	first, second, err := layers(fs)
	if err != nil {
		return nil, err
	}
	index, err := addImage(emptyIndex(), native(), first)
	if err != nil {
		return nil, err
	}
	return addImage(index, v1.Platform{OS: "linux", Architecture: "s390x"}, first, second)
}
