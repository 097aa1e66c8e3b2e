package notebook

import (
	"fmt"
	"regexp"
	"strings"

	"cdblab/helpers/results"
)

// moment is a column of a timeline.
type moment struct {
	did   string // the command that led to it
	name  string
	lanes []string // "true", "false", or "" where it was not observed
}

// states draws the states of a container, and what the kernel shows in each of them.
func states(q *results.Question) (picture, error) {
	p := picture{
		Title: "The states of a container, and the facts of the kernel from which runc derives them",
		Note:  "In creating only a hook has looked, and it has read the state document.",
	}
	passed, err := factNamed(q, "passed")
	if err != nil {
		return p, err
	}
	moments := []moment{{name: "creating", lanes: make([]string, 3)}}
	if list := listOf(passed); len(list) == 0 || list[0] != "creating" {
		moments = nil
	}
	lanes := []string{"process alive", "exec.fifo", "frozen"}
	looked := []string{"created", "running", "paused", "running after resume", "stopped"}
	for _, name := range looked {
		f, err := factNamed(q, name)
		if err != nil {
			return p, err
		}
		seen := tableOf(f)
		if seen == nil {
			return p, fmt.Errorf("the fact %q has no elements", name)
		}
		m := moment{did: lastVerb(q, f), name: strings.TrimSuffix(name, " after resume")}
		for _, lane := range lanes {
			m.lanes = append(m.lanes, seen[lane])
		}
		moments = append(moments, m)
	}
	p.Drawing = drawStates(moments, lanes)
	p.Table = [][]string{{"state", "after the command", lanes[0], lanes[1], lanes[2]}}
	words := map[string]string{"true": "yes", "false": "no", "": "not looked at"}
	for _, m := range moments {
		p.Table = append(p.Table, []string{m.name, m.did, words[m.lanes[0]], words[m.lanes[1]], words[m.lanes[2]]})
	}
	return p, nil
}

var verb = regexp.MustCompile(`\brunc\b.* (create|start|pause|resume|kill)\b`)

// lastVerb returns what runc was last told to do before a fact.
func lastVerb(q *results.Question, before *results.Fact) string {
	last := ""
	for _, s := range q.Steps {
		for _, item := range s.Items {
			if item.Fact == before {
				return last
			}
			if item.Command != nil {
				if m := verb.FindStringSubmatch(item.Command.Script); m != nil {
					last = m[1]
				}
			}
		}
	}
	return last
}

func drawStates(moments []moment, lanes []string) *drawing {
	d := &drawing{}
	const box, arrow, lane = 78, 50, 26
	left := widest(lanes...) + 16
	d.text("title", 1, 4+(boxHeight-lineHeight)/2+lineHeight, "runc state")
	for j, name := range lanes {
		d.text("title", 1, 66+j*(lane+8)+(lane-lineHeight)/2, name)
	}
	for i, m := range moments {
		x, top := left+i*(box+arrow), 4+lineHeight
		if i > 0 {
			d.path("edge arrow", fmt.Sprintf("M%d %dH%dl-6 -4m6 4l-6 4", x-arrow+4, top+boxHeight/2, x-4))
			d.centered("label", x-arrow/2, top-10, m.did)
		}
		d.box("process", x, top, box, boxHeight, m.name)
		for j, seen := range m.lanes {
			y := 66 + j*(lane+8)
			switch seen {
			case "true":
				last := i // of the states in a row in which it is so: they have one bar
				for last+1 < len(moments) && moments[last+1].lanes[j] == "true" {
					last++
				}
				if i == 0 || moments[i-1].lanes[j] != "true" {
					d.rect(fmt.Sprintf("color%d", j), x, y, box+(last-i)*(box+arrow), lane)
				}
				d.centered("color", x+box/2, y+(lane-lineHeight)/2, "yes")
			case "false":
				d.centered("quiet", x+box/2, y+(lane-lineHeight)/2, "no")
			default:
				d.centered("quiet", x+box/2, y+(lane-lineHeight)/2, "?")
			}
		}
	}
	return d
}

