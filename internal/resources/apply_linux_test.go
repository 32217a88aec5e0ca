package resources

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNice(t *testing.T) {
	now, err := niceOf(0)
	if err != nil || now >= maxNice {
		t.Skipf("nice is %d (%v), and cannot be more", now, err)
	}
	p := applied(t, settings(t, Config{Nice: now + 1}).Plan(0))
	p.want("Nice", itoa(now+1))
	if got, want := p.ask("nice"), itoa(now+1)+" (<nil>)"; got != want {
		t.Errorf("what it starts has nice %s, want %s", got, want)
	}
	t.Run("negative", func(t *testing.T) {
		needRoot(t)
		if !has(unix.CAP_SYS_NICE) {
			t.Skip("needs CAP_SYS_NICE")
		}
		applied(t, settings(t, Config{Nice: -3}).Plan(0)).want("Nice", "-3")
	})
}

func TestAffinity(t *testing.T) {
	cpus, err := allowed()
	if err != nil {
		t.Fatal(err)
	}
	s := settings(t, Config{CPUsPerWorker: 1})
	for slot := range len(cpus) + 1 {
		if slot > 3 {
			break
		}
		p := start(t, self(t), nil, nil, "apply", s.Plan(slot))
		if line := p.line(); !strings.HasPrefix(line, "applied gomaxprocs=1 ") {
			t.Errorf("slot %d: %s; the runtime counts the CPUs anew", slot, line)
		}
		p.want("Cpus_allowed_list", itoa(cpus[slot%len(cpus)]))
	}
	applied(t, s.Plan(-1)).want("Cpus_allowed_list", strings.ReplaceAll(ranges(cpus), ".", ","))
	t.Run("with GOMAXPROCS", func(t *testing.T) {
		s := settings(t, Config{CPUsPerWorker: 1, GOMAXPROCS: 3, GOMEMLIMIT: 1 << 30})
		p := start(t, self(t), nil, s.Env(), "apply", s.Plan(0))
		if line := p.line(); !strings.HasPrefix(line, "applied gomaxprocs=3 ") {
			t.Errorf("%s", line)
		}
		if got := p.ask("echo $GOMEMLIMIT"); got != "1073741824 (<nil>)" {
			t.Errorf("GOMEMLIMIT is %s", got)
		}
	})
}

func TestRlimits(t *testing.T) {
	p := applied(t, settings(t, Config{Rlimits: []Rlimit{{"nofile", 30, 40}, {"core", 0, 0}}}).Plan(0))
	if got := p.ask("ulimit -n; ulimit -Hn; ulimit -c"); got != "30" {
		t.Errorf("soft nofile of what it starts: %s, want 30", got)
	}
	if hard, core := p.line(), p.line(); hard != "40" || core != "0 (<nil>)" {
		t.Errorf("hard nofile %s, core %s of what it starts; want 40 and 0", hard, core)
	}
	if got := p.ask("open"); !strings.HasSuffix(got, "too many open files") || !strings.HasPrefix(got, "2") {
		t.Errorf("files that can be opened, %s; want 20 to 29, and an error", got)
	}
	p = applied(t, settings(t, Config{Rlimits: []Rlimit{{"fsize", 1024, 0}}}).Plan(0))
	if got := p.ask("head -c 4096 /dev/zero >" + filepath.Join(t.TempDir(), "f") + " 2>&1"); !strings.Contains(got, "(") || strings.Contains(got, "<nil>") {
		t.Errorf("writing more than fsize: %s", got)
	}
}

