#!/bin/sh
# cloud-init runs this script in a throw-away VM of the lab. It is on no disk of the image.
set -e
d=/run/cdblab-seed
mkdir -p $d
mountpoint -q $d || mount -t iso9660 -o ro,exec /dev/disk/by-id/virtio-cdblab $d || mount -t iso9660 -o ro,exec LABEL=cidata $d
if [ -d /run/systemd/system ]; then
	# systemd may have got the service from the machine's SMBIOS already.
	systemctl cat cdblab.service >/dev/null 2>&1 || { cp $d/cdblab.service /run/systemd/system/ && systemctl daemon-reload; }
	systemctl start --no-block cdblab.service
else
	setsid /bin/sh $d/start.sh >/dev/console 2>&1 </dev/null &
fi
