//go:build browser

package notebook

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"gotest.tools/v3/assert"

	"cdblab/helpers/results"
)

var (
	runFlag  = flag.String("run-of", picturesFile, "the run whose page is tested: a stream, or a directory of results")
	picFlag  = flag.String("picture", "", "the file of the picture for the README")
	shotFlag = flag.String("screenshots", "", "a directory for pictures of the page")

	//go:embed testdata/checks.js
	checks string
)

// browser is a tab of a browser.
type browser struct {
	ctx      context.Context
	problems []string // what it has reported: errors of scripts, violations of the Content-Security-Policy
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		// No skip: the tag browser demands a browser, and a CI without one would be green.
		t.Fatal("no browser is installed: on Debian, run `apt-get install chromium` (on Ubuntu, install google-chrome) and ask again")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.WSURLReadTimeout(2*time.Minute))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{ctx: ctx}
	assert.NilError(t, chromedp.Listen(ctx, func(e any) {
		switch e := e.(type) {
		case *log.EventEntryAdded:
			b.problems = append(b.problems, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
		case *runtime.EventExceptionThrown:
			b.problems = append(b.problems, e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			b.problems = append(b.problems, fmt.Sprintf("console.%s", e.Type))
		}
	}))
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	assert.NilError(t, err)
	return b
}

// open opens the page of a run. What the browser reports of it fails the test.
func (b *browser) open(t *testing.T, run *results.Run) {
	t.Helper()
	b.openIn(t, t.TempDir(), run)
}

// openIn is open for a page in a directory.
func (b *browser) openIn(t *testing.T, dir string, run *results.Run) {
	t.Helper()
	file := filepath.Join(dir, results.NotebookFile)
	assert.NilError(t, os.MkdirAll(dir, 0o755))
	assert.NilError(t, os.WriteFile(file, []byte(write(t, run)), 0o644))
	b.problems = nil
	b.prefer(t, "light")
	b.resize(t, 1280, 900)
	_, err := chromedp.Run(b.ctx, chromedp.Navigate("file://"+file))
	assert.NilError(t, err)
	b.do(t, chromedp.Evaluate[chromedp.Void](checks))
	t.Cleanup(func() {
		assert.Check(t, len(b.problems) == 0, "the browser reports:\n%s", strings.Join(b.problems, "\n"))
	})
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	assert.NilError(t, chromedp.Do(b.ctx, actions...))
}

// prefer sets the scheme of colours that the reader's system prefers, and stops the page from scrolling smoothly.
func (b *browser) prefer(t *testing.T, scheme string) {
	t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-reduced-motion", Value: "reduce"}, {Name: "prefers-color-scheme", Value: scheme},
	}})
	assert.NilError(t, err)
}

func (b *browser) resize(t *testing.T, width, height int64) {
	t.Helper()
	b.do(t, chromedp.EmulateViewport(width, height))
}

// check calls a function of testdata/checks.js, which returns what is wrong.
func (b *browser) check(t *testing.T, call string) {
	t.Helper()
	wrong, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](call, chromedp.EvalAwaitPromise))
	assert.NilError(t, err, call)
	assert.Check(t, len(wrong) == 0, "%s:\n%s", call, strings.Join(wrong, "\n"))
}

func loadRun(t *testing.T) *results.Run {
	t.Helper()
	run, err := results.Load(*runFlag)
	assert.NilError(t, err)
	return run
}

