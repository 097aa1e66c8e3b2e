# Waits until the machine has booted, and starts the lab's service.
set -e
# The questions compare the machine before and after, so the boot has to be over. A job that never ends must not hold it up: the
# host waits for ten minutes after a login prompt, if the machine is emulated.
if [ -d /run/systemd/system ] && command -v timeout >/dev/null; then
	timeout 540 systemctl is-system-running --wait >/dev/null 2>&1 || :
fi
exec /run/cdblab-seed/lab-init serve
