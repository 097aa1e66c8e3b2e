//go:build linux

package host

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// killer kills the processes of an owner. A test gives it other processes.
type killer struct {
	list   func() ([]Process, error)
	kill   func(Process) error
	thaw   func(Owner)
	now    func() time.Duration // since boot
	killed []string

	sockets []string // in default places, at which those that were killed listened
}

// killAll kills every process of the owner, until there is none. It also returns the sockets that they had in default places.
func killAll(owner Owner) (killed, sockets []string, err error) {
	k := killer{list: Processes, kill: Process.kill, thaw: thaw, now: sinceBoot}
	err = k.killAll(owner)
	return k.killed, k.sockets, err
}

// killAll kills every process of the owner, until there is none.
//
// One look is not enough. A process that was about to fork may leave a child with a lower pid, which the look has already
// passed. And a process in the middle of execve(2) has no environment for a moment, by which its owner could be recognised.
// So killAll ends after several looks in a row that find no process of the owner, and no process that may be a hidden one.
//
// A hidden process does not fork before it has its environment again, and is recognised then. So it was born before the last
// moment at which a process of the owner was alive. Processes that were born later, for example by a shell's loop beside the
// lab, are not waited for.
func (k *killer) killAll(owner Owner) error {
	const cleanLooksNeeded, young, lookInterval = 3, 2 * time.Second, 5 * time.Millisecond
	cleanLooks := 0
	lastAlive := k.now()
	for deadline := lastAlive + patience(); ; time.Sleep(lookInterval) {
		late := k.now() > deadline // before the look: the machine may stand still during it
		all, err := k.list()
		if err != nil {
			return err
		}
		now := k.now()
		found := slices.DeleteFunc(slices.Clone(all), func(p Process) bool { return int(p.PID) == os.Getpid() || !p.OwnedBy(owner) })
		if len(found) > 0 {
			lastAlive = now
			k.thaw(owner)
		}
		cleanLooks++
		if len(found) > 0 || slices.ContainsFunc(all, func(p Process) bool {
			return p.NoEnvironment && p.born() <= lastAlive && now-p.born() < young
		}) {
			cleanLooks = 0
		}
		for _, p := range found {
			name := fmt.Sprintf("%d (%s)", p.PID, p.Comm)
			if !slices.Contains(k.killed, name) {
				k.killed = append(k.killed, name)
				k.sockets = append(k.sockets, defaultSockets(p.PID)...)
			}
			if err := k.kill(p); err != nil {
				return err
			}
		}
		if cleanLooks == cleanLooksNeeded {
			return nil
		}
		// On a busy machine a look takes seconds, so there is no deadline for the last looks: they are few.
		if len(found) > 0 && late {
			return fmt.Errorf("still alive %v after SIGKILL: %v", patience(), found)
		}
	}
}

// born returns when the process was born, in time since boot, rounded down.
func (p Process) born() time.Duration { return time.Duration(p.Start) * tick }

// tick is the unit of proc.Ticks: USER_HZ is 100 on every architecture that the lab runs on.
const tick = 10 * time.Millisecond

func sinceBoot() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// kill sends SIGKILL to exactly this process: through a pidfd, and only if pid and start time still agree. So another
// process that the kernel gave the pid to in the meantime is safe.
func (p Process) kill() error {
	fd, err := unix.PidfdOpen(int(p.PID), 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open %d (%s): %w", p.PID, p.Comm, err)
	}
	defer unix.Close(fd)
	if now, ok := readProcess(int(p.PID)); !ok || now.Start != p.Start {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill %d (%s): %w", p.PID, p.Comm, err)
	}
	return nil
}
