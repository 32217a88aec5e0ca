package resources

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestMemoryCgroups(t *testing.T) {
	const (
		hybrid = `21 1 0:20 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
22 21 0:21 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
23 21 0:22 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
24 21 0:23 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
		unified = `30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
`
		container = `40 1 0:22 /docker/a\040b /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
41 1 0:30 / /proc rw - proc proc rw
`
	)
	for _, c := range []struct{ mounts, cgroups, v1, v2, top string }{
		{hybrid, "4:memory:/site/web\n1:cpu,cpuacct:/\n0::/user\n", "/sys/fs/cgroup/memory/site/web", "/sys/fs/cgroup/unified/user", "/sys/fs/cgroup/unified"},
		{hybrid, "4:memory:/\n0::/\n", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"},
		{unified, "0::/system.slice/web.service\n", "", "/sys/fs/cgroup/system.slice/web.service", "/sys/fs/cgroup"},
		{unified, "0::/../outside\n", "", "", "/sys/fs/cgroup"},
		{container, "9:memory:/docker/a b/web\n", "/sys/fs/cgroup/memory/web", "", ""},
		{container, "9:memory:/docker/a b\n", "/sys/fs/cgroup/memory", "", ""},
		{container, "9:memory:/docker/a b c\n", "", "", ""},
		{container, "", "", "", ""},
		{"nonsense\n", "nonsense\n", "", "", ""},
	} {
		if v1, v2, top := memoryCgroups(c.mounts, c.cgroups); v1 != c.v1 || v2 != c.v2 || top != c.top {
			t.Errorf("%q in\n%s: %q, %q, %q; want %q, %q, %q", c.cgroups, c.mounts, v1, v2, top, c.v1, c.v2, c.top)
		}
	}
}

// TestKillsFile checks the choice of the counter with the memory controller in
// version 2: the workers' cgroup, or the nearest cgroup above it that has the
// controller.
func TestKillsFile(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"web/workers/none", "other"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"web", "web/workers"} {
		if err := os.WriteFile(filepath.Join(top, dir, "memory.events"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mounts := "30 1 0:26 / " + top + " rw - cgroup2 cgroup2 rw\n"
	for _, tt := range []struct{ self, cgroup, want string }{
		{"/web", "", "web/memory.events"},
		{"/web/workers/none", "", "web/workers/memory.events"},
		{"/web", top + "/web/workers/", "web/workers/memory.events"},
		{"/other", "", ""}, // no search above the mount point
		{"/other", "/", ""},
	} {
		want := tt.want
		if want != "" {
			want = filepath.Join(top, want)
		}
		if got := killsFileOf(mounts, "0::"+tt.self+"\n", tt.cgroup); got != want {
			t.Errorf("in %s, workers in %q: %q, want %q", tt.self, tt.cgroup, got, want)
		}
	}
	v1 := "23 1 0:22 / " + top + " rw - cgroup cgroup rw,memory\n"
	if got := killsFileOf(v1, "4:memory:/other\n", ""); got != "" {
		t.Errorf("%q, want none: the file does not exist", got)
	}
	if got := killsFileOf("", "", ""); got != "" {
		t.Errorf("%q, want none without cgroups", got)
	}
}

// TestKills checks that each kill explains exits until it is claimed, also if
// several happened at once, and that earlier kills never do.
func TestKills(t *testing.T) {
	file := filepath.Join(t.TempDir(), "memory.events")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k := NewKills(file)
	want := func(when string, want bool) {
		t.Helper()
		for range 2 { // Caused must not claim
			if got := k.Caused(syscall.SIGKILL, false); got != want {
				t.Errorf("%s: %t, want %t", when, got, want)
			}
		}
	}
	want("no file", false)
	write("low 0\nhigh 7\nmax 9\noom 5\noom_kill 3\noom_group_kill 1\n")
	k = NewKills(file)
	want("only kills before the call", false)
	write("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
	want("two kills", true)
	if k.Caused(syscall.SIGKILL, true) {
		t.Error("a SIGKILL of the manager counts as a kill for lack of memory")
	}
	if k.Caused(syscall.SIGTERM, false) || k.Caused(0, false) {
		t.Error("an exit without SIGKILL counts as a kill for lack of memory")
	}
	k.Claim()
	want("one of two claimed", true)
	k.Claim()
	want("both claimed", false)
	write("oom_kill 1\n")
	want("the cgroup was made again, one kill", true)
	k.Claim()
	want("claimed", false)
	os.Remove(file)
	want("without the cgroup", false)
	write("oom_kill 1\n")
	want("with it again", false)
	write("oom_kill malformed\n")
	want("malformed file", false)
	if NewKills("").Caused(syscall.SIGKILL, false) || (*Kills)(nil).Caused(syscall.SIGKILL, false) {
		t.Error("an exit counts as a kill for lack of memory without a counter")
	}
}

// TestKillsCounter checks that the kernel's counter does not include a SIGKILL
// from another process.
func TestKillsCounter(t *testing.T) {
	k := new(Settings).Kills()
	if k.file == "" {
		t.Skip("the kernel counts no kills for this process")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	if err := cmd.Wait(); err == nil {
		t.Error("sleep was not killed")
	}
	if k.Caused(syscall.SIGKILL, false) {
		t.Errorf("a SIGKILL of this process is counted in %s", k.file)
	}
}

func BenchmarkKills(b *testing.B) {
	s := &Settings{}
	k := s.Kills()
	b.Log(k.file)
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			s.Kills()
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			k.Caused(syscall.SIGKILL, false)
		}
	})
}
