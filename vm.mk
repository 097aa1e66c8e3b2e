# The throw-away VM. Included by the Makefile.

# What the VM is to be: make lab KERNEL=6.12 CGROUP=v1. Empty is the default: the distribution's kernel, v2, 512 MiB,
# KVM where a probe boot shows that it works, two CPUs there and one under emulation.
KERNEL ?=
CGROUP ?=
MEM    ?=
CPUS   ?=
ACCEL  ?=
VM_ENV := $(if $(KERNEL),CDB_KERNEL='$(KERNEL)') $(if $(CGROUP),CDB_CGROUP='$(CGROUP)') $(if $(MEM),CDB_MEM='$(MEM)') \
	$(if $(CPUS),CDB_CPUS='$(CPUS)') $(if $(ACCEL),CDB_ACCEL='$(ACCEL)')
LAB := $(CURDIR)/.lab/bin/lab

# Further flags of go test's own: make lab FLAGS='-json -artifacts -outputdir out'
FLAGS ?=

# Always asked to build: go's cache knows better than make whether there is anything to do.
.PHONY: lab-tool
lab-tool:
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(LAB) ./cmd/lab

.PHONY: lab
lab: deps tools lab-tool ## ask the questions in a throw-away VM; no root, no KVM needed
	$(VM_ENV) $(GO) test -exec '$(LAB) exec' -tags vmlab -count=1 -v $(RUN) $(FLAGS) .

# What CI keeps of a run, below .lab/report: the stream of go test -json, JUnit made of it, the questions' artifacts. It
# fails when no question was asked: gotestsum alone is content with nothing.
REPORT := $(CURDIR)/.lab/report
.PHONY: lab-report
lab-report: deps tools lab-tool ## make lab, and JUnit, JSON and artifacts of it in .lab/report
	@rm -rf $(REPORT) && mkdir -p $(REPORT)
	$(VM_ENV) $(GO) run gotest.tools/gotestsum@v1.13.0 --format testname --jsonfile $(REPORT)/lab.json --junitfile $(REPORT)/junit.xml -- \
		-exec '$(LAB) exec' -tags vmlab -count=1 $(RUN) -artifacts -outputdir $(REPORT) $(FLAGS) .
	@grep -q '"Action":"pass".*"Test":"Test' $(REPORT)/lab.json || { echo "lab-report: no question was answered" >&2; exit 1; }

.PHONY: shell
shell: deps tools lab-tool ## a prompt in the same VM, with the tools and the chapter's bundle
	@$(VM_ENV) $(LAB) shell

.PHONY: test-vm
test-vm: deps tools ## test the VM itself: verdicts, kernels, cgroup modes, signals, bad input (minutes)
	$(VM_ENV) $(GO) test -tags vmtest -count=1 -timeout 60m $(RUN) ./helpers/vm

.PHONY: bench-vm
bench-vm: deps tools ## what the VM costs over the least that QEMU and the kernel can do, as a ratio
	$(VM_ENV) $(GO) test -tags vmtest -count=1 -timeout 60m -run '^$$' -bench Boot -benchtime 7x ./helpers/vm

# How often, and with how much company: make soak-vm BOOTS=100 HOGS=2
BOOTS ?= 100
HOGS  ?= 2
.PHONY: soak-vm
soak-vm: deps tools ## boot the VM 100 times in a row beside two CPU hogs
	$(VM_ENV) CDB_BOOTS=$(BOOTS) CDB_HOGS=$(HOGS) $(GO) test -tags vmtest -count=1 -timeout 120m -v -run TestSoak ./helpers/vm
