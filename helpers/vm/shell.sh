# The start of `make shell`: the chapter's bundle, and then a prompt.
mkdir -p /run/bundle/rootfs
cd /run/bundle/rootfs && mkdir -p bin dev etc proc root run sys tmp
cp "$CDB_BUSYBOX" bin/busybox
for a in $(busybox --list); do [ -e bin/$a ] || ln -s busybox bin/$a; done
cd .. && runc spec
cat <<'TEXT'

  A throw-away machine: nothing that you do here stays, nothing leads out of it.

    cd /run/bundle                  the chapter's bundle: config.json and a busybox rootfs
    runc run first                  a container of it, by hand; `exit` ends it
    containerd >/run/log 2>&1 &     the daemon; then ctr version
    exit                            throws the machine away

TEXT
export ENV=/etc/profile
exec sh
