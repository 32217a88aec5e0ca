//go:build unix

package monitor

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
)

// Each file of a service directory with its values, and with bad content.
func TestSettings(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		file, content string
		want          func(*settings)
	}{
		{"timeout-kill", "1500\n", func(s *settings) { s.killAfter = 1500 * ms }},
		{"timeout-kill", " 0 ", func(s *settings) { s.killAfter = -1 }},
		{"timeout-finish", "70", func(s *settings) { s.finishWithin = 70 * ms }},
		{"timeout-finish", "0", func(s *settings) { s.finishWithin = 0 }},
		{"timeout-ready", "70", func(s *settings) { s.readyTimeout = 70 * ms }},
		{"timeout-ready", "0", func(s *settings) { s.readyTimeout = -1 }},
		{"timeout-up", "70", func(s *settings) { s.readyTimeout = 70 * ms }},
		{"notification-fd", "4", func(s *settings) { s.readyFD = 4 }},
		{"lock-fd", "9", func(s *settings) { s.lockFD = 9 }},
		{"down-signal", "INT", func(s *settings) { s.stop = syscall.SIGINT }},
		{"down-signal", "9", func(s *settings) { s.stop = syscall.SIGKILL }},
		{"reload-signal", "SIGUSR1", func(s *settings) { s.reload = syscall.SIGUSR1 }},
		{"max-death-tally", "0", func(s *settings) { s.tally = 0 }},
		{"instances", "4", func(s *settings) { s.instances = 4 }},
		{"nice", "-3", func(s *settings) { s.resources.Nice = -3 }},
		{"backoff", "0,1s,5", func(s *settings) { s.backoff = []time.Duration{0, time.Second, 5 * time.Second} }},
		{"backoff", "", func(s *settings) { s.backoff = []time.Duration{} }},
		{"restart", "on-failure", func(s *settings) { s.restart = prefork.RestartOnFailure }},
		{"success", "3,4", func(s *settings) { s.success = []int{3, 4} }},
		{"user", "www", func(s *settings) { s.resources.User, s.resources.Groups = "www", []string{} }},
		{"user", "www:adm:log", func(s *settings) {
			s.resources.User, s.resources.Group, s.resources.Groups = "www", "adm", []string{"log"}
		}},
		{"user", ":7:8", func(s *settings) {
			s.resources.User, s.resources.Group, s.resources.Groups = "7", "8", []string{}
		}},
		{"limits", "nofile=7\ncore=0:1K\n\n", func(s *settings) {
			s.resources.Rlimits = []prefork.Rlimit{{Resource: "nofile", Soft: 7, Hard: 7}, {Resource: "core", Hard: 1 << 10}}
		}},
		{"umask", "027", func(s *settings) { s.resources.Umask = "027" }},
		{"chroot", "/srv", func(s *settings) { s.resources.Chroot = "/srv" }},
		{"down", "", func(s *settings) { s.down = true }},
		{"flag-group", "", func(s *settings) { s.group = true }},
		{"flag-setsid", "", func(s *settings) { s.session = true }},
		{"flag-newpidns", "", func(s *settings) { s.newPIDs = true }},
		{"flag-timeout-killpg", "", func(s *settings) { s.killGroup = true }},
		{"env/A", "1\n", func(s *settings) { s.env = []string{"A=1"} }},
		{"env/A", "", func(s *settings) { s.unset = []string{"A"} }},
		{"unknown", "x", func(*settings) {}},
	} {
		want := defaults()
		tt.want(&want)
		if got := readFiles(t, tt.file, tt.content); !reflect.DeepEqual(got, want) {
			t.Errorf("%s %q:\n%+v, want\n%+v", tt.file, tt.content, got, want)
		}
	}
	for _, tt := range []struct {
		contents string // separated by |
		files    []string
		strict   bool
	}{
		{"x|-1|1s|2147483648|1.5|", []string{"timeout-kill", "timeout-finish", "timeout-ready", "timeout-up"}, false},
		{"x|0|2|-1|99999|", []string{"notification-fd"}, false},
		{"x|0|2|-1|99999|", []string{"lock-fd"}, true},
		{"x|0|65|", []string{"down-signal", "reload-signal"}, false},
		{"STOP|19", []string{"down-signal"}, false},
		{"x|-1|4097|", []string{"max-death-tally"}, false},
		{"x|0|1001|", []string{"instances"}, false},
		{"x|20|-21|", []string{"nice"}, false},
		{"x|1,,2|-1", []string{"backoff"}, false},
		{"x|", []string{"restart"}, false},
		{"x|256", []string{"success"}, false},
		{"|www:|:7|:|www::log", []string{"user"}, true},
		{"x|nofile=1\nx", []string{"limits"}, true},
		{"", []string{"umask", "chroot"}, true},
	} {
		for _, file := range tt.files {
			for content := range strings.SplitSeq(tt.contents, "|") {
				got := readFiles(t, file, content)
				if tt.strict {
					if got.err == nil || !strings.HasPrefix(got.err.Error(), file+": ") {
						t.Errorf("%s %q: %v", file, content, got.err)
					}
					continue
				}
				if n := len(got.problems); n != 1 || got.problems[0].file != file || got.problems[0].content != content || got.err != nil {
					t.Errorf("%s %q: problems %+v, %v", file, content, got.problems, got.err)
				}
				if got.problems = nil; !reflect.DeepEqual(got, defaults()) {
					t.Errorf("%s %q: %+v, want the defaults", file, content, got)
				}
			}
		}
	}
}

