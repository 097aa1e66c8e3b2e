package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"cdblab/helpers/vm/protocol"
)

// control is the guest's end of the control port.
type control struct {
	port *os.File
	mu   sync.Mutex // one line at a time
	in   *json.Decoder
}

func newControl(port *os.File) *control {
	return &control{port: port, in: json.NewDecoder(port)}
}

// send sends a message to the wrapper.
func (c *control) send(m protocol.Message) {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// An error means that the wrapper is gone. handleRequests notices that too.
	_, _ = c.port.Write(append(b, '\n'))
}

// readJob returns the first line that the wrapper sends.
func (c *control) readJob() (*protocol.Job, error) {
	var job protocol.Job
	if err := c.in.Decode(&job); err != nil {
		return nil, fmt.Errorf("read the job: %w", err)
	}
	return &job, nil
}

// handleRequests calls handle for each request of the wrapper. If the wrapper dies, handleRequests switches the machine
// off.
func (c *control) handleRequests(handle func(protocol.Request)) {
	for {
		var r protocol.Request
		if err := c.in.Decode(&r); err != nil {
			fmt.Println("lab-init: the wrapper is gone:", err)
			powerOff()
		}
		handle(r)
	}
}

// sendHeartbeats tells the wrapper every two seconds that the guest still runs, because the command may be silent for a
// long time.
func (c *control) sendHeartbeats() {
	for range time.Tick(2 * time.Second) {
		c.send(protocol.Message{Alive: true, Available: availableMemory()})
	}
}

// availableMemory returns how many MiB the guest can still give to programs, or 0 if that is not known.
func availableMemory() int {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "MemAvailable:")
	kb := 0
	_, _ = fmt.Sscan(after, &kb)
	return kb >> 10
}
