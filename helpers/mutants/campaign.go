//go:build linux

package mutants

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cdblab/helpers/confine"
	"cdblab/helpers/trial"
)

// A Campaign makes mutants of a program, and runs the lab against each.
type Campaign struct {
	trial.Lab
	Target    Target
	Questions string // a regular expression; "" for all
	Seed      uint64
	N         int           // mutants that build
	Module    string        // the root directory of the module cdblab
	Dir       string        // of all campaigns
	Go        string        // the go command
	Digest    string        // of the questions' source, and of what else the facts depend on
	All       bool          // mutants also of lines that no question executes
	Slow      bool          // instead of a fault, a mutant has a delay, and no question may fail
	Deadline  time.Duration // of a run; 0 for three times what the honest build takes, and two minutes, times Jobs
	Fresh     bool          // run what has a result already
	Logf      func(format string, args ...any)

	version string
	dir     string // of this campaign
	source  *Source
	state   *State
	mu      sync.Mutex // of state, and of the tables

	// try and load are buildAndRun and loadSource; a test replaces them.
	try  func(ctx context.Context, m *Mutant, name string, deadline time.Duration) (Result, error)
	load func(context.Context) (iter.Seq[Mutant], error)
}

// Run runs the campaign, and returns its table, also if it was stopped before its end.
func (c *Campaign) Run(ctx context.Context) (Table, error) {
	unlock, err := c.begin(ctx)
	if err != nil {
		return Table{}, err
	}
	defer unlock()
	verdicts, err := ReadVerdicts(filepath.Join(c.Module, VerdictsFile))
	if err != nil {
		return Table{}, err
	}
	err = c.runAll(ctx, verdicts)
	if ctx.Err() != nil {
		err = errors.New("stopped. The same command goes on where this one was stopped")
	}
	table := NewTable(c.state, c.N, verdicts)
	return table, errors.Join(err, table.WriteFiles(c.dir))
}

// TableFile returns the table of a campaign that has run, in Markdown.
func (c *Campaign) TableFile() string { return filepath.Join(c.dir, "table.md") }

