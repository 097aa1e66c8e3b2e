# mmdebstrap runs this script when the essential packages are installed. $1 is the root directory of the node.
set -eu

# The default level of compression is the slowest one.
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'COMPRESS=zstd\nCOMPRESSLEVEL=3\n' >"$1/etc/initramfs-tools/conf.d/node"
