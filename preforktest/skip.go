package preforktest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Skipf skips the test, as t.Skipf does. In addition it records the skip, so
// that Main accepts that programs registered in the same file stay unused.
func Skipf(t testing.TB, format string, args ...any) {
	t.Helper()
	registered.skip(callerFiles())
	t.Skipf(format, args...)
}

// NeedRoot skips the test, as Skipf does, unless the effective user is root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skipf(t, "preforktest: the test needs root: run the tests as root")
	}
}

// Missingf skips the test, as Skipf does, because something is not installed.
// It fails the test instead if the environment variable CI is "true":
// continuous integration should have everything that the tests need. The
// message should name the package to install.
func Missingf(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	Skipf(t, format, args...)
}

// NeedCommand returns the path of an installed command. It searches PATH, and
// then the directories of system commands, which not every user has in PATH. If
// there is no such command it calls Missingf with the hint, which should tell
// the reader how to install the command:
//
//	path := preforktest.NeedCommand(t, "gearmand", "Debian: apt-get install gearman-job-server")
func NeedCommand(t testing.TB, name, hint string) (path string) {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if !errors.Is(err, exec.ErrNotFound) || filepath.Base(name) != name {
			break
		}
		if found, err2 := exec.LookPath(filepath.Join(dir, name)); err2 == nil {
			path, err = found, nil
		}
	}
	if err != nil {
		Missingf(t, "preforktest: %s is not installed: %s", name, hint)
	}
	return path
}
