package resources

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// unified returns the mount point of cgroup version 2.
func unified(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Skip(err)
	}
	m := regexp.MustCompile(`(?m)^\S+ (\S+) cgroup2 `).FindSubmatch(mounts)
	if m == nil {
		t.Skip("cgroup2 is not mounted")
	}
	return string(m[1])
}

func TestCgroup(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp(unified(t), "prefork-test-")
	if err != nil {
		t.Skip("cannot create a cgroup: ", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("cgroup is left: %v", err)
		}
	})
	s := settings(t, Config{Cgroup: dir})
	if text := s.Plan(0); text != "" {
		t.Errorf("plan %q", text)
	}
	given := &syscall.SysProcAttr{Setpgid: true}
	attr, err := s.Attr(given, false)
	if err != nil || !attr.Setpgid || given.UseCgroupFD {
		t.Errorf("Attr(%+v) = %+v", given, attr)
	}
	startsIn(t, attr, dir)

	// The cgroup is removed and made again, and so is something else at its path.
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Attr(nil, false); err == nil || !strings.Contains(err.Error(), dir+" was removed: make it again") {
		t.Errorf("without the cgroup: %v", err)
	}
	writeDir(t, dir)
	for range 2 {
		if attr, err = s.Attr(nil, true); err != nil {
			t.Fatal(err)
		}
		startsIn(t, attr, dir)
	}
	s.Close()
	s.Close()
}

// TestCgroupThatMoves checks that a directory that is no cgroup does not take
// the place of one, and that the old one is not used silently.
func TestCgroupThatMoves(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp(unified(t), "prefork-test-")
	if err != nil {
		t.Skip("cannot create a cgroup: ", err)
	}
	defer os.Remove(dir)
	link := filepath.Join(t.TempDir(), "cgroup")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	s := settings(t, Config{Cgroup: link})
	defer s.Close()
	os.Remove(link)
	if attr, err := s.Attr(nil, false); err != nil || !attr.UseCgroupFD {
		t.Errorf("the cgroup is there, but not at its path: %v", err)
	}
	writeDir(t, link)
	if _, err := s.Attr(nil, false); err == nil || !strings.Contains(err.Error(), "not a cgroup") {
		t.Errorf("another directory: %v", err)
	}
}

func writeDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// startsIn checks that a process starts in a cgroup, which it has left when
// startsIn returns.
func startsIn(t *testing.T, attr *syscall.SysProcAttr, dir string) {
	t.Helper()
	p := start(t, self(t), attr, nil, "apply", "")
	p.NextLine()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID()))
	if err != nil || !strings.Contains(string(text), "0::/"+filepath.Base(dir)+"\n") {
		t.Errorf("cgroup %s (%v), want %s", text, err, dir)
	}
	p.in.Close()
	p.Wait()
}

// TestCgroupsWithoutProcesses checks that Check refuses a cgroup in which the
// kernel would start no process, with the reason.
func TestCgroupsWithoutProcesses(t *testing.T) {
	needRoot(t)
	top := unified(t)
	dir, err := os.MkdirTemp(top, "prefork-test-")
	if err != nil {
		t.Skip("cannot create a cgroup: ", err)
	}
	removeCgroup := func(dir string) {
		if err := os.Remove(dir); err != nil {
			t.Errorf("cgroup is left: %v", err)
		}
	}
	t.Cleanup(func() { removeCgroup(dir) })
	threaded, invalid := filepath.Join(dir, "threaded"), filepath.Join(dir, "invalid")
	for _, d := range []string{threaded, invalid} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroup(d) })
	}
	refused := func(path, want string) {
		t.Helper()
		if s, err := Check(Config{Cgroup: path}, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", path, s, err, want)
		}
	}
	settings(t, Config{Cgroup: dir}).Close() // it has cgroups below it
	settings(t, Config{Cgroup: top}).Close() // the root cgroup
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if name, _, _ := strings.Cut(strings.TrimSpace(string(available)), " "); err == nil && name != "" {
		control := filepath.Join(dir, "cgroup.subtree_control")
		writeFile(t, control, "+"+name)
		refused(dir, "it distributes "+name+" to the cgroups below it")
		writeFile(t, control, "-"+name)
	}
	writeFile(t, filepath.Join(threaded, "cgroup.type"), "threaded")
	refused(invalid, "the type is domain invalid")
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
