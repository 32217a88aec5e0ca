// Package skipped has a program that is started only by a test that root may
// run. TestSkipExcusesProgram builds it and runs it as an ordinary user.
package skipped

import (
	"os"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("rooted", func() { println("started") }) }

func TestNeedsRoot(t *testing.T) {
	preforktest.NeedRoot(t)
	preforktest.Start(t, "rooted").Expect("^started$")
}

func TestNeedsCommand(t *testing.T) {
	if name := os.Getenv("SKIPPED_COMMAND"); name != "" {
		preforktest.NeedCommand(t, name, "install it")
	}
}
