//go:build linux && vmlab

package cdblab

import (
	"embed"
	"os"
	"testing"

	"cdblab/helpers/lab"
)

// chapter is the source of the questions. It is in the test binary, so that a run knows how many questions there are, also on a
// machine that has only the binary.
//
//go:embed bundle*_test.go lifecycle*_test.go task*_test.go events*_test.go
var chapter embed.FS

// session is this run of the lab. TestMain makes it.
var session *lab.Session

func TestMain(m *testing.M) {
	session = lab.NewSession(chapter, maySkip...)
	os.Exit(session.Run(m))
}
