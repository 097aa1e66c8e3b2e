#!/bin/sh
# as-root.sh COMMAND [ARGUMENT...]: runs a command as root, with sudo if you are not root.
#
# sudo passes no variable on by itself. -E is no remedy: sudo-rs ignores it, the sudo of Ubuntu since 25.10. The sudo-rs of
# Debian 13 ignores --preserve-env=LIST as well. Every sudo can run env, so env sets the variables again.
set -eu

if [ "$(id -u)" = 0 ]; then
	exec "$@"
fi
if ! command -v sudo >/dev/null; then
	echo 'this needs root, and there is no sudo: run it as root, or run "make lab", which needs none' >&2
	exit 1
fi
# env takes a command whose path has a = for one more variable.
set -- sh -c 'exec "$@"' sh "$@"
passed='CDB_[A-Za-z0-9_]*|GO[A-Z0-9]*|TMPDIR|(http|https|no|all|HTTP|HTTPS|NO|ALL)_(proxy|PROXY)|SSL_CERT_(FILE|DIR)'
for name in $(env | sed -nE "s/^($passed)=.*/\1/p"); do
	# A value of several lines may have a line that looks like another variable, which is not set.
	eval "[ -z \"\${$name+set}\" ] || set -- \"$name=\$$name\" \"\$@\""
done
exec sudo env "$@"
