#!/bin/sh
# Installs the programs and libraries that the lab needs beyond Go, and only the missing ones.
#
# With the argument "check" the script installs nothing. It prints which of the compiler, libseccomp, pkg-config and QEMU is missing.
#
# With apt the script installs the packages, with sudo if you are not root. With dnf, apk, pacman and zypper it prints
# the command to paste, because this script was not tried with them.
set -eu

go=${GO:-go}
if ! command -v "$go" >/dev/null; then
	echo "deps: there is no $go. Install Go $(sed -n 's/^go //p' go.mod) or later: https://go.dev/doc/install" >&2
	exit 1
fi

if [ -z "${HOME-}" ] && { [ -z "${GOCACHE-}${XDG_CACHE_HOME-}" ] || [ -z "${GOMODCACHE-}${GOPATH-}" ]; }; then
	echo 'deps: HOME is not set, and go keeps its caches below it. Set it, for example: export HOME=/root' >&2
	exit 1
fi

arch=$(uname -m)
missing=
optional=

# package MANAGER NAME: prints the packages that MANAGER has for NAME.
package() {
	case $1:$2 in
	apt:compiler) echo gcc libc6-dev ;;
	apt:seccomp) echo libc6-dev libseccomp-dev ;;
	dnf:pkg-config) echo pkgconf-pkg-config ;;
	apk:pkg-config | pacman:pkg-config) echo pkgconf ;;
	apt:busybox) echo busybox-static ;;
	apt:qemu) [ "$arch" = aarch64 ] && echo qemu-system-arm || echo qemu-system-x86 ;;
	dnf:seccomp) echo glibc-static libseccomp-devel libseccomp-static ;;
	dnf:qemu) [ "$arch" = aarch64 ] && echo qemu-system-aarch64-core || echo qemu-system-x86-core ;;
	apk:compiler) echo gcc musl-dev ;;
	apk:seccomp) echo musl-dev libseccomp-dev libseccomp-static ;;
	apk:busybox) echo busybox-static ;;
	apk:qemu) echo "qemu-system-$arch" ;;
	pacman:seccomp) echo libseccomp ;;
	pacman:qemu) [ "$arch" = aarch64 ] && echo qemu-system-aarch64 || echo qemu-system-x86 ;;
	zypper:seccomp) echo glibc-devel-static libseccomp-devel ;;
	zypper:busybox) echo busybox-static ;;
	zypper:qemu) [ "$arch" = aarch64 ] && echo qemu-arm || echo qemu-x86 ;;
	*:compiler) echo gcc ;;
	*:mkfs.erofs) echo erofs-utils ;;
	dnf:apparmor_parser | zypper:apparmor_parser) echo apparmor-parser ;;
	*:apparmor_parser) echo apparmor ;;
	apt:newuidmap | apt:newgidmap) echo uidmap ;;
	dnf:newuidmap | dnf:newgidmap) echo shadow-utils ;;
	apk:newuidmap | apk:newgidmap) echo shadow-uidmap ;;
	*:newuidmap | *:newgidmap) echo shadow ;;
	*) echo "$2" ;;
	esac
}

# need NAME TEST...: adds NAME to the missing ones if TEST fails.
need() {
	name=$1
	shift
	if ! "$@" >/dev/null 2>&1; then
		missing="$missing $name"
	fi
}

have() { command -v "$1"; }

# A program that links statically against libseccomp tests four things at once: a C compiler, a static libc,
# libseccomp's headers and its static library. `make tools` builds runc in the same way.
static_seccomp() {
	echo '#include <seccomp.h>
int main(void) { return seccomp_version() == 0; }' | cc -static -x c - -lseccomp -o /dev/null
}

need compiler have cc
need seccomp static_seccomp
need pkg-config have pkg-config # by which cgo finds libseccomp
case $arch in
aarch64) need qemu have qemu-system-aarch64 ;;
*) need qemu have qemu-system-x86_64 ;;
esac

if [ "${1-}" = check ]; then
	for n in $missing; do echo "$n"; done
	exit 0
fi

# sudo for the commands that need it.
if [ "$(id -u)" = 0 ]; then sudo=; else sudo='sudo '; fi