// Each name is that limit of the kernel's, and no other.
func TestRlimitNames(t *testing.T) {
	theirs := map[string]string{
		"as": "Max address space", "core": "Max core file size", "cpu": "Max cpu time", "data": "Max data size", "fsize": "Max file size",
		"memlock": "Max locked memory", "nofile": "Max open files", "nproc": "Max processes", "stack": "Max stack size",
	}
	for _, name := range limitNames {
		// So high that it limits nothing here, and yet another number than is in force.
		want := min(1<<40-1, hardLimit(t, name)-1)
		p := applied(t, settings(t, Config{Rlimits: []Rlimit{{name, want, 0}}}).Plan(0))
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf(`(?m)^%s +%d +%d `, theirs[name], want, want); !regexp.MustCompile(line).Match(limits) {
			t.Errorf("%s of %d:\n%s", name, want, limits)
		}
		if n := strings.Count(string(limits), fmt.Sprintf(" %d ", want)); n != 2 {
			t.Errorf("%s of %d stands there %d times:\n%s", name, want, n, limits)
		}
	}
	if _, ok := rlimit("rss"); ok {
		t.Error("there is no name rss")
	}
}

// The root directory may be that of the manager. A worker goes there, and has the groups that it was given.
func TestRootInChroot(t *testing.T) {
	needRoot(t)
	text := settings(t, Config{User: "1234", Group: "1235", Groups: []string{"7", "5"}, Chroot: "/"}).Plan(0)
	p := start(t, shared(t), nil, nil, "apply", text)
	if line := p.line(); !strings.HasPrefix(line, "applied") {
		t.Fatal(line)
	}
	p.want("Groups", "5 7")
	if got := p.ask("pwd"); got != "/ (<nil>)" {
		t.Errorf("it works in %s", got)
	}
}

// A worker as another user, in a chroot, from a file that only root may run, and without a way back.
func TestUserInChroot(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH: the program for the chroot cannot be built")
	}
	dir := t.TempDir()
	server, jail := filepath.Join(dir, "server"), filepath.Join(dir, "jail")
	data, err := os.ReadFile(self(t))
	if err == nil {
		err = os.WriteFile(server, data, 0o700)
	}
	if err == nil {
		err = os.Mkdir(jail, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(jail, "whoami"), "testdata/whoami/main.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err = os.ReadFile(filepath.Join(jail, "whoami"))
	if err == nil {
		err = os.WriteFile(filepath.Join(jail, "setuid"), data, 0o755)
	}
	if err == nil {
		err = os.Chmod(filepath.Join(jail, "setuid"), os.ModeSetuid|0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name                string
		c                   Config
		groups              string // of all threads
		whoami, whoamiAsUID string
	}{
		{"everything", Config{User: "1234", Group: "1235", Chroot: jail, NoNewPrivs: true}, "",
			"uid=1234 euid=1234 gid=1235 egid=1235 groups=[] nnp=1 dir=/ files=[setuid whoami] out=false root=false (<nil>)",
			"uid=1234 euid=1234 gid=1235 egid=1235 groups=[] nnp=1 dir=/ files=[setuid whoami] out=false root=false (<nil>)"},
		{"with groups", Config{User: "1234", Group: "1235", Groups: []string{"7", "5", "1235"}, Chroot: jail, NoNewPrivs: true}, "5 7",
			"uid=1234 euid=1234 gid=1235 egid=1235 groups=[5 7] nnp=1 dir=/ files=[setuid whoami] out=false root=false (<nil>)",
			"uid=1234 euid=1234 gid=1235 egid=1235 groups=[5 7] nnp=1 dir=/ files=[setuid whoami] out=false root=false (<nil>)"},
		{"new privileges", Config{User: "1234", Group: "1235", Chroot: jail}, "",
			"uid=1234 euid=1234 gid=1235 egid=1235 groups=[] nnp=0 dir=/ files=[setuid whoami] out=false root=false (<nil>)",
			"uid=1234 euid=0 gid=1235 egid=1235 groups=[] nnp=0 dir=/ files=[setuid whoami] out=false root=true (<nil>)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// What it starts with is more than it may keep.
			attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{0, 4, 24}}}
			p := start(t, server, attr, nil, "apply", settings(t, tt.c).Plan(0))
			line := p.line()
			if !strings.HasPrefix(line, "applied") {
				t.Fatal(line)
			}
			t.Log(line)
			nnp := "0"
			if tt.c.NoNewPrivs {
				nnp = "1"
			}
			for key, value := range map[string]string{"Uid": "1234 1234 1234 1234", "Gid": "1235 1235 1235 1235", "Groups": tt.groups,
				"NoNewPrivs": nnp, "CapEff": "0000000000000000", "CapPrm": "0000000000000000"} {
				p.want(key, value)
			}
			if got, err := os.Readlink(fmt.Sprintf("/proc/%d/root", p.cmd.Process.Pid)); err != nil || got != jail {
				t.Errorf("its root is %s, %v", got, err)
			}
			if got := p.ask("exec /whoami"); got != tt.whoami {
				t.Errorf("what it starts says\n%s, want\n%s", got, tt.whoami)
			}
			if got := p.ask("exec /setuid"); got != tt.whoamiAsUID {
				t.Errorf("a set-user-ID program that it starts says\n%s, want\n%s", got, tt.whoamiAsUID)
			}
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, fd := range fds {
				if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.cmd.Process.Pid, fd.Name())); err == nil && strings.HasPrefix(to, "/") {
					if info, err := os.Stat(to); err == nil && info.IsDir() {
						t.Errorf("the directory %s is left open, a way out", to)
					}
				}
			}
		})
	}
}

