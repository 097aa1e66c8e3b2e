//go:build linux

package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/vm/protocol"
)

// followGuest runs Command.follow with a goroutine in the place of the guest. ports are the guest's ends of the ports.
func followGuest(t *testing.T, ctx context.Context, guest func(ports map[string]*connection)) (int, error) {
	t.Helper()
	return followGuestWith(t, ctx, new(guestProgram), guest)
}

// followGuestWith is followGuest for this program.
func followGuestWith(t *testing.T, ctx context.Context, p *guestProgram, guest func(ports map[string]*connection)) (int, error) {
	t.Helper()
	m := &machine{console: new(tailBuffer), stderr: new(tailBuffer), ports: map[string]*connection{}, exited: make(chan struct{})}
	for _, name := range []string{protocol.ControlPort, protocol.StdoutPort, protocol.StderrPort, protocol.ResultsPort} {
		conn, err := newConnection(name)
		assert.NilError(t, err)
		t.Cleanup(func() { _ = conn.Close(); _ = conn.qemuEnd.Close() })
		m.ports[name] = conn
	}
	go guest(m.ports)
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	c := &Command{Cache: &Cache{dir: t.TempDir()}, Stdout: io.Discard, Stderr: io.Discard, Log: t.Logf}
	go func() {
		code, err := c.follow(ctx, m, &protocol.Job{Args: []string{"x"}}, p, io.Discard)
		ended <- end{code, err}
	}()
	select {
	case e := <-ended:
		return e.code, e.err
	case <-time.After(20 * time.Second):
		t.Fatal("the run did not end within 20 seconds")
		return 0, nil
	}
}

// guestSends returns a guest that writes this text to its control port.
func guestSends(text string) func(map[string]*connection) {
	return func(ports map[string]*connection) { _, _ = io.WriteString(ports[protocol.ControlPort].qemuEnd, text) }
}

const ready = "{\"Ready\":true}\n"

func TestControlPort_GarbageIsAFault(t *testing.T) {
	for name, c := range map[string]struct{ sent, seen string }{
		"malformed JSON":        {ready + "rc 0\n", `"rc 0"`},
		"another JSON value":    {ready + "[]\n", "no message of pid 1"},
		"no field":              {ready + "{}\n", "it has 0 fields"},
		"two fields":            {ready + `{"Alive":true,"Exit":{"Code":0}}` + "\n", "it has 2 fields"},
		"negative memory":       {ready + `{"Alive":true,"Available":-1}` + "\n", "no heartbeat has this memory"},
		"memory without a life": {ready + `{"Note":"x","Available":1}` + "\n", "no heartbeat has this memory"},
		"memory of a heartbeat": {
			ready + `{"Alive":true,"Available":40}` + "\n" + `{"Alive":true,"Available":60}` + "\nrc 0\n",
			"it had 60 MB of memory left, and never less than 40",
		},
		"two messages":          {ready + `{"Alive":true} {"Exit":{"Code":0}}` + "\n", "no message of pid 1"},
		"control characters":    {ready + `{"Note":"\u001b[2J all is well"}` + "\n", "control characters"},
		"exit code of no one":   {ready + `{"Exit":{"Code":256}}` + "\n", "no process ends with such"},
		"negative size":         {ready + `{"Exit":{"Code":0,"Results":-1}}` + "\n", "negative"},
		"exit without a job":    {`{"Exit":{"Code":0}}` + "\n", "before it had received one"},
		"line that never ends":  {ready + strings.Repeat("x", maxLine+1), "a line of more than 65536 bytes"},
		"too many messages":     {ready + strings.Repeat("{\"Alive\":true}\n", 2*maxMessages), "messages on the control port within"},
		"result files too many": {ready + fmt.Sprintf(`{"Exit":{"Code":0,"Results":%d}}`, int64(1)<<40) + "\n", "1024 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := followGuest(t, t.Context(), guestSends(c.sent))
			var f *Fault
			assert.Assert(t, errors.As(err, &f), "%v", err)
			assert.ErrorContains(t, err, c.seen)
			assert.Assert(t, !strings.Contains(err.Error(), "\x1b"))
		})
	}
}

// Whatever the guest does to its control port, Ctrl-C ends the run.
func TestControlPort_StoppedRunEnds(t *testing.T) {
	for name, guest := range map[string]func(map[string]*connection){
		"port that ends while QEMU runs": func(ports map[string]*connection) { _ = ports[protocol.ControlPort].qemuEnd.Close() },
		"silent guest":                   guestSends(ready),
		"output that never comes":        guestSends(ready + `{"Exit":{"Code":0,"Stdout":1000}}` + "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(200*time.Millisecond, func() { cancel(&Stopped{Code: 130}) })
			start := time.Now()
			_, err := followGuest(t, ctx, guest)
			assert.Assert(t, err != nil) // Run makes it a Stopped
			assert.Assert(t, time.Since(start) < exitTimeout)
		})
	}
}

