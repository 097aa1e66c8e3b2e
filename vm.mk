# The targets of the throw-away VM. The Makefile includes this file.

# The settings of the VM, on make's command line: KERNEL=6.12 CGROUP=v1 MEM=4096 CPUS=1 ACCEL=tcg. The defaults are the
# distribution's kernel, v2, 2048 MiB, two CPUs, and KVM if a probe boot shows that it works. On a busy host, CPUS=1 is
# faster under emulation.
VM_SETTINGS := KERNEL CGROUP MEM CPUS ACCEL DISK FIRMWARE USER_DATA DISK_PINNED
VM := $(foreach v,$(VM_SETTINGS),$(if $(value $(v)),CDB_$(v)=$(call q,$(v))))
# CGROUP=$C is empty in a script that does not set C, and the run would be of the default.
without_value := $(strip $(foreach v,$(VM_SETTINGS),$(if $(value $v),,$(if $(filter command,$(firstword $(origin $v))),$v=))))
ifneq ($(without_value),)
$(error $(without_value) has no value: name one, or leave it out)
endif

# DISK=node.qcow2 boots a disk image instead, with its own kernel and init; nothing is written to it. The questions come as the
# tarball, and are asked about the programs of the disk, or with DISK_PINNED=1 about those of go.mod. FIRMWARE=bios or uefi chooses what
# boots it, if it boots both ways. USER_DATA=file is for its cloud-init.
ifneq ($(and $(value DISK),$(value ARTIFACTS)),)
$(error ARTIFACTS= cannot be combined with DISK=: the transcripts are in .lab/results/latest/transcripts)
endif
DISK      ?=
FIRMWARE  ?=
USER_DATA ?=
DISK_PINNED ?=
TARBALL   := .lab/dist/cdblab-linux-$(shell $(GO) env GOARCH).tar.gz

# Phony, so always built: go's cache knows better than make whether the program is up to date.
.PHONY: $(BIN)/lab
$(BIN)/lab:
	@CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/lab

# Before the tarball is made, which takes minutes.
.PHONY: image
image:
	@test -e $(call q,DISK) || { echo DISK=$(call q,DISK)': there is no such file' >&2; exit 1; }

# go test runs the wrapper in the directory of the package. The path is relative, because -exec can't quote all characters
# that the directory of the checkout may have.
.PHONY: lab
lab: $(if $(value STEP),terminal) $(if $(value DISK),image) deps $(if $(value DISK),dist,tools earlier) $(BIN)/lab ## run the questions in a throw-away VM; needs no root and no KVM
ifneq ($(value DISK),)
	@test2json=$$($(GO) tool -n test2json) && $(VM) CDB_TARBALL=$(TARBALL) $(BIN)/lab disk -test2json "$$test2json" $(RUN) \
		$(if $(filter-out 0,$(value V)),-v) $(if $(value JUNIT),-junit $(call q,JUNIT))
else
	@$(VM) $(TEST) -exec '$(BIN)/lab exec' $(FLAGS) .
endif

.PHONY: shell
shell: $(if $(value DISK),image) deps $(if $(value DISK),dist,tools) $(BIN)/lab ## run a shell in a throw-away VM that has the tools and the chapter's bundle
	@$(VM) $(if $(value DISK),CDB_TARBALL=$(TARBALL)) $(BIN)/lab shell

# SUITE=trixie CGROUP=v1 SYSTEMD_CGROUP=1 are variants; the defaults are bookworm, v2, and runc's own cgroups. MIRROR= is the address of
# Debian's archive, where this machine's apt has none. Standard output is only the path of the image: DISK="$$(make -s disk)"
NODE = $(BIN)/lab node $(foreach v,SUITE CGROUP SYSTEMD_CGROUP MIRROR,$(if $(value $(v)),$(v)=$(call q,$(v))))
.PHONY: disk
disk: $(BIN)/lab ## make a bootable disk image of a node from Debian's packages: SUITE=trixie CGROUP=v1 SYSTEMD_CGROUP=1
	@$(NODE)

.PHONY: test-disk
test-disk: deps dist $(BIN)/lab ## boot the image of make disk with UEFI and BIOS, and let it fail in each way; needs the package ovmf
	image=$$($(NODE)) && $(GO) test -tags vmtest -count=1 -timeout 200m -v $(RUN) ./helpers/node -image "$$image" && \
		CDB_TEST_DISK="$$image" CDB_TEST_TARBALL=$(call q,CURDIR)/$(TARBALL) \
		$(GO) test -tags vmtest -count=1 -timeout 200m -v -run TestDisk ./helpers/vm

.PHONY: test-vm
test-vm: deps tools ## test the VM itself: honest exit codes, bad input (takes minutes)
	$(VM) $(GO) test -tags vmtest -count=1 -timeout 60m -v $(RUN) ./helpers/vm

.PHONY: bench-vm
bench-vm: deps tools ## measure the start of a run in the VM against the shortest boot, as a ratio
	$(VM) $(GO) test -tags vmtest -count=1 -timeout 60m -run '^$$' -bench Boot -benchtime 7x ./helpers/vm

# The number of boots, and of processes that keep a CPU busy: make soak-vm BOOTS=100 HOGS=2
BOOTS ?= 100
HOGS  ?= 2
.PHONY: soak-vm
soak-vm: deps tools ## boot the VM 100 times in a row beside two busy processes
	$(VM) CDB_BOOTS=$(BOOTS) CDB_HOGS=$(HOGS) $(GO) test -tags vmtest -count=1 -timeout 120m -v -run TestSoak ./helpers/vm
