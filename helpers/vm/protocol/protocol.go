// Package protocol defines what the wrapper on the host and lab-init in the VM send to each other.
//
// Both send lines of JSON over one virtio serial port, the control port: the wrapper sends a [Job] and then
// [Request]s, lab-init sends [Message]s. Bulk data has ports of its own: the command's stdout and stderr, and a tar archive
// of the result files.
//
// lab-init is pid 1 of the lab's own VM. In a VM that boots a disk of the user it is a service: see [ServiceArgument].
package protocol

// Names of the virtio serial ports, as they appear in /sys/class/virtio-ports/*/name.
const (
	ControlPort = "lab.control"
	StdoutPort  = "lab.stdout" // for a command with a terminal this port is the terminal, and carries both directions
	StderrPort  = "lab.stderr"
	ResultsPort = "lab.files"
)

// Serial numbers of the disks. The order of /dev/vdX is not reliable; the serial number is.
const (
	ToolsDisk = "lab-root" // the tools and the kernel's modules: the same for many runs
	WorkDisk  = "lab-work" // the command and its source tree: made for this run
)

// Directories in the guest.
const (
	SourceTree = "/lab/tree" // where the work disk has the module's source tree; it is bind-mounted at Job.SourceDir
	ProgramDir = "/lab"      // the directory of the test binary
	ModulesDir = "/modules"  // in the initrd: the kernel modules to load, in the order of their names
)

// The shortest boot: with ProbeArgument, pid 1 prints ProbeReply on the console and resets the machine.
const (
	ProbeArgument = "probe"
	ProbeReply    = "LAB-PROBE-OK"
)

// SlownessEnv is in the kernel's command line: by how much the deadlines of pid 1 are longer, 1 to 10. The kernel puts a word with an
// equals sign that it does not know into the environment of pid 1. A disk of the user has a command line of its own.
const SlownessEnv = "LAB_SLOWNESS"

// In a VM that boots a disk of the user, the disk's own init starts lab-init with ServiceArgument. It comes on the seed disk, together
// with the questions and the pinned tools.
const (
	ServiceArgument = "serve"
	ServiceName     = "cdblab.service"
	SeedDisk        = "cdblab"           // the serial number of the seed disk
	SeedLabel       = "cidata"           // its label, by which cloud-init finds it
	SeedDir         = "/run/cdblab-seed" // where the guest mounts it
	SeedInit        = "lab-init"         // the files on it, relative to its root
	SeedScript      = "start.sh"
	SeedTree        = "cdblab"
	OutDir          = "/run/cdblab-out" // the directory of the result files in the guest
	NoteEnv         = "LAB_NOTE"        // what the script has to tell the person at the terminal
)

// Job is the first line that the wrapper sends: the command to run, and what it needs.
type Job struct {
	Args        []string // the command; Args[0] is an absolute path
	Env         []string
	Dir         string   // its working directory
	SourceDir   string   // where SourceTree is bind-mounted: the path that the tree has on the host; "" for none
	Mkdir       []string // directories to create before the command starts
	Space       []Space  // what must be free before the command starts
	Results     []string // files and directories to send back after the command ended; missing ones are left out
	Cgroup      string   // v2, v1 or hybrid; "" in a VM that boots a disk of the user
	MergeOutput bool     // stdout and stderr are one file on the host, so the order of their lines matters
	Terminal    bool     // give the command a terminal, on the stdout port
	RandomSeed  []byte   // for the kernel's random numbers
	Now         int64    // the host's time: nanoseconds since 1970
}

// Space is free space on the file system of a directory.
type Space struct {
	Dir  string
	Free uint64 // bytes
}

// Request is any later line from the wrapper.
type Request struct {
	Signal int `json:",omitempty"` // send this signal to the command
	Rows   int `json:",omitempty"` // the new size of the terminal
	Cols   int `json:",omitempty"`
}

// Message is a line from lab-init. Exactly one field is set; Available comes with Alive.
type Message struct {
	Ready     bool   `json:",omitempty"` // the first message: lab-init runs, and the ports work
	Alive     bool   `json:",omitempty"` // sent every few seconds
	Available int    `json:",omitempty"` // MiB of memory that the guest can still give: MemAvailable of /proc/meminfo
	Note      string `json:",omitempty"` // for the person at the terminal
	Fault     string `json:",omitempty"` // lab-init cannot continue, and why
	Exit      *Exit  `json:",omitempty"` // the last message
}

// Exit says how the command ended, and how many bytes were written to each port before this message was sent. The
// result is complete only when all these bytes have arrived.
type Exit struct {
	Code                    int
	Signal                  int `json:",omitempty"` // the signal that killed the command
	Stdout, Stderr, Results int64
}