# With these options apt ends with an error, after minutes at most, where a mirror does not answer or another apt holds the lock.
# apt-get update counts a list that it could not fetch as an error only with Error-Mode=any.
limits='-o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=300'
limits="$limits -o APT::Update::Error-Mode=any"

# fresh_lists fetches apt's package lists if there are none (as in a container image), or if they are old. Without them apt
# offers no optional program, and a first run would ask less than a second one. Old lists are fetched once a week at most:
# the stamp is also written when apt-get update fails, for example offline. For optional programs alone, sudo may not ask
# for a password.
fresh_lists() {
	stamp=.lab/apt-lists
	lists=/var/lib/apt/lists
	eval "$(apt-config shell lists Dir::State::Lists/d 2>/dev/null)"
	if ls "$lists" 2>/dev/null | grep -q _Packages; then
		if [ -n "$(find "$lists" $stamp -maxdepth 0 -mtime -7 2>/dev/null)" ]; then return; fi
	fi
	update="${sudo}apt-get $limits update -q"
	if [ -n "$sudo" ] && [ -z "$missing" ] && ! echo "$programs" | grep -qv '^optional '; then
		update="sudo -n apt-get $limits update -q"
	fi
	echo "+ $update"
	# shellcheck disable=SC2086 # the command must be split into words
	$update </dev/null || echo "deps: apt-get update failed; using the package lists that are there" >&2
	{ mkdir -p .lab && touch $stamp; } || true
}

# helpers/tools has the table of the programs that the tests use. `lab deps` prints the missing ones, for example
# "required busybox" or "optional crun". An optional program is installed only if apt has a package of it, and if sudo asks for no
# password; without the program, a part of a question is skipped. The flags are those of the Makefile, so that both share one build.
programs=$(CGO_ENABLED=0 "$go" run -trimpath ./cmd/lab deps)
if [ -n "$missing$programs" ] && command -v apt-get >/dev/null; then
	fresh_lists
fi
while read -r level name; do
	case $level in
	'') ;;
	optional)
		if apt-cache show "$(package apt "$name")" >/dev/null 2>&1; then
			optional="$optional $name"
		fi
		;;
	*) missing="$missing $name" ;;
	esac
done <<EOT
$programs
EOT

if [ -z "$missing$optional" ]; then
	echo "deps: nothing is missing"
	exit 0
fi
echo "deps: missing:$missing$optional"

# packages MANAGER NAME...: prints the packages that MANAGER has for the names.
packages() {
	of=$1
	shift
	for n in "$@"; do package "$of" "$n"; done | tr ' ' '\n' | sort -u | tr '\n' ' '
}

for manager in apt-get dnf apk pacman zypper; do
	command -v $manager >/dev/null || continue
	case $manager in
	apt-get)
		install="env DEBIAN_FRONTEND=noninteractive apt-get $limits install -y -q --no-install-recommends"
		if [ -n "$missing" ]; then
			list=$(packages apt $missing)
			echo "+ ${sudo}apt-get install -y --no-install-recommends $list"
			# If the package lists have become old within the week, the first try fails.
			# shellcheck disable=SC2086 # the commands must be split into words
			${sudo}$install $list </dev/null || { ${sudo}apt-get $limits update -q </dev/null && ${sudo}$install $list </dev/null; } || {
				echo "deps: apt-get could not install $list
  If a mirror did not answer: check the network, the proxy, and the mirrors in /etc/apt, and run this again.
  If another apt holds the lock: wait until it has ended, and run this again.
  Or install the packages yourself: this installs nothing that is already there." >&2
				exit 1
			}
		fi
		if [ -n "$optional" ]; then
			list=$(packages apt $optional)
			how="${sudo}apt-get install -y --no-install-recommends $list"
			echo "+ $how"
			# shellcheck disable=SC2086 # the command must be split into words
			${sudo:+sudo -n }$install $list </dev/null ||
				echo "deps: not installed, and the questions that need it are skipped: $list
  To install it: $how" >&2
		fi
		exit 0
		;;
	dnf) how="dnf install -y" ;;
	apk) how="apk add" ;;
	pacman) how="pacman -S --needed" ;;
	zypper) how="zypper install -y" ;;
	esac
	echo "deps: please run: $sudo$how $(packages $manager $missing)" >&2
	exit 1
done
echo "deps: this script does not know the package manager of this machine. Please install:$missing" >&2
exit 1
