# The throw-away VM, included by the Makefile.

# What the VM is made of, each a word on make's command line: KERNEL=6.12 CGROUP=v1 MEM=1024 CPUS=1 ACCEL=tcg. Else it is
# the distribution's kernel, v2, 512 MiB, KVM where a probe boot shows that it works, and two CPUs; where the host is
# busy, CPUS=1 is quicker under emulation.
VM := $(foreach v,KERNEL CGROUP MEM CPUS ACCEL,$(if $($(v)),CDB_$(v)='$($(v))'))

# Always asked to build: go's cache knows better than make whether there is anything to do.
.PHONY: $(BIN)/lab
$(BIN)/lab:
	@CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./cmd/lab

.PHONY: lab
lab: deps tools $(BIN)/lab ## ask the questions in a VM that is thrown away: no root, no KVM needed
	$(results)
	$(VM) $(TEST) -exec "'$(CURDIR)/$(BIN)/lab' exec" $(FLAGS) .

.PHONY: shell
shell: deps tools $(BIN)/lab ## a prompt in such a VM, with the tools and the chapter's bundle
	@$(VM) $(BIN)/lab shell

.PHONY: test-vm
test-vm: deps tools ## test the VM itself: that its verdict is honest, and bad input (minutes)
	$(VM) $(GO) test -tags vmtest -count=1 -timeout 60m -v $(RUN) ./helpers/vm

.PHONY: bench-vm
bench-vm: deps tools ## what the way into the VM costs over the barest boot, as a ratio
	$(VM) $(GO) test -tags vmtest -count=1 -timeout 60m -run '^$$' -bench Boot -benchtime 7x ./helpers/vm

# How often, and in how much company: make soak-vm BOOTS=100 HOGS=2
BOOTS ?= 100
HOGS  ?= 2
.PHONY: soak-vm
soak-vm: deps tools ## boot the VM 100 times in a row beside two CPU hogs
	$(VM) CDB_BOOTS=$(BOOTS) CDB_HOGS=$(HOGS) $(GO) test -tags vmtest -count=1 -timeout 120m -v -run TestSoak ./helpers/vm