// id itself is asked, with the names of the system.
func TestUserByName(t *testing.T) {
	needRoot(t)
	p := applied(t, settings(t, Config{User: "nobody", NoNewPrivs: true}).Plan(0))
	want, err := exec.Command("id", "nobody").Output()
	if err != nil {
		t.Skip("no program id, or it does not know nobody")
	}
	if got := p.ask("id"); got != strings.TrimSpace(string(want))+" (<nil>)" {
		t.Errorf("id says %q, want %q", got, want)
	}
	p.want("Groups", "")
	p.want("NoNewPrivs", "1")
}

// Threads that come and go while a plan is followed have no other rights than the rest.
func TestThreadsComeAndGo(t *testing.T) {
	now, err := niceOf(0)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{CPUsPerWorker: 1, Nice: min(now+1, maxNice), NoNewPrivs: true}
	if os.Geteuid() == 0 && has(unix.CAP_SETUID) {
		c.User, c.Group = "1234", "1235"
	}
	s := settings(t, c)
	for range 10 {
		p := applied(t, s.Plan(0), "churn")
		p.want("Cpus_allowed_list", itoa(s.cpus[0]))
		p.want("Nice", itoa(c.Nice))
		p.want("NoNewPrivs", "1")
		if c.User != "" {
			p.want("Uid", "1234 1234 1234 1234")
			p.want("Groups", "")
		}
		p.in.Close()
	}
}

