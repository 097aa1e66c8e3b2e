//go:build linux

package sabotage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"cdblab/helpers/mutants"
	"cdblab/helpers/results"
	"cdblab/helpers/slowness"
	"cdblab/helpers/trial"
)

// A Saboteur makes the programs that lie, and asks the questions of them.
type Saboteur struct {
	trial.Lab
	Module   string        // the root directory of the module cdblab
	Dir      string        // of the programs, the copies of the modules and the logs; absolute
	Go       string        // the go command
	AsRoot   []string      // the command and its first arguments that execute a command as root; empty for root
	Deadline time.Duration // of the run of one question
	Others   bool          // ask all questions of a lie that its own question has not caught
	Logf     func(format string, args ...any)

	sources map[string]*mutants.Source // by the name of the program
	timeout string                     // CDB_TIMEOUT of each run
	shown   map[string]bool            // the questions that the control has answered
}

// Check runs the control, and then one lie after the other. progress is called after each. An error says that the lies were not
// tried.
func (s *Saboteur) Check(ctx context.Context, lies []Lie, progress func(Row)) (rows []Row, err error) {
	unlock, err := s.begin()
	if err != nil {
		return nil, err
	}
	defer unlock()
	tried := slices.DeleteFunc(slices.Clone(lies), func(l Lie) bool { return l.Unnoticed != "" })
	if len(tried) > 0 {
		if err := s.measure(); err != nil {
			return nil, err
		}
		if err := s.control(ctx, tried); err != nil {
			return nil, err
		}
	}
	for _, l := range lies {
		row := Row{Lie: l, Verdict: Unnoticed, Why: l.Unnoticed}
		if l.Unnoticed == "" {
			row = s.try(ctx, l)
		}
		if ctx.Err() != nil {
			break
		}
		rows = append(rows, row)
		progress(row)
	}
	return rows, nil
}

// begin makes the directory, and the socket that a lie can copy.
func (s *Saboteur) begin() (end func(), err error) {
	s.sources = map[string]*mutants.Source{}
	if err := os.MkdirAll(filepath.Join(s.Dir, "logs"), 0o755); err != nil {
		return nil, err
	}
	unlock, err := mutants.Lock(filepath.Join(s.Dir, "lock"))
	if err != nil {
		return nil, err
	}
	_ = os.Remove(s.socket()) // of a run that was killed
	// Relative: the path of a socket has at most 107 bytes.
	here, err := os.Getwd()
	if err == nil {
		if rel, relErr := filepath.Rel(here, s.socket()); relErr == nil {
			var l *net.UnixListener
			if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: rel, Net: "unix"}); err == nil {
				return func() { _ = l.Close(); unlock() }, nil
			}
		}
	}
	unlock()
	return nil, err
}

func (s *Saboteur) socket() string { return filepath.Join(s.Dir, "socket") }

// measure sets how long a command may take, here. Some lies cost a whole timeout, so it is short. It is the same for each lie and for
// the control: a lie counts as caught only by what the control does not do.
func (s *Saboteur) measure() error {
	runc, err := mutants.FindTarget("runc")
	if err != nil {
		return err
	}
	slowness.Set(slowness.Measure(nil, s.pinned(runc), "--version"))
	s.timeout = "CDB_TIMEOUT=" + slowness.Scale(15*time.Second).String()
	s.Logf("a command may take %v here", slowness.Scale(15*time.Second))
	return nil
}

