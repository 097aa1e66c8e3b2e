# mmdebstrap runs this script when the essential packages are installed. $1 is the root directory of the node, and NODE_LABEL is the
# label of its root filesystem.
set -eu

# The initrd is made with the programs that check the filesystems of this file.
printf 'LABEL=%s / ext4 errors=remount-ro 0 1\n' "$NODE_LABEL" >"$1/etc/fstab"

# The default level of compression is the slowest one.
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'COMPRESS=zstd\nCOMPRESSLEVEL=3\n' >"$1/etc/initramfs-tools/conf.d/node"
