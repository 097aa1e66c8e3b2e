# Makes the root filesystem of the node in disk.raw, from mmdebstrap's root.tar, and copies the boot loaders out of it. It runs as
# root, or in a user namespace whose root you are. Device nodes cannot be made there, and devtmpfs has them at boot.
set -eu
mkdir tree
tar --extract --file root.tar --directory tree --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*'
rm root.tar
# Each boot is a new machine, because the lab writes nothing to the image. An empty file says: make an id. The word
# "uninitialized" would let systemd set up all units again at each boot.
: >tree/etc/machine-id
cp tree/boot/grub/core.img tree/boot/grub/boot.img tree/boot/grub/bootx64.efi .
# All features are named: an older kernel, fsck or GRUB does not know what a newer mkfs.ext4 has by default.
features=none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file
features=$features,huge_file,dir_nlink,extra_isize,metadata_csum
mkfs.ext4 -q -F -L "$NODE_LABEL" -m 1 -O "$features" -d tree -E "offset=$NODE_ROOT_OFFSET,nodiscard" \
	disk.raw "$NODE_ROOT_SIZE"
rm -r tree
