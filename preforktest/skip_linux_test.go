package preforktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// skippedTests builds the tests in testdata/skipped and returns the path of
// the test binary, which every user may run.
func skippedTests(t *testing.T) string {
	t.Helper()
	NeedCommand(t, "go", "add the go command to PATH")
	dir, err := os.MkdirTemp("", "pft") // t.TempDir's parent is mode 0700
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "skipped.test")
	out, err := exec.Command("go", "test", "-c", "-o", binary,
		"./testdata/skipped").CombinedOutput()
	if err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return binary
}

// asUser returns the command that runs the test binary as an ordinary user. It
// skips the test if that user cannot reach the file.
func asUser(t *testing.T, path string, env ...string) *Program {
	t.Helper()
	// Without -u the test binary would take itself for a child of its own tests.
	args := append([]string{"-u", idVar, "-u", "CI"}, env...)
	cmd := exec.Command("env", append(args, path, "-test.v")...)
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		}
		probe := exec.Command(path, "-test.list=^$")
		probe.Dir, probe.SysProcAttr = cmd.Dir, cmd.SysProcAttr
		if err := probe.Run(); err != nil {
			Skipf(t, "needs a TMPDIR that every user can reach: %v", err)
		}
	}
	return Command(t, cmd)
}

// An ordinary user runs all tests and the run passes, although the only test
// that starts "rooted" is skipped. A program in another file is reported.
func TestSkipExcusesProgram(t *testing.T) {
	binary := skippedTests(t)
	for _, c := range []struct {
		name string
		env  []string
		code int
		line string
	}{
		{"skipped", nil, 0, `^PASS$`},
		{"stale", []string{"SKIPPED_STALE=stale"}, 1,
			`^preforktest: no test starts program "stale": remove it`},
		{"optional", []string{"SKIPPED_STALE=optional"}, 0, `^PASS$`},
		{"no command", []string{"SKIPPED_COMMAND=no-such"}, 0,
			`no-such is not installed: install it`},
		{"no command in CI", []string{"SKIPPED_COMMAND=no-such", "CI=true"}, 1,
			`no-such is not installed: install it`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := asUser(t, binary, c.env...).Start()
			p.Expect(`needs root: run the tests as root$`)
			p.Expect(`^--- SKIP: TestNeedsRoot`)
			p.Expect(c.line)
			if code := p.Wait().ExitCode(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
		})
	}
}