func TestBrowser(t *testing.T) {
	run, b := loadRun(t), openBrowser(t)

	t.Run("reaches each question", func(t *testing.T) {
		b.open(t, run)
		b.check(t, "byAnchor()")
		b.check(t, "bySearch()")
		b.check(t, "searchIsLeftByAnAnchor()")
	})
	t.Run("shows each script", func(t *testing.T) {
		b.open(t, run)
		b.check(t, "scripts(3)")
	})
	t.Run("leads to the source in a checkout", func(t *testing.T) {
		b.openIn(t, filepath.Join(t.TempDir(), results.Dir, "2026-11-27T22-20-18"), run)
		b.check(t, "sources(true)")
		b.openIn(t, filepath.Join(t.TempDir(), "artifact"), run)
		b.check(t, "sources(false)")
	})
	t.Run("draws the pictures", func(t *testing.T) {
		drawn := 0
		for _, q := range run.Questions {
			for _, p := range picturesOf(q) {
				if p.Drawing != nil {
					drawn++
				}
			}
		}
		b.open(t, run)
		b.check(t, fmt.Sprintf("pictures(%d)", drawn))
		b.check(t, "overlaps()")
	})
	t.Run("fits a phone", func(t *testing.T) {
		b.open(t, run)
		for _, width := range []int64{360, 768, 1280} {
			b.resize(t, width, 740)
			b.check(t, "fits()")
		}
	})
	t.Run("has two schemes", func(t *testing.T) {
		b.open(t, run)
		for _, scheme := range []string{"light", "dark"} {
			b.prefer(t, scheme)
			b.check(t, fmt.Sprintf("hasScheme(%q)", scheme))
			b.check(t, "contrast()")
		}
		b.check(t, "switchesScheme()")
	})
	t.Run("prints what is folded", func(t *testing.T) {
		b.open(t, run)
		_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
		assert.NilError(t, err)
		b.check(t, "prints()")
	})
	t.Run("needs no mouse and no screen", func(t *testing.T) {
		b.open(t, run)
		b.check(t, "structure()")
		b.do(t, chromedp.KeyEvent("\t"))
		b.check(t, `focused("skip")`)
		// Of this event the browser makes the character itself, unless the page does not want it.
		_, err := chromedp.Call(b.ctx, input.DispatchKeyEvent, input.DispatchKeyEventParams{
			Type: input.DispatchKeyEventTypeKeyDown, Key: "/", Text: "/",
		})
		assert.NilError(t, err)
		b.do(t, chromedp.KeyEvent("zzzz"))
		b.check(t, `searched("zzzz", 0)`)
		b.do(t, chromedp.KeyEvent(kb.Escape))
		b.check(t, `searched("", document.querySelectorAll("article").length)`)
		b.check(t, "copies()")
	})
	// A page with hostile text runs no script but its own, and its pictures still stand.
	t.Run("runs nothing of a run", func(t *testing.T) {
		b.open(t, spoiled(t))
		b.check(t, "elements(1, 1)")
		b.check(t, "byAnchor()")
		b.check(t, "overlaps()")
	})
}

// -picture writes the picture for the README: the question whose pictures show most.
func TestBrowser_Picture(t *testing.T) {
	if *picFlag == "" {
		t.Skip("no -picture file is given: make notebook-png")
	}
	const test, limit = "TestTask_WhatHappensWhenTheShimDies", 300_000
	run := loadRun(t)
	assert.Assert(t, run.Question(test) != nil, "the run has not asked %s: record it with make lab, and ask again", test)
	b := openBrowser(t)
	b.open(t, run)
	b.resize(t, 1280, 860)
	b.do(t, chromedp.Evaluate[chromedp.Void](`location.hash = "`+test+`"`))
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	assert.NilError(t, err)
	assert.Check(t, len(png) < limit, "the picture has %d bytes, and %d are allowed", len(png), limit)
	assert.NilError(t, os.MkdirAll(filepath.Dir(*picFlag), 0o755))
	assert.NilError(t, os.WriteFile(*picFlag, png, 0o644))
}

// -screenshots writes what there is to look at before the page is changed.
func TestBrowser_Screenshots(t *testing.T) {
	if *shotFlag == "" {
		t.Skip("no -screenshots directory is given")
	}
	run, b := loadRun(t), openBrowser(t)
	b.open(t, run)
	shoot := func(name, script string) {
		t.Helper()
		b.do(t, chromedp.Evaluate[chromedp.Void](script))
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(*shotFlag, name+".png"), png, 0o644))
	}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 360} {
			b.prefer(t, scheme)
			b.resize(t, width, 1000)
			b.do(t, chromedp.Reload()) // at this width the syllabus may be folded
			shoot(fmt.Sprintf("%s-%d-top", scheme, width), `location.hash = ""; scrollTo(0, 0)`)
			for _, q := range run.Questions {
				if pictures[q.Test] != nil || q.Verdict != results.Answered {
					shoot(fmt.Sprintf("%s-%d-%s", scheme, width, q.Test), `location.hash = "`+q.Test+`"`)
				}
			}
		}
	}
}
