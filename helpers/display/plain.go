package display

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"cdblab/helpers/results"
)

// silence is how long a log may be silent. Many CI systems end a job that prints nothing for some minutes.
const silence = time.Minute

// Plain returns a display for a log.
func Plain(out io.Writer, o Options) Display {
	p := newPlain(out, o, time.Now)
	go p.breakSilence()
	return p
}

// plain is a display for a log.
type plain struct {
	Options
	style

	mu       sync.Mutex
	out      io.Writer
	progress *progress
	printed  printed
	last     time.Time // when a line was written
	done     chan struct{}
}

func newPlain(out io.Writer, o Options, now func() time.Time) *plain {
	return &plain{Options: o, out: out, progress: newProgress(o.Expected, now), last: now(), done: make(chan struct{})}
}

func (p *plain) write(lines ...string) {
	if len(lines) > 0 {
		_, _ = io.WriteString(p.out, strings.Join(lines, "\n")+"\n") // there is no other place where an error could be reported
		p.last = p.progress.now()
	}
}

func (p *plain) Prepare(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.prepare(what)
	p.write(what)
}

func (p *plain) Update(_ *results.Run, c results.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.update(c)
	switch c.Kind {
	case results.Printed:
		if k := p.printed.sort(c.Line); k == other || k == underTest {
			p.write(c.Line)
		}
	case results.Began:
		p.progress.prepare("")
	case results.Ended:
		p.write(p.of(c.Question, p.Verbose || p.progress.only())...)
	}
}

func (p *plain) Done(run *results.Run, where string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.done)
	p.write(p.summary(run, p.printed.skipped, where)...)
}

// breakSilence writes a line when the log was silent for long.
func (p *plain) breakSilence() {
	ticker := time.NewTicker(silence / 12)
	defer ticker.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.write(p.sign()...)
			p.mu.Unlock()
		}
	}
}

// sign returns a sign of life if the log was silent for long.
func (p *plain) sign() []string {
	pr := p.progress
	if pr.now().Sub(p.last) < silence {
		return nil
	}
	if pr.preparing != "" {
		return []string{fmt.Sprintf("still at it after %s: %s", duration(pr.now().Sub(pr.since)), pr.preparing)}
	}
	out := []string{fmt.Sprintf("still at it after %s: %s", duration(pr.now().Sub(pr.begin)), strings.Join(pr.counts(false), ", "))}
	for _, r := range pr.running {
		line := fmt.Sprintf("  for %s: %s", duration(pr.now().Sub(r.begin)), r.test)
		if r.step != "" {
			line += ": " + r.step
		}
		out = append(out, line)
	}
	return out
}
