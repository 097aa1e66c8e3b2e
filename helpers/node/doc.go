// Package node makes the disk image of a node from Debian's packages: systemd, AppArmor, containerd, runc and cloud-init, as a
// distribution brings them. `make lab DISK=image` is tried with it.
//
// It needs no root, no mount and no loop device: mmdebstrap installs the packages in a user namespace, and all else is written
// into files.
//
//	variant.go   the variants: suite, cgroup version, the cgroup driver of runc
//	archive.go   Debian's archive, by apt: where it is, and which packages it would install
//	recipe.go    what goes into an image, and the key of that
//	recipe/      the scripts that configure the node and make its root filesystem
//	build.go     the steps: packages, root filesystem, partitions, image
//	grub.go      the boot sectors with which a BIOS starts GRUB
//	programs.go  the programs that the steps need, and the packages that have them
//	command.go   runs a program: its output, its end
//	store.go     the directory .lab/disk: images by key, and the lock
//	record.go    what is known of an image
//	sweep.go     removes what was not used for a month
package node
