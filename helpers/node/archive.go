//go:build linux

package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/vm"
)

// How long package lists are used before they are fetched again. Fetching them takes half a minute.
const (
	listsAge = 24 * time.Hour   // to find an image that is there
	makeAge  = 10 * time.Minute // to make one
)

// An archive is Debian's archive for one suite, with package lists of the lab's own.
type archive struct {
	dir     string   // for the lists
	suite   string   // bookworm
	sources []string // lines of sources.list
	options []string // options with which apt uses the directory, and not this machine's packages
}

// openArchive returns the archive of a suite. Its address is mirror, or else the address that this machine's apt has for Debian: so it
// is also found behind a mirror of a company.
func openArchive(ctx context.Context, dir, suite, mirror string) (*archive, error) {
	a := &archive{dir: dir, suite: suite, options: []string{
		"-o", "Dir::Etc::SourceList=" + filepath.Join(dir, "sources.list"), "-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::State::status=" + filepath.Join(dir, "status"),
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"), "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=" + userName(),
		"-o", "APT::Architecture=amd64", "-o", "APT::Architectures=amd64", "-o", "Acquire::Languages=none",
		"-o", "APT::Install-Recommends=false",
		// With these options apt ends with an error, after minutes at most, where a mirror does not answer.
		"-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15", "-o", "Acquire::Retries=1",
		"-o", "APT::Update::Error-Mode=any",
	}}
	const tried = "find Debian's archive in the sources of apt"
	addresses := map[string]string{"": mirror, "-updates": mirror}
	if mirror == "" {
		// Origin and label come from the lists of this machine. Codename is bookworm-updates also where sources.list has "stable-updates".
		const format = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)"
		out, err := output(ctx, "apt-get", "indextargets", "--format", format, "Created-By: Packages")
		if err != nil {
			return nil, &vm.Fault{Tried: tried, Seen: err.Error(), Do: "check that apt-get update works here"}
		}
		addresses = debianAddresses(string(out))
	}
	if addresses[""] == "" {
		return nil, &vm.Fault{
			Tried: tried, Seen: "apt has no package list whose origin is Debian, and whose component is main",
			Do: "on Debian run apt-get update. Elsewhere name a mirror of Debian's archive: make disk MIRROR=http://…/debian",
		}
	}
	unstable := suite == "sid" || suite == "unstable" // two names of one suite, which has no other suites
	for _, suffix := range []string{"", "-updates", "-security"} {
		if addresses[suffix] != "" && (suffix == "" || !unstable) {
			a.sources = append(a.sources, fmt.Sprintf("deb [signed-by=%s] %s %s main", keyring, addresses[suffix], suite+suffix))
		}
	}
	return a, a.write()
}

// debianAddresses returns the addresses of Debian's archive by the end of the suite's name: "", -updates, -security.
func debianAddresses(targets string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(targets) {
		f := strings.Split(strings.TrimSpace(line), "|")
		// Not "Debian Backports".
		if len(f) != 5 || f[0] != "Debian" || f[1] != "Debian" && f[1] != "Debian-Security" || f[2] != "main" {
			continue
		}
		_, suffix, ok := strings.Cut(f[3], "-")
		if ok {
			suffix = "-" + suffix
		}
		found[suffix] = f[4]
	}
	return found
}

// userName keeps apt from another user, which could not write below the checkout.
func userName() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return ""
}

// write writes the files that apt reads.
func (a *archive) write() error {
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o644); err != nil { // no package is installed
		return err
	}
	file := filepath.Join(a.dir, "sources.list")
	content := []byte(strings.Join(a.sources, "\n") + "\n")
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, content) {
		return nil
	}
	_ = os.Remove(a.stamp()) // the lists are those of other sources
	return os.WriteFile(file, content, 0o644)
}

// stamp is a file whose time says when the lists were fetched.
func (a *archive) stamp() string { return filepath.Join(a.dir, "fetched") }

// fetchLists fetches the package lists if they are older than age.
func (a *archive) fetchLists(ctx context.Context, age time.Duration, log func(string, ...any)) error {
	if info, err := os.Stat(a.stamp()); err == nil && time.Since(info.ModTime()).Abs() < age {
		return nil
	}
	log("fetching the package lists of Debian's suite %s", a.suite)
	if _, err := output(ctx, "apt-get", slices.Concat(a.options, []string{"update", "-q"})...); err != nil {
		return fmt.Errorf("apt-get update for the suite %s: %w", a.suite, err)
	}
	return os.WriteFile(a.stamp(), nil, 0o644)
}

// available returns those of the packages that the suite has.
func (a *archive) available(ctx context.Context, packages []string) ([]string, error) {
	out, err := output(ctx, "apt-cache", slices.Concat(a.options, []string{"madison"}, packages)...)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(packages), func(pkg string) bool {
		return !slices.ContainsFunc(strings.Split(string(out), "\n"), func(line string) bool {
			name, _, _ := strings.Cut(line, "|")
			return strings.TrimSpace(name) == pkg
		})
	}), nil
}

// versions returns the version of each package that apt would install for these, on a machine that has none.
func (a *archive) versions(ctx context.Context, packages []string) (map[string]string, error) {
	args := slices.Concat(a.options, []string{"--simulate", "install", "?essential", "apt"}, packages)
	out, err := output(ctx, "apt-get", args...)
	if err != nil {
		return nil, fmt.Errorf("ask apt-get what it would install from the suite %s: %w", a.suite, err)
	}
	return installed(string(out)), nil
}

// installed reads lines such as "Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.12/oldstable [amd64])".
func installed(simulation string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(simulation) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "Inst" {
			found[f[1]] = strings.TrimPrefix(f[2], "(")
		}
	}
	return found
}
