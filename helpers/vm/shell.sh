# The start of `make shell`: the chapter's bundle, and then a prompt.
mkdir -p /run/bundle/rootfs
cd /run/bundle/rootfs && mkdir -p bin dev etc proc root run sys tmp
cp "$CDB_BUSYBOX" bin/busybox
for a in $(busybox --list); do [ -e bin/$a ] || ln -s busybox bin/$a; done
cd .. && runc spec
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sleep", "300"/' config.json
cat <<'TEXT'

  A throw-away machine: nothing that you do here stays, nothing leads out of it.

    runc create cdb-runc            a container of the chapter's bundle, which you are in: config.json and rootfs
    runc state cdb-runc             then: runc start, runc kill cdb-runc KILL, runc delete
    containerd >/run/log 2>&1 &     the daemon; then ctr version
    exit                            throws the machine away

TEXT
export ENV=/etc/profile
exec sh
