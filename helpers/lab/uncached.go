//go:build linux

package lab

import (
	"os"
	"sync"
	"time"
)

// lastRun is a file of the checkout whose time is that of the last run. `go test` keeps the result of a package, and shows it again as
// "(cached)" while neither the sources nor the files of the module that the tests opened have changed. It knows nothing of the kernel, of
// a runc that was upgraded, or of a CDB_ variable, which is read before the first test. But it keeps no result of tests that have opened a
// file which changed within the last two seconds: https://pkg.go.dev/cmd/go#hdr-Test_packages and hashOpen in cmd/go/internal/test.
const lastRun = "testdata/last-run"

// openLastRun has go test notice that the questions depend on the file. It does so only while a test runs.
var openLastRun = sync.OnceFunc(func() {
	if f, err := os.Open(lastRun); err == nil {
		f.Close()
	}
})

// touchLastRun is called at the end of a run, so that go test does not keep its result. The time is a minute ahead, because a slow machine
// may need more than two seconds until go test looks at it. In a checkout that cannot be written, go test keeps the result.
func touchLastRun() {
	soon := time.Now().Add(time.Minute)
	_ = os.Chtimes(lastRun, soon, soon)
}
