package self

import (
	"os"
	"strings"
)

// RunsTestsAgain reports whether this process is a test binary without
// preforktest.Main: a worker would run the tests again, not a program.
func (p *Process) RunsTestsAgain() bool { return runsTestsAgain(p.Args[0], os.LookupEnv) }

func runsTestsAgain(path string, getenv func(string) (string, bool)) bool {
	_, main := getenv("PREFORKTEST_MAIN")
	_, program := getenv("PREFORKTEST_PROGRAM")
	return !main && !program && strings.HasSuffix(path, ".test")
}