// readFiles returns the settings of a directory with one file.
func readFiles(t *testing.T, file, content string) settings {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, file)
	os.MkdirAll(filepath.Dir(path), 0o755)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return read(dir)
}

// Anything but a regular file does not keep the reader waiting.
func TestSettingsThatAreNoFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"timeout-kill", "user"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(dir, "backoff"), 0o755)
	os.Mkdir(filepath.Join(dir, "env"), 0o755)
	if err := syscall.Mkfifo(filepath.Join(dir, "env", "A"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := read(dir)
	if len(s.problems) != 2 || s.err == nil {
		t.Errorf("problems %+v, %v", s.problems, s.err)
	}
	os.Remove(filepath.Join(dir, "user"))
	if s = read(dir); s.err != nil || s.env != nil {
		t.Errorf("env with a FIFO: %v, %v", s.env, s.err)
	}
	if s = read(filepath.Join(dir, "nosuch")); s.err == nil {
		t.Error("no directory is no error")
	}
	os.Remove(filepath.Join(dir, "env", "A"))
	os.WriteFile(filepath.Join(dir, "notification-fd"), []byte("5"), 0o600)
	os.WriteFile(filepath.Join(dir, "lock-fd"), []byte("5"), 0o600)
	if s = read(dir); s.err == nil || !strings.Contains(s.err.Error(), "notification-fd") {
		t.Errorf("two descriptors with one number: %v", s.err)
	}
}

// A file that cannot be read, or is too long to be one of these, counts as one with
// bad content, and is not read in part.
func TestSettingsThatCannotBeRead(t *testing.T) {
	long := strings.Repeat("nofile=100\n", maxFile/11+1)
	for _, f := range files {
		for what, make := range map[string]func(path string) error{
			"link to itself": func(path string) error { return os.Symlink(path, path) },
			"dangling link":  func(path string) error { return os.Symlink("nosuch", path) },
			"directory":      func(path string) error { return os.Mkdir(path, 0o755) },
			"long file":      func(path string) error { return os.WriteFile(path, []byte(long), 0o600) },
			"long blank file": func(path string) error {
				return os.WriteFile(path, []byte(strings.Repeat("\n", maxFile+1)), 0o600)
			},
		} {
			dir := t.TempDir()
			if err := make(filepath.Join(dir, f.name)); err != nil {
				t.Fatal(err)
			}
			s := read(dir)
			if f.strict {
				if s.err == nil || !strings.HasPrefix(s.err.Error(), f.name+": ") || len(s.err.Error()) > 500 {
					t.Errorf("%s that is a %s: error %.600v", f.name, what, s.err)
				}
				continue
			}
			if len(s.problems) != 1 || s.problems[0].err == nil || len(s.problems[0].content) > 500 || s.err != nil {
				t.Errorf("%s that is a %s: problems %.600v, %v", f.name, what, s.problems, s.err)
			}
			if s.problems = nil; !reflect.DeepEqual(s, defaults()) {
				t.Errorf("%s that is a %s: %+v, want the defaults", f.name, what, s)
			}
		}
	}
}

// The log has each fault of a file once, also if only the error is another one.
func TestSettingsAreReportedOnce(t *testing.T) {
	r := newRig(t, Config{})
	r.service("web", "run: "+up)
	r.start()
	r.want("up .*")
	path := filepath.Join(r.dir, "web", "timeout-kill")
	for i, change := range []func() error{
		func() error { return os.WriteFile(path, nil, 0o600) },
		func() error { return nil },
		func() error { os.Remove(path); return os.Symlink("nosuch", path) },
		func() error { return nil },
		func() error { return os.Remove(path) },
		func() error { return os.Symlink("nosuch", path) }, // after it was good
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		r.do("web", "t")
		r.want("up .*")
		if got, want := strings.Count(r.log.String(), "bad file"), []int{1, 1, 2, 2, 2, 3}[i]; got != want {
			t.Errorf("step %d: %d warnings, want %d", i, got, want)
		}
	}
}
