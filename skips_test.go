//go:build linux && vmlab

package cdblab

import "cdblab/helpers/lab"

// maySkip lists what a run with CDB_REQUIRE=all may skip, because a machine of CI cannot show it. A program that make deps installs is
// not among the reasons.
var maySkip = []lab.MaySkip{
	{
		Test: "TestBundle_CanRuncRunContainerdsBundleByItself/crun", Says: "crun cannot run here: .*hybrid",
		Reason: "crun does not support hybrid cgroups",
	},
	{
		Test:   "TestBundle_WhatDoesAnAppArmorProfileRefuse|TestTask_WhichAppArmorProfileDoesCtrGiveATask",
		Says:   "this kernel has no AppArmor, or it is off",
		Reason: "the kernel has no AppArmor; the VM has it",
	},
	{
		Test:   "TestBundle_DoesTheFilterSeeCallsOfAnotherArchitecture(/i386)?",
		Says:   "the question's program is for amd64|a program cannot enter this kernel by int 0x80",
		Reason: "needs amd64, and a kernel that runs 32-bit programs",
	},
	{
		Test: "TestBundle_OnWhichCPUsDoesAnExecutedProgramRun", Says: "one CPU",
		Reason: "one CPU, as in an emulated VM that boots a disk image",
	},
	{
		// The skip of the question itself says only that each subtest was skipped. A subtest whose release is missing is not listed.
		Test:   "TestTask_(WhatHappensToRunningTasksWhenContainerdIsUpgraded|CanContainerdBeDowngraded)(/.*)?",
		Says:   "the containerd under test is older than|there is no earlier release to (upgrade from|downgrade to)",
		Reason: "the containerd under test is older than the releases of helpers/tools/earlier.go",
	},
	{
		Test:   "TestBundle_WhatHappensAtALimit/many-mounts|TestBundle_DoesTheMappingOfAMountReachTheMountsBelow",
		Says:   "a tmpfs of this kernel has no id-mapped mounts, nor has an erofs",
		Reason: "an erofs has id-mapped mounts since Linux 5.19, and needs a loop device; the VM has both",
	},
	{
		Test: "TestBundle_WhoOwnsTheFilesOfAnIDMappedMount", Says: "a tmpfs of this kernel has no id-mapped mounts",
		Reason: "a tmpfs has id-mapped mounts since Linux 6.3; the VM has 6.1",
	},
	{
		Test: "TestBundle_WhichSchedulerRunsTheProgram/(fifo|rr|deadline)", Says: "this kernel gives no process of such a cgroup the policy",
		Reason: "with RT_GROUP_SCHED, a cgroup has no realtime by default",
	},
	{
		Test: "TestTask_WhatDoesConfigTOMLDecideForAPod", Says: "this containerd has no CRI plugin",
		Reason: "the pinned containerd is built without the CRI plugin; that of a disk image has it",
	},
	{
		Test: "Test(Task|Lifecycle)_.*(Systemd|ContainerdsUnit).*", Says: "process 1 is not systemd here",
		Reason: "process 1 is not systemd: make lab DISK=image.qcow2 boots one",
	},
	{
		Test: "TestLifecycle_WhatDoesRuncFeaturesPromise/systemd", Says: "process 1 is systemd here",
		Reason: "process 1 is systemd; the VM of make lab shows what happens without it",
	},
	{
		Test: "TestLifecycle_WhichKeysCanTheProgramUse/(user-namespace/)?user-keyring", Says: "the question's program is for amd64",
		Reason: "needs amd64",
	},
	{
		Test: "TestLifecycle_CanItBeFrozenToDiskAndThawed|TestTask_WhatDoesACheckpointOfATaskWrite",
		Says: "this CRIU cannot (work|do it) with this kernel", Reason: "CRIU needs CONFIG_CHECKPOINT_RESTORE and more of the kernel",
	},
}
