# mmdebstrap runs this script when all packages are installed. $1 is the root directory of the node.
# NODE_LABEL is the label of its root filesystem, NODE_KERNEL_WORDS is the end of its kernel's command line, and
# NODE_SYSTEMD_CGROUP=true lets runc ask systemd for each cgroup.
set -eu
root=$1

echo node >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 node\n::1 localhost\n' >"$root/etc/hosts"
printf 'LABEL=%s / ext4 errors=remount-ro 0 1\n' "$NODE_LABEL" >"$root/etc/fstab"

# cloud-init asks no network for a datasource. It makes no locale, and one key of sshd instead of four, with which it would be busy.
mkdir -p "$root/etc/cloud/cloud.cfg.d"
cat >"$root/etc/cloud/cloud.cfg.d/95-node.cfg" <<'YAML'
datasource_list: [NoCloud, None]
locale: C.UTF-8
ssh_genkeytypes: [ed25519]
YAML

# At the first boot apt would look for packages, without a network, while questions are asked.
for timer in apt-daily apt-daily-upgrade; do
	ln -sf /dev/null "$root/etc/systemd/system/$timer.timer"
done

# containerd has the snapshotter erofs if the kernel knows erofs when the daemon starts. The daemon does not load the module.
if find "$root/lib/modules/" -name 'erofs.ko*' | grep -q .; then
	mkdir -p "$root/etc/modules-load.d"
	echo erofs >"$root/etc/modules-load.d/erofs.conf"
fi

# Version 2 of the file has this place for the options of runc. containerd 2 reads version 2, too.
if [ "$NODE_SYSTEMD_CGROUP" = true ]; then
	config=$root/etc/containerd/config.toml
	mkdir -p "$root/etc/containerd"
	grep -qs '^version = 2' "$config" || echo 'version = 2' >"$config"
	cat >>"$config" <<'TOML'

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
TOML
fi

# GRUB finds the root filesystem by its label, for UEFI and for BIOS. The kernel's package keeps the links /vmlinuz and
# /initrd.img. The loaders are made here, because the suite's own GRUB is here.
# no_timer_check: under emulation on a busy machine the timer may be late, and then the kernel takes it for broken, and panics.
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/find.cfg" <<GRUB
search --no-floppy --label $NODE_LABEL --set=root
set prefix=(\$root)/boot/grub
configfile (\$root)/boot/grub/grub.cfg
GRUB
cat >"$root/boot/grub/grub.cfg" <<GRUB
set timeout=0
menuentry node {
	linux /vmlinuz root=LABEL=$NODE_LABEL ro console=tty0 console=ttyS0,115200 no_timer_check $NODE_KERNEL_WORDS
	initrd /initrd.img
}
GRUB
loader() {
	chroot "$root" grub-mkimage -O "$1" -o "/boot/grub/$2" -c /boot/grub/find.cfg -p /boot/grub \
		part_gpt ext2 search search_label configfile normal linux boot $3
}
loader i386-pc core.img biosdisk
loader x86_64-efi bootx64.efi ''
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/grub/boot.img"

# These were mmdebstrap's settings of apt, for this installation only.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"

# Documentation is a fifth of all files. The licences stay.
rm -rf "$root/usr/share/man" "$root/usr/share/info"
find "$root/usr/share/doc" ! -type d ! -name copyright -delete