// control asks the questions of all lies against programs that are made in the same way, and tell no lie. If a question fails, no
// failure of a lie means anything.
func (s *Saboteur) control(ctx context.Context, lies []Lie) error {
	s.Logf("the control: programs that tell no lie have to pass first")
	env := []string{s.timeout}
	for _, program := range []string{"runc", "ctr", "shim", "containerd"} {
		of := slices.DeleteFunc(slices.Clone(lies), func(l Lie) bool { return l.Program != program })
		if len(of) == 0 {
			continue
		}
		target, err := mutants.FindTarget(program)
		if err != nil {
			return err
		}
		path := s.pinned(target)
		if slices.ContainsFunc(of, Lie.Edits) {
			built, err := s.build(ctx, target, nil)
			if built != "" {
				defer os.RemoveAll(filepath.Dir(built))
			}
			if err != nil {
				return fmt.Errorf("the control: build %s without an edit: %w", program, err)
			}
			path = built
		}
		if slices.ContainsFunc(of, func(l Lie) bool { return !l.Edits() }) {
			l := Lie{Name: "honest", Promise: "none", Program: program}
			if path, err = writeWrapper(filepath.Join(s.Dir, "honest"), l, path, s.socket()); err != nil {
				return err
			}
		}
		env = append(env, target.Tool.Env+"="+path)
	}
	log := filepath.Join(s.Dir, "logs", "honest.log")
	o, err := s.Ask(ctx, trial.Trial{Questions: Questions(lies), Env: env, Log: log, Deadline: time.Hour})
	if err != nil {
		return fmt.Errorf("the control: %w", err)
	}
	if o.Code != 0 || o.CutOff != "" || o.Run.Count(results.Answered) == 0 {
		why := o.CutOff + trial.LastWord(o.Run.Lines)
		if q := trial.FirstFailed(o.Run); q != nil {
			why = q.Test + ": " + trial.Failure(q)
		}
		return fmt.Errorf("the control has to pass, and did not: %s\n  what to do: look at %s, and run the same questions with "+
			"make lab-here. No lie was tried: its failure would say nothing", why, log)
	}
	s.shown = map[string]bool{}
	for _, q := range o.Run.Asked() {
		s.shown[q.Test] = q.Verdict == results.Answered
	}
	s.Logf("the control passes: %d questions answered with honest programs, in %.0f s", o.Run.Count(results.Answered), o.Took.Seconds())
	return nil
}

// try asks the question of a lie. If it has not caught the lie, all questions are asked.
func (s *Saboteur) try(ctx context.Context, l Lie) Row {
	fault := func(err error) Row { return Row{Lie: l, Verdict: Fault, Why: err.Error()} }
	target, err := mutants.FindTarget(l.Program)
	if err != nil {
		return fault(err)
	}
	var path string
	if l.Edits() {
		path, err = s.build(ctx, target, &l)
		if path != "" {
			defer os.RemoveAll(filepath.Dir(path))
		}
	} else {
		path, err = writeWrapper(filepath.Join(s.Dir, l.Name), l, s.pinned(target), s.socket())
	}
	if err != nil {
		return fault(err)
	}
	t := trial.Trial{
		Questions: "^" + l.Question + "$", Log: filepath.Join(s.Dir, "logs", l.Name+".log"), Deadline: s.Deadline,
		Env: []string{target.Tool.Env + "=" + path, s.timeout},
	}
	o, err := s.ask(ctx, l, t)
	if err != nil {
		return fault(err)
	}
	row := Judge(l, o, s.shown[l.Question])
	if row.Verdict != NotCaught || !s.Others {
		return row
	}
	s.Logf("%s: its question is green; asking all questions", l.Name)
	t.Questions, t.Log, t.Deadline = "", filepath.Join(s.Dir, "logs", l.Name+".all.log"), time.Hour
	if o, err = s.ask(ctx, l, t); err != nil {
		return fault(err)
	}
	return judgeOthers(row, o)
}

// ask runs the questions against a lie, and undoes what the lie has left.
func (s *Saboteur) ask(ctx context.Context, l Lie, t trial.Trial) (trial.Outcome, error) {
	o, err := s.Ask(ctx, t)
	if l.Undo == "" {
		return o, err
	}
	argv := slices.Concat(s.AsRoot, []string{"sh", "-c", l.Undo})
	if out, undoErr := exec.Command(argv[0], argv[1:]...).CombinedOutput(); undoErr != nil { // also if this process is stopped
		err = errors.Join(err, fmt.Errorf("undo the lie with %q: %w\n%s", l.Undo, undoErr, out))
	}
	return o, err
}

// pinned returns the path of the program that `make tools` has built.
func (s *Saboteur) pinned(t mutants.Target) string { return filepath.Join(s.Module, t.Tool.Search[0]) }

// build builds a program with the edit of a lie, or without, and returns its path. The caller removes its directory.
func (s *Saboteur) build(ctx context.Context, target mutants.Target, l *Lie) (string, error) {
	source := s.sources[target.Name]
	if source == nil {
		var err error
		source, err = mutants.CopySource(ctx, target, s.Module, filepath.Join(s.Dir, "source-"+target.Name), s.Go)
		if err == nil {
			err = source.Sweep()
		}
		if err != nil {
			return "", err
		}
		s.sources[target.Name] = source
	}
	if l == nil {
		return source.Build(ctx, nil)
	}
	edit, err := source.Edit(l.File, l.Old, l.New)
	if err != nil {
		return "", err
	}
	path, err := source.Build(ctx, &edit)
	if failed, ok := errors.AsType[*mutants.BuildError](err); ok {
		return path, fmt.Errorf("the edit of %s does not compile:\n%s", l.File, failed.Output)
	}
	return path, err
}