// period is a column of the timeline of events: what was asked, and what containerd published by itself.
type period struct {
	name      string
	asked     []string
	published []string
	runs      bool // the task's process runs at the end of the period
	maybe     bool // whether the event is received is left to chance
}

// events draws what containerd publishes by itself while a task is created, runs, and ends.
func events(q *results.Question) (picture, error) {
	p := picture{
		Title: "What is asked, and which events containerd publishes by itself",
		Note:  "A dashed event may be lost: the shim ends without waiting until its last event is sent.",
	}
	var periods []period
	for _, c := range []struct {
		fact, name string
		runs       bool
	}{
		{"events without a task", "no task", false}, {"topics", "start", true}, {"events while it runs", "it runs", true},
		{"topics after kill", "kill", false}, {"delete", "delete", false},
	} {
		f, err := factNamed(q, c.fact)
		if err != nil {
			return p, err
		}
		now := period{name: c.name, asked: asked(q, f.Step), published: listOf(f), runs: c.runs}
		if c.fact == "delete" {
			now.published, now.maybe = []string{"/tasks/delete"}, true
		}
		periods = append(periods, now)
	}
	p.Drawing = drawEvents(periods)
	p.Table = [][]string{{"when", "asked of containerd", "published by itself", "the process runs"}}
	for _, now := range periods {
		published := strings.Join(now.published, ", ")
		if published == "" {
			published = "nothing"
		}
		if now.maybe {
			published += ", if it is not lost"
		}
		runs := map[bool]string{true: "yes", false: "no"}[now.runs]
		p.Table = append(p.Table, []string{now.name, strings.Join(now.asked, ", "), published, runs})
	}
	return p, nil
}

var ctrVerb = regexp.MustCompile(`\bctr\b.* (tasks|containers|images) ([a-z]+)\b`)

// asked returns the words of the ctr command of a step: "tasks start".
func asked(q *results.Question, step int) []string {
	s := q.Step(step)
	if s == nil {
		return nil
	}
	var out []string
	for _, item := range s.Items {
		if item.Command == nil {
			continue
		}
		if m := ctrVerb.FindStringSubmatch(item.Command.Script); m != nil {
			out = append(out, m[1]+" "+m[2])
		}
	}
	return out
}

func drawEvents(periods []period) *drawing {
	d := &drawing{}
	const gap = 18
	rows := []string{"asked by ctr", "the process", "published"}
	left, most := widest(rows...)+18, 1
	for _, p := range periods {
		most = max(most, len(p.asked))
	}
	askedTop := 26
	barTop := askedTop + most*lineHeight + 14
	eventTop := barTop + 46
	for i, y := range []int{askedTop, barTop + 4, eventTop + 5} {
		d.text("title", 1, y, rows[i])
	}
	x, barFrom := left, 0
	for i, p := range periods {
		width := max(widest(p.asked...), widest(p.published...)+2*pad, widest(p.name), 84)
		d.text("title", x, 2, p.name)
		d.text("label", x, askedTop, p.asked...)
		if p.runs {
			if i == 0 || !periods[i-1].runs {
				barFrom = x
			}
			if i+1 == len(periods) || !periods[i+1].runs {
				d.rect("color0", barFrom, barTop, x+width-barFrom, 26)
				d.text("color", barFrom+pad, barTop+4, "runs")
			}
		} else {
			d.text("quiet", x, barTop+4, "–")
		}
		if len(p.published) == 0 {
			d.text("quiet", x, eventTop+5, "none")
		}
		class := "adopted"
		if p.maybe {
			class = "maybe"
		}
		for j, topic := range p.published {
			d.box(class, x, eventTop+j*(boxHeight+6), textWidth(topic)+2*pad, boxHeight, topic)
		}
		x += width + gap
	}
	d.path("edge", fmt.Sprintf("M%d %dH%d", left, eventTop-12, x-gap))
	return d
}
