package display

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"cdblab/helpers/results"
)

// live is a live display on a terminal.
type live struct {
	Options
	color bool

	mu       sync.Mutex
	screen   *screen
	progress *progress
	printed  printed
	stack    bool // what is under test was shown
	done     chan struct{}
}

func newLive(s *screen, color bool, o Options, now func() time.Time) *live {
	return &live{Options: o, color: color, screen: s, progress: newProgress(o.Expected, now), done: make(chan struct{})}
}

// style returns how a text looks on the terminal of now. A user may change its size at any time.
func (l *live) style() style {
	width, _ := l.screen.size()
	return style{width: max(width, 20), color: l.color}
}

func (l *live) Prepare(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draw(l.prepared(what, results.Answered)...)
}

// prepared begins to prepare something. It returns the lines of what was prepared until now, with the sign of a verdict.
func (l *live) prepared(what string, v results.Verdict) []string {
	before, took := l.progress.prepare(what)
	if before == "" {
		return nil
	}
	s := l.style()
	lines := s.indented(before+"  "+duration(took), 2)
	lines[0] = s.mark(v) + lines[0][1:]
	return lines
}

func (l *live) Update(run *results.Run, c results.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress.update(c)
	var lines []string
	if run.Stack != nil && !l.stack {
		l.stack = true
		lines = append(lines, l.style().stack(run.Stack)...)
	}
	switch c.Kind {
	case results.Printed:
		if l.printed.sort(c.Line) == other {
			lines = append(lines, l.style().folded(c.Line)...)
		}
	case results.Began:
		lines = append(lines, l.prepared("", results.Answered)...)
	case results.Ended:
		lines = append(lines, l.style().of(c.Question, l.Verbose || l.progress.only())...)
	}
	if len(lines) > 0 {
		l.draw(lines...)
	}
}

func (l *live) Done(run *results.Run, where string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.done)
	lines := l.prepared("", run.Verdict) // a run that ends before its first question has failed in what was prepared
	l.screen.draw(append(lines, l.style().summary(run, l.printed.skipped, where)...), nil)
}

// animate redraws the lines at the bottom, until the display is done.
func (l *live) animate() {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-ticker.C:
			l.tick()
		}
	}
}

// tick redraws the lines at the bottom. The tick may have been taken just before Done, and comes to the lock only after it.
func (l *live) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
	default:
		l.draw()
	}
}

var spinner = []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"}

// draw writes lines that stay, and redraws what goes on below them.
func (l *live) draw(permanent ...string) {
	p, s := l.progress, l.style()
	spin := spinner[p.now().UnixMilli()/100%int64(len(spinner))]
	_, height := l.screen.size()
	var lines []string
	switch {
	case p.preparing != "":
		lines = []string{s.between(spin+" "+p.preparing, duration(p.now().Sub(p.since)))}
	case len(p.known) > 0:
		lines = append(l.questions(s, height-2), spin+" "+s.bold(p.status(s.width < 60)))
	}
	l.screen.draw(permanent, lines)
}

// questions returns the lines of the running questions, with their steps if there is room for them.
func (l *live) questions(s style, room int) []string {
	running, more := l.progress.running, ""
	withSteps := 2*len(running) <= room
	if len(running) > room {
		shown := max(room-1, 0)
		more = fmt.Sprintf("  and %d more", len(running)-shown)
		running = running[:shown]
	}
	var lines []string
	for _, r := range running {
		took := duration(l.progress.now().Sub(r.begin))
		if e, ok := l.Expected[r.test]; ok && s.width >= 60 {
			took += " of about " + about(time.Duration(e*float64(time.Second)))
		}
		lines = append(lines, s.between("▸ "+pad(r.section, section)+r.text, took))
		if withSteps {
			step := r.step
			if step == "" {
				step = "setting up"
			}
			lines = append(lines, s.faint(cut(strings.Repeat(" ", 2+section)+step, s.width-1)))
		}
	}
	if more != "" && room > 0 {
		lines = append(lines, more)
	}
	return lines
}
