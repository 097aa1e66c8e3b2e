//go:build linux

package lab

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/proc"
	"cdblab/helpers/rootfs"
	"cdblab/helpers/syllabus"
	"cdblab/helpers/tools"
)

// theRun is the run under way; nil outside of [Main].
var theRun *host.Run

// rootFS is the one root filesystem of this run.
var rootFS *rootfs.FS

// RootFS returns the one root filesystem of this run.
func RootFS() *rootfs.FS { return rootFS }

// Main runs the questions of a chapter: it refuses where they must not run, sweeps what killed runs left, says what is
// under test, and looks at the end that the host is as it was and that questions were asked at all. It returns the
// exit code. chapter holds the chapter files, so that the number of questions is known.
func Main(m *testing.M, chapter fs.FS) int {
	if run := os.Getenv(janitorEnv); run != "" {
		return janitor(run)
	}
	flag.Parse()
	if set("test.list") {
		return m.Run() // a list of names needs no root and touches nothing
	}
	code, err := run(m, chapter)
	if err != nil {
		fmt.Printf("\ncdblab: %s\n\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return max(code, 1)
	}
	return code
}

func run(m *testing.M, chapter fs.FS) (code int, err error) {
	if err := guard(); err != nil {
		return 1, err
	}
	all, err := syllabus.Read(chapter)
	if err != nil {
		return 1, err
	}
	matching = countMatching(all)
	if !given("test.parallel") {
		// Questions wait a good deal, for a process to end or for the kernel to let go: more of them than processors.
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	if underTest, err = tools.FindRequired("."); err != nil {
		return 1, err
	}
	if rootFS, err = rootfs.Busybox(underTest["busybox"].Path); err != nil {
		return 1, err
	}
	swept, err := host.Sweep(false)
	for _, s := range swept {
		fmt.Println("cdblab: swept what a killed run had left:", s)
	}
	if err != nil {
		return 1, fmt.Errorf("sweep what a killed run had left: %w", err)
	}
	before, err := host.TakeInventory()
	if err != nil {
		return 1, err
	}
	proc.Patience = commandTimeout()
	begin := time.Now()
	if theRun, err = host.NewRun(); err != nil {
		return 1, err
	}
	endJanitor, err := startJanitor()
	if err != nil {
		return 1, err
	}
	defer endJanitor()
	if err := prepare(); err != nil {
		_, closeErr := theRun.Close()
		return 1, errors.Join(err, closeErr)
	}
	defer interruptible()()
	sayUnderTest()

	// What a run holds is small, and under emulation it is time that is short.
	debug.SetGCPercent(400)
	code = m.Run()

	err = errors.Join(finish(before), countQuestions(all))
	theClauses.say()
	questionCounts.say(time.Since(begin))
	return code, err
}

// prepare makes what all questions of the run share: a directory that has each tool under the chapter's name for it.
// The state of a run that is to be kept is marked before anything can go wrong.
func prepare() error {
	if v := os.Getenv(keepEnv); v != "" && v != "0" && v != "no" {
		if err := theRun.Keep(true); err != nil {
			return err
		}
	}
	if err := os.Mkdir(binDir(), 0o755); err != nil {
		return err
	}
	if err := rootFS.ShareLinks(linksDir()); err != nil {
		return err
	}
	for name, t := range underTest {
		if err := os.Symlink(t.Path, filepath.Join(binDir(), name)); err != nil {
			return err
		}
	}
	return nil
}

func binDir() string { return filepath.Join(theRun.Dir(), "bin") }

func linksDir() string { return filepath.Join(theRun.Dir(), "links") }

// linkTools writes, for a transcript that is run again, what prepare does.
func linkTools() string {
	var b strings.Builder
	for _, t := range tools.All {
		if p, ok := underTest[t.Name]; ok {
			fmt.Fprintf(&b, "ln -sf %s %s\n", p.Path, filepath.Join(binDir(), p.Name))
		}
	}
	return b.String()
}

// interruptible lets SIGINT, SIGTERM and SIGHUP end the run in order: everything is swept before the process ends.
func interruptible() (stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		s, ok := <-c
		if !ok {
			return
		}
		swept, err := theRun.Close()
		fmt.Printf("\ncdblab: %v: swept %s\n", s, swept)
		if err != nil {
			fmt.Println("cdblab:", err)
		}
		os.Exit(128 + int(s.(unix.Signal)))
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}

// finish closes the run and looks that the host is as it was.
func finish(before host.Inventory) error {
	if len(keptQuestions) > 0 {
		fmt.Printf("cdblab: kept %s; to remove all that is kept: make sweep\n", strings.Join(keptQuestions, " "))
		_, err := theRun.Close()
		return err
	}
	if err := theRun.Keep(false); err != nil {
		return err
	}
	if err := endShared(); err != nil {
		_, closeErr := theRun.Close()
		return errors.Join(fmt.Errorf("take down what the questions shared: %w", err), closeErr)
	}
	for _, dir := range []string{binDir(), linksDir()} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	swept, err := theRun.Close()
	if err != nil {
		return fmt.Errorf("end the run: %w", err)
	}
	after, err := host.TakeInventory()
	if err != nil {
		return err
	}
	var errs []error
	if !swept.Empty() {
		errs = append(errs, fmt.Errorf("the run left something outside of its questions, which was swept: %s", swept))
	}
	for _, c := range host.OwnedBy(host.Diff(before, after), before, theRun.Owner) {
		errs = append(errs, fmt.Errorf("the run changed the host: %s", c))
	}
	return errors.Join(errs...)
}

// countQuestions returns an error where a run asked no question, or, without a filter, not all.
func countQuestions(all []syllabus.Question) error {
	if set("test.bench") && set("test.run") {
		return nil // -run '^$' is how one asks for nothing but benchmarks
	}
	if set("test.run") || set("test.skip") {
		if questionCounts.asked == 0 {
			return fmt.Errorf("no question was asked: none of the %d matches -run %q.\n  See the list:   make syllabus",
				len(all), flag.Lookup("test.run").Value)
		}
		return nil
	}
	var missing []string
	for _, q := range all {
		if !questionCounts.names[q.Test] {
			missing = append(missing, q.Test)
		}
	}
	// With -failfast, those after the first failure are rightly not asked.
	if len(missing) > 0 && (questionCounts.failed == 0 || !set("test.failfast")) {
		return fmt.Errorf("%d of the %d questions were not asked: %s", len(missing), len(all), strings.Join(missing, ", "))
	}
	return nil
}

// set says whether a flag of go test has been given a value.
func set(name string) bool {
	f := flag.Lookup(name)
	return f != nil && !slices.Contains([]string{"", "false"}, f.Value.String())
}

// given says whether a flag stands on the command line.
func given(name string) bool {
	found := false
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func (c *tally) say(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf("cdblab: %d questions asked: %d answered, %d failed, %d skipped, in %.1f s\n",
		c.asked, c.answered, c.failed, c.skipped, d.Seconds())
}

// sayUnderTest prints what is tested, so that a result can be read a year later.
func sayUnderTest() {
	tools.Describe(underTest)
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	hs, _ := cgroup.Hierarchies()
	virtual, ok := host.Virtual()
	if !ok {
		virtual = "no VM that it knows of; " + disposableEnv + "=yes"
	}
	fmt.Printf("cdblab: under test\n")
	fmt.Printf("  %-24s %s %s (%s)\n", "kernel", unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Machine[:]), virtual)
	fmt.Printf("  %-24s %s\n", "cgroup", cgroup.ModeOf(hs))
	for _, t := range tools.All {
		if p, ok := underTest[t.Name]; ok {
			fmt.Printf("  %-24s %s\n  %-24s %s %s\n", p.Name, p.Version, "", p.Path, p.Digest)
		}
	}
	d, err := rootFS.Digest()
	if err != nil {
		d = err.Error()
	}
	fmt.Printf("  %-24s %s\n", "rootfs", d)
	ref, ours := ImageRef()
	if !ours {
		ref += " (CDB_IMAGE)"
	}
	fmt.Printf("  %-24s %s\n  %-24s %s\n", "image", ref, "run", theRun.Dir())
}