// With cgo a thread that is about to end keeps the rights that it had, and can be seen for a moment. One that stays is an error,
// whatever it is in which it differs.
func TestThreadThatEnds(t *testing.T) {
	const right = "Uid: 7 7 7 7\nGid: 8 8 8 8\nGroups: 4 5\nCapPrm: 00\nCapEff: 00\nCapAmb: 00\nNoNewPrivs: 1\n"
	p := plan{identity: &identity{7, 8, []uint32{4, 5}}, noNewPrivs: true}
	try := func(t *testing.T, status string, gone bool) error {
		t.Helper()
		var err error
		path := t.TempDir()
		for tid, text := range map[string]string{"1": right, "2": status} {
			if err := os.Mkdir(filepath.Join(path, tid), 0o755); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(path, tid, "status")
			if gone && tid == "2" { // a pipe, which tells when it is looked at
				err = unix.Mkfifo(file, 0o600)
			} else {
				err = os.WriteFile(file, []byte(text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		done := make(chan error)
		go func() { done <- threads{dir}.verify(p, true) }()
		if gone {
			looked, err := os.OpenFile(filepath.Join(path, "2", "status"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			os.RemoveAll(filepath.Join(path, "2"))
			looked.WriteString(status)
			looked.Close()
		}
		return <-done
	}
	if err := try(t, right, false); err != nil {
		t.Error(err)
	}
	if err := try(t, strings.Replace(right, "7 7 7 7", "0 0 0 0", 1), true); err != nil {
		t.Errorf("it has ended: %v", err)
	}
	for _, tt := range []struct{ name, was, is, want string }{
		{"user", "7 7 7 7", "7 7 0 7", "User: user 7, group 8, supplementary groups [4 5]: set, but Uid 7 7 0 7 is in force"},
		{"group", "8 8 8 8", "8 8 8 0", "set, but Gid 8 8 8 0 is in force"},
		{"groups", "4 5", "0 4 5", "set, but the supplementary groups 0 4 5 are in force"},
		{"what the kernel does not write", "4 5", "4 adm", "not a number"},
		{"capabilities", "CapPrm: 00", "CapPrm: 01", "capabilities are left (CapPrm 01)"},
		{"new privileges", "NoNewPrivs: 1", "NoNewPrivs: 0", "NoNewPrivs: set, but not in force"},
		{"nothing", right, "", "set, but "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := try(t, strings.Replace(right, tt.was, tt.is, 1), false); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %s", err, tt.want)
			}
		})
	}
}

// What cannot be had is an error with a reason, and not a worker that goes on.
func TestApplyFails(t *testing.T) {
	needRoot(t)
	program := shared(t)
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	one := []syscall.SysProcIDMap{{Size: 1}}
	alone := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one, GidMappingsEnableSetgroups: true}
	for _, tt := range []struct {
		name, plan string
		attr       *syscall.SysProcAttr
		want, ids  string
	}{
		{"root for nobody", "id:0:0:", nobody, "User: user 0, group 0, supplementary groups []: setgroups: operation not permitted", "uid=65534 euid=65534 gid=65534 groups=[]"},
		{"another user for nobody", "id:1234:65534:", nobody, "setgroups: operation not permitted", "uid=65534 euid=65534 gid=65534 groups=[]"},
		{"a user that does not exist here", "id:1234:0:", alone, "setuid: invalid argument (the value is not known in the user namespace", ""},
		{"a group that does not exist here", "id:0:1234:", alone, "setgid: invalid argument", ""},
		{"no chroot for nobody", "root:/", nobody, "Chroot: /: chroot: operation not permitted", ""},
		{"a directory that is gone", "root:/nowhere/at/all|id:1234:1234:", nil, "Chroot: /nowhere/at/all: no such file", ""},
		{"more than hard", "lim:nofile:500000:500000", nobody, "Rlimits: nofile to 500000, at most 500000: setrlimit: operation not permitted", ""},
		{"first in the queue", "nice:-20", nobody, "Nice: -20: setpriority: permission denied", ""},
		{"a CPU that there is not", "cpu:1023", nil, "CPUs: 1023: sched_setaffinity: invalid argument", ""},
		{"no text of ours", "id:root", nil, `"id:root" in a plan is not what a manager writes`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, program, tt.attr, nil, "apply", tt.plan)
			if line := p.line(); !strings.HasPrefix(line, "error: ") || !strings.Contains(line, tt.want) {
				t.Errorf("%s, want %s", line, tt.want)
			}
			if line := p.line(); !strings.Contains(line, tt.ids) {
				t.Errorf("it is %s, want %s", line, tt.ids)
			}
			rest, err := io.ReadAll(p.lines)
			if err != nil || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
			if err := p.cmd.Wait(); p.cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// unified is where the second version of cgroups is mounted.
func unified(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Skip(err)
	}
	m := regexp.MustCompile(`(?m)^\S+ (\S+) cgroup2 `).FindSubmatch(mounts)
	if m == nil {
		t.Skip("no cgroup2 is mounted: placement cannot be tested")
	}
	return string(m[1])
}

func TestCgroup(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp(unified(t), "prefork-test-")
	if err != nil {
		t.Skip("no cgroup can be made: ", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("the cgroup is left: %v", err)
		}
	})
	s := settings(t, Config{Cgroup: dir})
	if text := s.Plan(0); text != "" {
		t.Errorf("plan %q", text)
	}
	theirs := &syscall.SysProcAttr{Setpgid: true}
	attr := s.Attr(theirs, false)
	if !attr.Setpgid || theirs.UseCgroupFD {
		t.Errorf("%+v from %+v", attr, theirs)
	}
	p := start(t, self(t), attr, nil, "apply", "")
	p.line()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.cmd.Process.Pid))
	if err != nil || !strings.Contains(string(text), "0::/"+filepath.Base(dir)+"\n") {
		t.Errorf("it is in %s (%v)", text, err)
	}
	p.in.Close()
	p.cmd.Wait() // or the cgroup could not be removed
	s.Close()
	s.Close()
}

// A cgroup in which the kernel would start no process is refused when it is named, with the reason.
func TestCgroupsThatHoldNone(t *testing.T) {
	needRoot(t)
	top := unified(t)
	dir, err := os.MkdirTemp(top, "prefork-test-")
	if err != nil {
		t.Skip("no cgroup can be made: ", err)
	}
	threaded, invalid := filepath.Join(dir, "threaded"), filepath.Join(dir, "invalid")
	t.Cleanup(func() {
		for _, d := range []string{threaded, invalid, dir} {
			if err := os.Remove(d); err != nil {
				t.Errorf("the cgroup is left: %v", err)
			}
		}
	})
	for _, d := range []string{threaded, invalid} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(path, want string) {
		t.Helper()
		if s, err := Check(Config{Cgroup: path}, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %s", path, s, err, want)
		}
	}
	if _, err := Check(Config{Cgroup: dir}, false); err != nil {
		t.Errorf("one that holds others: %v", err)
	}
	if _, err := Check(Config{Cgroup: top}, false); err != nil {
		t.Errorf("the root: %v", err)
	}
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if name, _, _ := strings.Cut(strings.TrimSpace(string(available)), " "); err == nil && name != "" {
		control := filepath.Join(dir, "cgroup.subtree_control")
		if err := os.WriteFile(control, []byte("+"+name), 0); err != nil {
			t.Fatal(err)
		}
		refused(dir, "it shares out "+name+" among the cgroups below it")
		if err := os.WriteFile(control, []byte("-"+name), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(threaded, "cgroup.type"), []byte("threaded"), 0); err != nil {
		t.Fatal(err)
	}
	refused(invalid, "its type is domain invalid")
}

// What the start of a process can set holds for programs that know nothing of this library.
func TestCommand(t *testing.T) {
	needRoot(t)
	s, err := Check(Config{User: "nobody", Groups: []string{"7"}, Chroot: "/", GOMAXPROCS: 2}, true)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "id -u; id -g; id -G; pwd; echo $GOMAXPROCS")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = append(os.Environ(), s.Env()...), "/", s.Attr(nil, true)
	out, err := cmd.CombinedOutput()
	if want := "65534\n65534\n65534 7\n/\n2\n"; err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

// BenchmarkApply tells what a plan costs a new process. took is Apply alone, the median; ns/op is the life of the process.
func BenchmarkApply(b *testing.B) {
	needRoot(b)
	for _, tt := range []struct {
		name string
		c    Config
	}{
		{"nothing", Config{}}, {"limits", Config{Rlimits: []Rlimit{{"core", 0, 0}}}}, {"nice", Config{Nice: 1}}, {"CPUs", Config{CPUsPerWorker: 1}},
		{"chroot", Config{Chroot: "/usr"}}, {"user", Config{User: "nobody"}}, {"nnp", Config{NoNewPrivs: true}},
		{"all", Config{Rlimits: []Rlimit{{"core", 0, 0}}, Nice: 1, CPUsPerWorker: 1, Chroot: "/usr", User: "nobody", NoNewPrivs: true}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			text := settings(b, tt.c).Plan(0)
			var all []time.Duration
			for b.Loop() {
				p := start(b, self(b), nil, nil, "apply", text, "bare")
				_, took, _ := strings.Cut(p.line(), "took=")
				d, err := time.ParseDuration(took)
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, d)
				p.in.Close()
				p.cmd.Wait()
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "took-µs")
		})
	}
}