func TestControlPort_ExitAfterAJob(t *testing.T) {
	code, err := followGuest(t, t.Context(), func(ports map[string]*connection) {
		port := ports[protocol.ControlPort].qemuEnd
		_, _ = io.WriteString(port, ready)
		var job protocol.Job
		isNow := func(ns int64) bool { return time.Since(time.Unix(0, ns)).Abs() < time.Minute }
		if json.NewDecoder(port).Decode(&job) == nil && job.Args[0] == "x" && isNow(job.Now) {
			_, _ = io.WriteString(port, `{"Alive":true}`+"\n"+`{"Exit":{"Code":7}}`+"\n")
		}
	})
	assert.NilError(t, err)
	assert.Equal(t, code, 7)
}

// The time that the tests may take begins when the guest has booted.
func TestFollow_TestsThatDoNotEnd(t *testing.T) {
	margin, boot := timeoutMargin, bootTimeout
	timeoutMargin, bootTimeout = 100*time.Millisecond, time.Second
	t.Cleanup(func() { timeoutMargin, bootTimeout = margin, boot })
	_, err := followGuestWith(t, t.Context(), &guestProgram{timeout: time.Millisecond}, guestSends(ready))
	assert.ErrorContains(t, err, "the tests did not end 1.1s after their own -timeout of 1ms")
}

// The advice is more than the guest has, and does not replace one that is for a known reason.
func TestFault_OfAGuestWithLittleMemory(t *testing.T) {
	m := &machine{console: new(tailBuffer), stderr: new(tailBuffer), memory: 2048}
	assert.Equal(t, m.fault("x", "silence", again).Do, again)
	m.heartbeat(40)
	assert.Equal(t, m.fault("x", "silence", again+". If it happens again").Do, "give it more memory: MEM=4096")
	assert.Equal(t, m.fault("x", "a full disk", makeRoom).Do, makeRoom)
	_, _ = m.console.Write([]byte("Out of memory: Killed process 7"))
	assert.Equal(t, m.fault("x", "silence", makeRoom).Do, "give it more memory: MEM=4096")
}

// The lab's own VM writes to no disk of this machine, so a full one is not the reason of its silence.
func TestSilence_OfTheLabsOwnVMIsNotOfAFullDisk(t *testing.T) {
	haveFree(t, 1<<20)
	was := bootTimeout
	bootTimeout = 50 * time.Millisecond
	t.Cleanup(func() { bootTimeout = was })
	_, err := followGuest(t, t.Context(), guestSends(""))
	assert.ErrorContains(t, err, "the guest was silent for 50ms")
	assert.ErrorContains(t, err, "watch the console")
}

// A run that was stopped by Ctrl-Z sees one tick of the timer when it goes on, and only many in a row are silence.
func TestSilence_IsManyTicksWithoutAMessage(t *testing.T) {
	s := newSilenceTimer(time.Hour)
	defer s.Stop()
	ticks := func() (n int) {
		for n = 1; !s.tick(); n++ {
		}
		return n
	}
	assert.Assert(t, !s.tick())
	s.heard(2 * time.Hour)
	assert.Equal(t, ticks(), silenceTicks)
	assert.Equal(t, s.limit, 2*time.Hour)

	was := bootTimeout
	bootTimeout = 50 * time.Millisecond
	t.Cleanup(func() { bootTimeout = was })
	_, err := followGuest(t, t.Context(), guestSends(""))
	assert.ErrorContains(t, err, "the guest was silent for 50ms")
}

func TestResults_FloodIsCutOff(t *testing.T) {
	w := &limitedWriter{io.Discard, 10}
	_, err := w.Write(make([]byte, 10))
	assert.NilError(t, err)
	_, err = w.Write(make([]byte, 1))
	assert.ErrorIs(t, err, errTooMuch)

	// A few bytes of archive can claim a large file.
	dir := t.TempDir()
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	assert.NilError(t, tw.WriteHeader(&tar.Header{Name: dir + "/out", Typeflag: tar.TypeReg, Size: maxResultBytes + 1, Mode: 0o644}))
	assert.ErrorContains(t, unpackResults(&archive, []string{dir + "/out"}, ""), "more than 1024 MiB")

	archive.Reset()
	tw = tar.NewWriter(&archive)
	for range maxResultFiles + 1 {
		assert.NilError(t, tw.WriteHeader(&tar.Header{Name: dir + "/out", Typeflag: tar.TypeDir, Mode: 0o755}))
	}
	assert.NilError(t, tw.Close())
	assert.ErrorContains(t, unpackResults(&archive, []string{dir + "/out"}, ""), "more than 10000 files")
}
