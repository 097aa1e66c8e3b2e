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

// Describe asks every found program for its version and computes its digest, all at once. The programs have the environment environ.
func Describe(found map[string]Program, environ []string) {
	described := make([]Program, len(All))
	var wg sync.WaitGroup
	for i, t := range All {
		p, ok := found[t.Name]
		if !ok {
			continue
		}
		wg.Go(func() {
			p.Version = version(p.Path, t.VersionArgs, environ) + howBuilt(p.Path)
			digest, err := Digest(p.Path)
			if err != nil {
				digest = err.Error()
			}
			p.Digest = digest
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
func version(path string, args, environ []string) string {
	// 10 s were too short in the VM of a busy machine.
	ctx, cancel := context.WithTimeout(context.Background(), slowness.Scale(30*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = environ
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	line, rest, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if strings.HasSuffix(line, ":") { // The shim prints its name first, and up to containerd 1.6 its path.
		line, _, _ = strings.Cut(rest, "\n")
	}
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

// Digest returns the digest of a file, in the form that OCI images have: sha256:<hex>.
func Digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), nil
}
