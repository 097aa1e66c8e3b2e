// Package wire is what the wrapper outside and pid 1 inside the VM say to each other.
//
// Both sides speak lines of JSON over one virtio serial port, the control port. Bulk goes over ports of its own: the
// command's stdout and stderr, and a tar of the files to bring back.
package wire

// Names of the virtio serial ports, as they appear in /sys/class/virtio-ports/*/name.
const (
	Control = "lab.control"
	Stdout  = "lab.stdout" // in a shell it is the terminal, and carries both directions
	Stderr  = "lab.stderr"
	Files   = "lab.files"
)

// Serial numbers of the disks. The order of /dev/vdX is not reliable, the serial number is.
const (
	RootDisk = "lab-root" // the tools: the same for many runs
	WorkDisk = "lab-work" // the command and its tree: made for this run
)

// Places in the guest.
const (
	Tree    = "/lab/tree" // where the work disk has the module's tree; it is bind-mounted to Job.Tree
	Program = "/lab"      // the directory of the test binary
	Modules = "/modules"  // in the initrd: the kernel modules to load, in this order
)

// Probe is the argument that makes pid 1 say ProbeWord on the console and power off: the shortest boot there is.
const (
	Probe     = "probe"
	ProbeWord = "LAB-PROBE-OK"
)

// Job is the first line that the wrapper sends.
type Job struct {
	Args     []string // the command, Args[0] an absolute path
	Env      []string
	Dir      string   // where it runs
	Tree     string   // where Tree is bind-mounted, the path it has outside; "" for none
	Mkdir    []string // directories to be there before it runs
	Back     []string // files and directories to bring back after it ran, those that are there
	Cgroup   string   // v2, v1 or hybrid
	Merge    bool     // stdout and stderr are one file outside, so the order of their lines matters
	Terminal bool     // give it a terminal, on the stdout port
	Seed     []byte   // for the kernel's random numbers
	Now      int64    // nanoseconds since 1970
}

// Order is any later line from the wrapper.
type Order struct {
	Signal int `json:",omitempty"` // send it to the command
	Rows   int `json:",omitempty"` // the terminal's size
	Cols   int `json:",omitempty"`
}

// Word is a line from the guest.
type Word struct {
	Up    bool   `json:",omitempty"` // the first word: pid 1 runs, the ports work
	Alive bool   `json:",omitempty"` // said every few seconds
	Note  string `json:",omitempty"` // for the person who watches
	Fault string `json:",omitempty"` // pid 1 can't go on
	Exit  *Exit  `json:",omitempty"` // the last word
}

// Exit is how the command ended, and how many bytes were written to each port before it was said. Only when all of
// them have arrived is the result whole.
type Exit struct {
	Code                  int
	Signal                int `json:",omitempty"` // the command was killed by it
	Stdout, Stderr, Files int64
}