// begin reads the state, and prepares the copies of the modules and the test binary.
func (c *Campaign) begin(ctx context.Context) (unlock func(), err error) {
	if c.version, err = c.Target.Version(c.Module); err != nil {
		return nil, err
	}
	// One campaign for a target at a time: they share the copies, and a machine has processors for one.
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	if unlock, err = Lock(filepath.Join(c.Dir, c.Target.Name+".lock")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	c.dir = c.stateDir()
	if c.state, err = OpenState(c.dir, c.Target.Name, c.version, c.Seed); err != nil {
		return nil, err
	}
	if c.Fresh {
		c.state.Forget()
	}
	if c.source, err = CopySource(ctx, c.Target, c.Module, filepath.Join(c.Dir, "source-"+c.Target.Name), c.Go); err != nil {
		return nil, err
	}
	if err := c.source.Sweep(); err != nil {
		return nil, err
	}
	c.try, c.load = c.buildAndRun, c.loadSource
	c.Logf("building the questions")
	c.Binary, err = BuildLab(ctx, c.source)
	return unlock, err
}

// stateDir returns the directory of this campaign. Its name has all that decides which mutants are drawn: other questions execute other
// lines.
func (c *Campaign) stateDir() string {
	name := c.Target.Name
	if c.Slow {
		name += "-slow"
	}
	name += fmt.Sprintf("-%s-%d", c.version[1:], c.Seed)
	if c.All {
		name += "-all"
	}
	if c.Questions != "" {
		digest := sha256.Sum256([]byte(c.Questions))
		name += fmt.Sprintf("-%x", digest[:4])
	}
	return filepath.Join(c.Dir, name)
}

// runAll runs the honest build, and then all mutants that have no result. A mutant that does not build is replaced by the next one.
func (c *Campaign) runAll(ctx context.Context, verdicts Verdicts) error {
	honest, err := c.honest(ctx)
	if err != nil {
		return err
	}
	deadline := c.Deadline
	if deadline == 0 {
		// The honest build runs alone, and c.Jobs mutants share the processors.
		deadline = time.Duration(c.Jobs) * (3*honest + 2*time.Minute).Round(time.Second)
	}
	draw := &drawer{stop: func() {}}
	defer func() { draw.stop() }()
	tried := map[string]bool{} // by this campaign
	done := func(m Mutant) bool { return c.state.Done(m, c.Digest, deadline) }
	for {
		if err := draw.fill(ctx, c); err != nil {
			return err
		}
		counted, _ := c.state.Counted(c.N)
		open := slices.DeleteFunc(slices.Clone(counted), func(m Mutant) bool { return done(m) || tried[m.ID()] })
		if len(open) == 0 {
			if left := slices.DeleteFunc(counted, done); len(left) > 0 {
				return fmt.Errorf("%d mutants have no result: the table says why. The same command runs them again", len(left))
			}
			return nil
		}
		c.Logf("%d of %d mutants have a result, %d to run; deadline of a run: %v", len(counted)-len(open), len(counted), len(open), deadline)
		group, groupCtx := errgroup.WithContext(ctx)
		group.SetLimit(c.Jobs)
		for _, m := range open {
			group.Go(func() error { return c.one(groupCtx, m, slices.Index(counted, m)+1, deadline, verdicts) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for _, m := range open {
			if tried[m.ID()] = true; done(m) || c.Jobs == 1 {
				continue
			}
			c.Logf("mutant %s has no result beside others: it runs again, alone", m.ID())
			if err := c.one(ctx, m, slices.Index(counted, m)+1, deadline, verdicts); err != nil {
				return err
			}
		}
	}
}

// one builds a mutant, runs the lab against it, and stores the result. Of a run that was cut off because of the whole machine, or whose
// leftovers were in the way of its end, it stores only why there is no result: another mutant may have one.
func (c *Campaign) one(ctx context.Context, m Mutant, number int, deadline time.Duration, verdicts Verdicts) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.Logf("mutant %d of %d (%s): %s", number, c.N, m.ID(), m)
	result, err := c.try(ctx, &m, m.ID(), deadline)
	switch {
	case errors.Is(err, trial.ErrNotConfined):
		result = Result{Message: err.Error()}
	case err != nil:
		return fmt.Errorf("mutant %s: %w", m.ID(), err)
	case result.Outcome == Hung && strings.Contains(result.Message, confine.ThisMachine): // others have used it as well
		result.Outcome = NotRun
	}
	said := Row{Mutant: m, Result: result}.outcome()
	if result.Message != "" {
		said += ": " + clip(result.Message, 300)
	}
	c.Logf("mutant %d of %d (%s): %s, in %.0f s", number, c.N, m.ID(), said, result.Took.Seconds())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Results[m.ID()] = result
	return errors.Join(c.state.Save(), NewTable(c.state, c.N, verdicts).WriteFiles(c.dir))
}

// buildAndRun builds the target, with a fault or without, and runs the lab against it.
func (c *Campaign) buildAndRun(ctx context.Context, m *Mutant, name string, deadline time.Duration) (Result, error) {
	program, err := c.source.Build(ctx, m)
	if program != "" {
		defer os.RemoveAll(filepath.Dir(program))
	}
	if failed, ok := errors.AsType[*BuildError](err); ok {
		return Result{Outcome: NoBuild, Message: failed.Output, Source: c.Digest}, nil
	}
	if err != nil {
		return Result{}, err
	}
	log := filepath.Join(c.dir, "logs", name+".log")
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return Result{}, err
	}
	var args []string
	if !c.Slow { // one failure is enough
		args = append(args, "-test.failfast")
	}
	result, err := c.run(ctx, program, trial.Trial{Log: log, Deadline: deadline, Args: args})
	if err == nil && result.Outcome == Survived {
		err = os.Remove(log) // several megabytes, with nothing to see
	}
	return result, err
}

// honest runs the lab against a copy without a fault, built in the same way. If that fails, no failure of a mutant means anything.
// It returns how long the lab took.
func (c *Campaign) honest(ctx context.Context) (time.Duration, error) {
	if took := c.state.honest(c.Digest); took > 0 {
		return took, nil
	}
	c.Logf("the honest build: a copy of %s %s without a fault has to pass first", c.Target.Name, c.version)
	result, err := c.try(ctx, nil, "honest", time.Hour)
	if err != nil {
		return 0, fmt.Errorf("the honest build: %w", err)
	}
	if result.Outcome != Survived {
		return 0, fmt.Errorf("the honest build has to pass, and did not: %s\n%s\n  what to do: look at %s, and run the same questions "+
			"with make lab-here. No mutant was run: its failure would say nothing", Row{Result: result}.outcome(), result.Message,
			filepath.Join(c.dir, "logs/honest.log"))
	}
	c.Logf("the honest build passes, in %.0f s", result.Took.Seconds())
	c.state.Honest = &result
	return result.Took, c.state.Save()
}

// loadSource returns all mutants that can be made, in the order of the seed.
func (c *Campaign) loadSource(ctx context.Context) (iter.Seq[Mutant], error) {
	var profile *Profile
	if !c.All {
		var err error
		if profile, err = c.profile(ctx); err != nil {
			return nil, err
		}
	}
	program, err := c.source.Load(ctx, profile)
	if err != nil {
		return nil, err
	}
	var counts []string
	kinds := Faults
	if c.Slow {
		kinds = []Kind{Delayed}
	}
	for _, k := range kinds {
		counts = append(counts, fmt.Sprintf("%s %d", k, program.Count()[k]))
	}
	c.Logf("mutants that can be made: %s", strings.Join(counts, ", "))
	return program.Draw(c.Seed, kinds), nil
}

// A drawer draws further mutants. The source is loaded when the first one is needed: a campaign that goes on needs none.
type drawer struct {
	next func() (Mutant, bool)
	stop func()
}

// fill draws mutants until the state has as many as are wanted.
func (d *drawer) fill(ctx context.Context, c *Campaign) error {
	_, missing := c.state.Counted(c.N)
	if missing <= 0 {
		return nil
	}
	if d.next == nil {
		seq, err := c.load(ctx)
		if err != nil {
			return err
		}
		d.next, d.stop = iter.Pull(seq)
	}
	drawn := map[string]bool{}
	for _, m := range c.state.Mutants {
		drawn[m.ID()] = true
	}
	for missing > 0 {
		m, ok := d.next()
		if !ok {
			c.Logf("there are only %d mutants: the questions execute no further line", len(c.state.Mutants))
			c.N -= missing
			break
		}
		if !drawn[m.ID()] {
			c.state.Mutants = append(c.state.Mutants, m)
			missing--
		}
	}
	return c.state.Save()
}

// profile returns which statements the questions execute. It is kept for the same source of the questions.
func (c *Campaign) profile(ctx context.Context) (*Profile, error) {
	digest := sha256.Sum256(fmt.Append(nil, c.Digest, "\n", c.Questions))
	file := filepath.Join(c.Dir, "coverage", fmt.Sprintf("%s-%s-%x.txt", c.Target.Name, c.version[1:], digest[:4]))
	if _, err := os.Stat(file); err != nil {
		if err := c.measure(ctx, file); err != nil {
			return nil, fmt.Errorf("find out which lines the questions execute: %w", err)
		}
	}
	profile, err := ReadProfile(file, c.Target)
	if err != nil {
		return nil, err
	}
	executed, byName := profile.Count()
	c.Logf("the questions execute lines of %d files; %d files count as executed by their name (%s)", executed, byName, file)
	return profile, nil
}

// measure runs the questions once against a program that counts which statements it executes, and writes the profile. A question
// may fail: the counting program is slower, and has another environment.
func (c *Campaign) measure(ctx context.Context, file string) error {
	c.Logf("one run of the questions finds out which lines of %s they execute; it is kept", c.Target.Name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	program, err := c.source.CoverBuild(ctx, c.Logf)
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(program))
	counters, err := os.MkdirTemp(c.source.dir, "counters-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(counters)
	if err := os.Chmod(counters, 0o777); err != nil { // runc init in a user namespace has another user
		return err
	}
	counters, err = filepath.Abs(counters)
	if err != nil {
		return err
	}
	log := strings.TrimSuffix(file, ".txt") + ".log"
	o, err := c.ask(ctx, program, trial.Trial{Log: log, Deadline: 2 * time.Hour, Env: []string{"GOCOVERDIR=" + counters}})
	if err != nil {
		return err
	}
	result := judge(o.Run, o.Code, o.CutOff)
	if !o.Whole() { // the lines of the questions that were not asked would be missing, and the profile is kept
		return fmt.Errorf("the run did not come to its end: %s: look at %s", result.Message, log)
	}
	if result.Outcome != Survived {
		c.Logf("not all questions pass with the program that counts, which is no error: %s: %s",
			Row{Result: result}.outcome(), clip(result.Message, 300))
	}
	return c.source.WriteProfile(ctx, counters, file)
}
