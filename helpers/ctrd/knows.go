//go:build linux

package ctrd

import (
	"bytes"
	"os"

	"cdblab/helpers/lab"
)

// Knows reports whether a program under test (containerd, ctr or containerd-shim-runc-v2) contains a text: the name of a file that
// it writes, a topic that it publishes, a message that it logs. A program that does not contain it cannot do what the text is
// about. A script, behind which another program is, has to do what the pinned program does.
//
// A version number would not show what a distribution has patched.
func Knows(q *lab.Q, program, text string) bool {
	q.Helper()
	content, err := os.ReadFile(q.UnderTest(program).Path)
	if err != nil {
		q.Fatalf("look for %q in the %s under test: %v", text, program, err)
	}
	return isScript(content) || bytes.Contains(content, []byte(text))
}

func isScript(program []byte) bool { return bytes.HasPrefix(program, []byte("#!")) }
