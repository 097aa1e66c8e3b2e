//go:build linux && vmlab

package cdblab

import "cdblab/helpers/lab"

// maySkip lists what a run with CDB_REQUIRE=all may skip, because a machine of CI cannot show it.
var maySkip = []lab.MaySkip{
	{Test: "TestBundle_CanRuncRunContainerdsBundleByItself/crun", Reason: "crun does not support hybrid cgroups"},
	{Test: "TestBundle_WhatDoesAnAppArmorProfileRefuse", Reason: "the kernel has no AppArmor; the VM has it"},
	{Test: "TestBundle_DoesTheFilterSeeCallsOfAnotherArchitecture(/i386)?", Reason: "needs amd64, and a kernel that runs 32-bit programs"},
	{Test: "TestBundle_WhoOwnsTheFilesOfAnIDMappedMount", Reason: "a tmpfs has id-mapped mounts since Linux 6.3; the VM has 6.1"},
	{Test: "TestBundle_WhichSchedulerRunsTheProgram/(fifo|rr|deadline)", Reason: "with RT_GROUP_SCHED, a cgroup has no realtime by default"},
	{Test: "Test(Task|Lifecycle)_.*(Systemd|ContainerdsUnit).*", Reason: "process 1 is not systemd: make lab DISK=image.qcow2 boots one"},
	{Test: "TestLifecycle_CanItBeFrozenToDiskAndThawed", Reason: "CRIU needs CONFIG_CHECKPOINT_RESTORE and more of the kernel"},
}
