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
	printed := "v" + versionNumber.FindString(p.Version)
	return semver.IsValid(printed) && semver.Compare(printed, "v"+version) < 0
}

var versionNumber = regexp.MustCompile(`\b[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)\.[0-9]+)?`)
