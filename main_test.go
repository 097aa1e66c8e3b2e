//go:build linux && vmlab

package cdblab

import (
	"embed"
	"os"
	"testing"

	"cdblab/helpers/lab"
)

// The chapter's own source is in the test binary, so that a run knows how many questions there are to ask, also where
// only the binary is.
//
//go:embed bundle*_test.go lifecycle*_test.go task*_test.go events*_test.go
var chapter embed.FS

// session is this run of the lab, which TestMain makes.
var session *lab.Session

func TestMain(m *testing.M) {
	session = lab.NewSession(chapter)
	os.Exit(session.Run(m))
}
