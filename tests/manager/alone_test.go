//go:build unix

package manager_test

import (
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
)

const aloneVar = "PREFORK_TEST_ALONE"

// alone runs f in a bubble, in a process of its own that runs this test and no
// other: a Manager that a successor has replaced remains until its process ends,
// and an upgrade is refused in a program with several Managers.
func alone(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(aloneVar) == t.Name() {
		synctest.Test(t, f)
		return
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	cmd := exec.Command(path, "-test.run="+pattern, "-test.v")
	if dir := flag.Lookup("test.gocoverdir"); dir != nil && dir.Value.String() != "" {
		cmd.Args = append(cmd.Args, "-test.gocoverdir="+dir.Value.String())
	}
	cmd.Env = append(os.Environ(), aloneVar+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Errorf("%v\n%s", err, out)
	}
}
