# Waits until the machine has booted, and starts the lab's service.
set -e
# The questions compare the machine before and after, so the boot has to be over. A job that never ends must not hold it up: this
# number of seconds is less than the time for which the host waits after a login prompt.
limit=@LIMIT@
if [ -d /run/systemd/system ] && command -v timeout >/dev/null; then
	timeout $limit systemctl is-system-running --wait >/dev/null 2>&1 || [ $? != 124 ] || # 124: of timeout
		export LAB_NOTE="the boot was not over after $limit s, and the questions did not wait longer (systemctl list-jobs tells what runs)"
fi
exec /run/cdblab-seed/lab-init serve
