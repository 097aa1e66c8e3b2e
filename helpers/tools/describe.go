//go:build linux

package tools

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"cdblab/helpers/slowness"
)

// Describe asks every found program for its version and computes its digest, all at once.
func Describe(found map[string]Program) {
	described := make([]Program, len(All))
	var wg sync.WaitGroup
	for i, t := range All {
		p, ok := found[t.Name]
		if !ok {
			continue
		}
		wg.Go(func() {
			p.Version, p.Digest = version(p.Path, t.VersionArgs)+howBuilt(p.Path), digest(p.Path)
			described[i] = p
		})
	}
	wg.Wait()
	for _, p := range described {
		if p.Name != "" {
			found[p.Name] = p
		}
	}
}

// version returns the first line of the version that a program prints. A program that prints none may still be the
// program that the reader wants to test, so this is no error.
func version(path string, args []string) string {
	ctx, cancel := context.WithTimeout(context.Background(), slowness.Scale(10*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	// The shim prints its name, or its path, and a colon first, and its version on the second line.
	line := strings.ReplaceAll(strings.ReplaceAll(string(out), path+":\n", ""), "containerd-shim-runc-v2:\n", "")
	line = strings.TrimSpace(line)
	line, _, _ = strings.Cut(line, "\n")
	if line = strings.TrimSpace(line); line == "" {
		line = "prints no version"
	}
	if err != nil {
		return fmt.Sprintf("%s (%v)", line, err)
	}
	return line
}

// howBuilt returns the Go that a Go program was built with, and its build tags, which show what was left out of it: both can
// change what it does. It returns "" for a program that was not built by Go.
func howBuilt(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return ""
	}
	how := info.GoVersion
	if tags := setting(info, "-tags"); tags != "" {
		how += ", build tags " + tags
	}
	return " (" + how + ")"
}

func digest(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}
