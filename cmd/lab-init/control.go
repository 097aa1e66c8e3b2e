package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"cdblab/helpers/vm/wire"
)

// control is this end of the control port.
type control struct {
	port *os.File
	mu   sync.Mutex // one line at a time
	in   *json.Decoder
}

func newControl(port *os.File) *control {
	return &control{port: port, in: json.NewDecoder(port)}
}

func (c *control) say(w wire.Word) {
	b, err := json.Marshal(w)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// An error means that the wrapper is gone; the reader notices it too.
	_, _ = c.port.Write(append(b, '\n'))
}

func (c *control) job() (*wire.Job, error) {
	var job wire.Job
	if err := c.in.Decode(&job); err != nil {
		return nil, fmt.Errorf("read the job: %w", err)
	}
	return &job, nil
}

// obey hands on the wrapper's orders. If the wrapper dies, the machine goes with it.
func (c *control) obey(order func(wire.Order)) {
	for {
		var o wire.Order
		if err := c.in.Decode(&o); err != nil {
			fmt.Println("lab-init: the wrapper is gone:", err)
			powerOff()
		}
		order(o)
	}
}

// heartbeat tells the wrapper that the guest still runs, however long the command is silent.
func (c *control) heartbeat() {
	for range time.Tick(2 * time.Second) {
		c.say(wire.Word{Alive: true})
	}
}
