# The throw-away VM, included by the Makefile.

# What the VM is made of, each a word on make's command line: KERNEL=6.12 CGROUP=v1 MEM=1024 CPUS=1 ACCEL=tcg
VM := $(foreach v,KERNEL CGROUP MEM CPUS ACCEL,$(if $($(v)),CDB_$(v)='$($(v))'))

.PHONY: $(BIN)/lab
$(BIN)/lab:
	@$(GO) build -o $@ ./cmd/lab

.PHONY: lab
lab: deps tools $(BIN)/lab ## ask the questions in a VM that is thrown away: no root, no KVM needed
	$(results)
	$(VM) $(TEST) -exec "'$(CURDIR)/$(BIN)/lab' exec" $(FLAGS) .

.PHONY: shell
shell: deps tools $(BIN)/lab ## a prompt in such a VM, with the tools and the chapter's bundle
	@$(VM) $(BIN)/lab shell

.PHONY: test-vm
test-vm: deps tools ## test the VM itself: that its verdict is honest, and bad input
	$(VM) $(GO) test -tags vmtest -count=1 -timeout 60m -v $(RUN) ./helpers/vm

.PHONY: bench-vm
bench-vm: deps tools ## what the way into the VM costs over the barest boot, as a ratio
	$(VM) $(GO) test -tags vmtest -count=1 -timeout 30m -run '^$$' -bench . -benchtime 5x ./helpers/vm
