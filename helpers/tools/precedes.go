package tools

import (
	"regexp"

	"golang.org/x/mod/semver"
)

// Precedes reports whether the program prints a version below this one, such as "1.2.0". It reports false for a program that
// prints no version.
//
// A version proves only that a release lacks something: a distribution may have patched its program. So Precedes is for
// excusing what an old release lacks, next to the assertion. It is no reason to expect anything.
func (p Program) Precedes(version string) bool {
	found := versionNumber.FindStringSubmatch(p.Version)
	if found == nil {
		return false
	}
	printed := "v" + found[1]
	return semver.IsValid(printed) && semver.Compare(printed, "v"+version) < 0
}

// containerd's own programs print "v2.2.0" where those of the lab print "2.2.0". "go1.26.8" is no version of the program.
var versionNumber = regexp.MustCompile(`\bv?([0-9]+\.[0-9]+\.[0-9]+(?:-(?:alpha|beta|rc)\.[0-9]+)?)`)
