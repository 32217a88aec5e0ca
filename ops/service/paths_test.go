//go:build unix

package service_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/preforktest"
)

// Relative paths are relative to the working directory at the time of New, also
// after the program has changed it, and those that are set later.
func TestChdir(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"run", "flags", "other", "other/run", "other/flags"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(top)
	s, err := service.New("test", "run")
	if err != nil {
		t.Fatal(err)
	}
	if s.Dir() != filepath.Join(top, "run") {
		t.Errorf("Dir: %s", s.Dir())
	}
	s.PauseFile = "flags/paused"
	t.Chdir(filepath.Join(top, "other"))
	l, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("/")
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	if !exists(t, filepath.Join(top, "flags/paused")) {
		t.Error("the paused flag is elsewhere")
	}
	absolute, err := service.New("test", filepath.Join(top, "run"))
	if err != nil {
		t.Fatal(err)
	}
	checkRunning(t, absolute, os.Getpid())
	if _, err := absolute.Begin(t.Context()); err == nil {
		t.Error("a second process can start")
	}
	if err := absolute.Stop(); err != nil {
		t.Fatal(err)
	}
	preforktest.WaitFor(t, "the end of the loop", func() bool { return l.Context().Err() != nil })
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if exists(t, filepath.Join(top, "run/test.pid")) {
		t.Error("the pid file still exists")
	}
	for _, dir := range []string{"other/run", "other/flags"} {
		if entries, err := os.ReadDir(filepath.Join(top, dir)); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v, %v", dir, entries, err)
		}
	}
}

// A name is refused if one of the files could not be created.
func TestNameLength(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("n", 255-len(".stopped"))
	s, err := service.New(name, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil || !s.Stopped() {
		t.Errorf("Stop: %v", err)
	}
	for _, c := range []struct{ name, dir, want string }{
		{name + "n", dir, "file name"},
		{strings.Repeat("n", 256), dir, "file name"},
		{"test", longDir(t, len("/test.pid")), "path"},
	} {
		if _, err := service.New(c.name, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%.10s…, %.10s…): %v, want %q", c.name, c.dir, err, c.want)
		}
	}
	for i := range 3 {
		s, err := service.New("test", dir)
		if err != nil {
			t.Fatal(err)
		}
		*[]*string{&s.PIDFile, &s.StopFile, &s.PauseFile}[i] = filepath.Join(dir, strings.Repeat("n", 256))
		if _, err := s.Begin(t.Context()); err == nil || !strings.Contains(err.Error(), "choose a shorter name") {
			t.Errorf("Begin with path %d: %v", i, err)
		}
	}
}

// longDir returns a directory with a path in which the name of a file can have at most
// more bytes, with its slash.
func longDir(t *testing.T, more int) string {
	t.Helper()
	limit := 1024
	if _, err := os.Stat("/proc/self"); err == nil {
		limit = 4096
	}
	dir := t.TempDir()
	for rest := limit - 1 - more - len(dir); rest > 1; rest = limit - 1 - more - len(dir) {
		n := min(200, rest-1)
		if rest-1-n == 1 { // no room for a name
			n--
		}
		dir += "/" + strings.Repeat("d", n)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
