# The first program of `make shell` in the VM: creates the chapter's bundle, and starts a shell in it.
mkdir -p /run/bundle/rootfs
cd /run/bundle/rootfs && mkdir -p bin dev etc proc root run sys tmp
cp "$CDB_BUSYBOX" bin/busybox
for a in $(busybox --list); do [ -e bin/$a ] || ln -s busybox bin/$a; done
cd .. && runc spec
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"sleep", "3600"/' config.json
cat <<'TEXT'

  This is a throw-away machine. It has no network, and nothing that you do here is kept.

    runc create cdb-runc            create a container. The working directory is its bundle: config.json and rootfs
    runc state cdb-runc             then: runc start cdb-runc, runc kill cdb-runc KILL, runc delete cdb-runc
    containerd >/run/log 2>&1 &     start the daemon; then: ctr version
    exit                            end the shell and throw the machine away

TEXT
export ENV=/etc/profile
exec sh
