package resources

import (
	"fmt"
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
		t.Skipf("nice is %d (%v), the maximum", now, err)
	}
	p := applied(t, settings(t, Config{Nice: now + 1}).Plan(0))
	p.want("Nice", itoa(now+1))
	if got, want := p.ask("nice"), itoa(now+1)+" (<nil>)"; got != want {
		t.Errorf("a child has nice %s, want %s", got, want)
	}
	t.Run("negative", func(t *testing.T) {
		needRoot(t)
		if !hasCapability(unix.CAP_SYS_NICE) {
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
		if line := p.NextLine(); !strings.HasPrefix(line, "applied gomaxprocs=1 ") {
			t.Errorf("slot %d: %s, want gomaxprocs=1: the runtime must count the CPUs again", slot, line)
		}
		p.want("Cpus_allowed_list", itoa(cpus[slot%len(cpus)]))
	}
	applied(t, s.Plan(-1)).want("Cpus_allowed_list", strings.ReplaceAll(ranges(cpus), ".", ","))
	t.Run("with GOMAXPROCS", func(t *testing.T) {
		s := settings(t, Config{CPUsPerWorker: 1, GOMAXPROCS: 3, GOMEMLIMIT: 1 << 30})
		p := start(t, self(t), nil, s.Env(1), "apply", s.Plan(0))
		if line := p.NextLine(); !strings.HasPrefix(line, "applied gomaxprocs=3 ") {
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
		t.Errorf("soft nofile of a child: %s, want 30", got)
	}
	if hard, core := p.NextLine(), p.NextLine(); hard != "40" || core != "0 (<nil>)" {
		t.Errorf("hard nofile %s, core %s of a child; want 40 and 0", hard, core)
	}
	if got := p.ask("open"); !strings.HasSuffix(got, "too many open files") || !strings.HasPrefix(got, "2") {
		t.Errorf("opened files: %s; want 20 to 29, then an error", got)
	}
	p = applied(t, settings(t, Config{Rlimits: []Rlimit{{"fsize", 1024, 0}}}).Plan(0))
	if got := p.ask("head -c 4096 /dev/zero >" + filepath.Join(t.TempDir(), "f") + " 2>&1"); !strings.Contains(got, "(") || strings.Contains(got, "<nil>") {
		t.Errorf("write beyond fsize: %s", got)
	}
}

// TestRlimitNames checks that each name sets that limit of the kernel, and no
// other.
func TestRlimitNames(t *testing.T) {
	kernelNames := map[string]string{
		"as": "Max address space", "core": "Max core file size", "cpu": "Max cpu time", "data": "Max data size", "fsize": "Max file size",
		"memlock": "Max locked memory", "nofile": "Max open files", "nproc": "Max processes", "stack": "Max stack size",
	}
	for _, name := range limitNames {
		// High enough to limit nothing here, and different from the current value.
		want := min(1<<40-1, hardLimit(t, name)-1)
		p := applied(t, settings(t, Config{Rlimits: []Rlimit{{name, want, 0}}}).Plan(0))
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.PID()))
		if err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf(`(?m)^%s +%d +%d `, kernelNames[name], want, want); !regexp.MustCompile(line).Match(limits) {
			t.Errorf("%s of %d:\n%s", name, want, limits)
		}
		if n := strings.Count(string(limits), fmt.Sprintf(" %d ", want)); n != 2 {
			t.Errorf("%s of %d appears %d times, want 2:\n%s", name, want, n, limits)
		}
	}
	if _, ok := RlimitNumber("rss"); ok {
		t.Error("rss is a name, want none")
	}
}

// TestRootInChroot checks that the new root directory may be the manager's. The
// worker changes to it and has the given groups.
func TestRootInChroot(t *testing.T) {
	needRoot(t)
	text := settings(t, Config{User: "1234", Group: "1235", Groups: []string{"7", "5"}, Chroot: "/"}).Plan(0)
	p := start(t, shared(t), nil, nil, "apply", text)
	if line := p.NextLine(); !strings.HasPrefix(line, "applied") {
		t.Fatal(line)
	}
	p.want("Groups", "5 7")
	if got := p.ask("pwd"); got != "/ (<nil>)" {
		t.Errorf("working directory %s, want /", got)
	}
}

// TestUserInChroot runs a worker as another user in a chroot, from a file that
// only root may run, and checks that it cannot return.
func TestUserInChroot(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH: the program for the chroot cannot be built")
	}
	server, jail := newJail(t)
	for _, tt := range []struct {
		name                 string
		c                    Config
		groups               string // of all threads
		whoami, whoamiSetuid string
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
			// It starts with groups that it must drop.
			attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{0, 4, 24}}}
			p := start(t, server, attr, nil, "apply", settings(t, tt.c).Plan(0))
			line := p.NextLine()
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
			p.wantJailed(jail)
			if got := p.ask("exec /whoami"); got != tt.whoami {
				t.Errorf("whoami prints\n%s, want\n%s", got, tt.whoami)
			}
			if got := p.ask("exec /setuid"); got != tt.whoamiSetuid {
				t.Errorf("a set-user-ID whoami prints\n%s, want\n%s", got, tt.whoamiSetuid)
			}
		})
	}
}

// wantJailed checks the root directory of the process, and that it has no
// directory open.
func (p *process) wantJailed(jail string) {
	p.t.Helper()
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/root", p.PID())); err != nil || got != jail {
		p.t.Errorf("root directory %s, %v; want %s", got, err, jail)
	}
	for _, path := range p.openPaths() {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			p.t.Errorf("directory %s is left open, a way out of the chroot", path)
		}
	}
}

// newJail returns a copy of the test binary that only root may run, and a
// directory for a chroot with two copies of the program whoami. One of them is
// set-user-ID.
func newJail(t *testing.T) (server, jail string) {
	t.Helper()
	dir := t.TempDir()
	server, jail = filepath.Join(dir, "server"), filepath.Join(dir, "jail")
	copyFile(t, server, self(t), 0o700)
	if err := os.Mkdir(jail, 0o755); err != nil {
		t.Fatal(err)
	}
	whoami := filepath.Join(jail, "whoami")
	build := exec.Command("go", "build", "-o", whoami, "testdata/whoami/main.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	copyFile(t, filepath.Join(jail, "setuid"), whoami, os.ModeSetuid|0o755)
	return server, jail
}

// TestUserByName compares with the program id and the names of the system.
func TestUserByName(t *testing.T) {
	needRoot(t)
	p := applied(t, settings(t, Config{User: "nobody", NoNewPrivs: true}).Plan(0))
	want, err := exec.Command("id", "nobody").Output()
	if err != nil {
		t.Skip("no program id, or no user nobody")
	}
	if got := p.ask("id"); got != strings.TrimSpace(string(want))+" (<nil>)" {
		t.Errorf("id prints %q, want %q", got, want)
	}
	p.want("Groups", "")
	p.want("NoNewPrivs", "1")
}

// TestThreadsComeAndGo checks that threads that start and exit during Apply end
// up with the same attributes as the others.
func TestThreadsComeAndGo(t *testing.T) {
	now, err := niceOf(0)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{CPUsPerWorker: 1, Nice: min(now+1, maxNice), NoNewPrivs: true}
	if os.Geteuid() == 0 && hasCapability(unix.CAP_SETUID) {
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

// TestThreadThatEnds checks the tolerance for exiting threads: with cgo, they
// keep their old privileges and stay visible for a moment. A thread that stays
// is an error, whichever attribute differs.
func TestThreadThatEnds(t *testing.T) {
	if err := verifyStatus(t, correctStatus, false); err != nil {
		t.Error(err)
	}
	if err := verifyStatus(t, strings.Replace(correctStatus, "7 7 7 7", "0 0 0 0", 1), true); err != nil {
		t.Errorf("a thread that has exited: %v", err)
	}
	for _, tt := range []struct{ name, was, is, want string }{
		{"user", "7 7 7 7", "7 7 0 7", "User: user 7, group 8, supplementary groups [4 5]: set, but Uid 7 7 0 7 is in force"},
		{"group", "8 8 8 8", "8 8 8 0", "set, but Gid 8 8 8 0 is in force"},
		{"groups", "4 5", "0 4 5", "set, but the supplementary groups 0 4 5 are in force"},
		{"malformed group", "4 5", "4 adm", "not a number"},
		{"capabilities", "CapPrm: 00", "CapPrm: 01", "has kept capabilities (CapPrm 01)"},
		{"effective capabilities", "CapEff: 00", "CapEff: 01", "has kept capabilities (CapEff 01)"},
		{"ambient capabilities", "CapAmb: 00", "CapAmb: 01", "has kept capabilities (CapAmb 01)"},
		{"new privileges", "NoNewPrivs: 1", "NoNewPrivs: 0", "NoNewPrivs: set, but not in force"},
		{"empty file", correctStatus, "", "set, but "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := verifyStatus(t, strings.Replace(correctStatus, tt.was, tt.is, 1), false); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %s", err, tt.want)
			}
		})
	}
}

const correctStatus = "Uid: 7 7 7 7\nGid: 8 8 8 8\nGroups: 4 5\nCapPrm: 00\nCapEff: 00\nCapAmb: 00\nNoNewPrivs: 1\n"

// verifyStatus calls verify for a thread with the correct status file and one
// with the given contents. If exits, the second thread exits after verify has
// read its file.
func verifyStatus(t *testing.T, status string, exits bool) error {
	t.Helper()
	path := t.TempDir()
	write := func(tid string, create func(file string) error) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(path, tid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := create(filepath.Join(path, tid, "status")); err != nil {
			t.Fatal(err)
		}
	}
	write("1", func(file string) error { return os.WriteFile(file, []byte(correctStatus), 0o600) })
	write("2", func(file string) error {
		if exits { // opening a FIFO blocks until verify reads it
			return unix.Mkfifo(file, 0o600)
		}
		return os.WriteFile(file, []byte(status), 0o600)
	})
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	done := make(chan error)
	p := plan{identity: &identity{7, 8, []uint32{4, 5}}, noNewPrivs: true}
	go func() { done <- threads{dir}.verify(p, true) }()
	if exits {
		fifo, err := os.OpenFile(filepath.Join(path, "2", "status"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		os.RemoveAll(filepath.Join(path, "2"))
		fifo.WriteString(status)
		fifo.Close()
	}
	return <-done
}

// TestApplyFails checks that a worker reports the reason and exits if a step of
// its plan fails.
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
		{"a user that does not exist here", "id:1234:0:", alone, "setuid: invalid argument (the value does not exist in the user namespace", ""},
		{"a group that does not exist here", "id:0:1234:", alone, "setgid: invalid argument", ""},
		{"no chroot for nobody", "root:/", nobody, "Chroot: /: chroot: operation not permitted", ""},
		{"a missing directory", "id:1234:1234:|root:/nowhere/at/all", nil, "Chroot: /nowhere/at/all: no such file", ""},
		{"more than hard", "lim:nofile:500000:500000", nobody, "Rlimits: nofile to 500000, at most 500000: setrlimit: operation not permitted", ""},
		{"highest priority", "nice:-20", nobody, "Nice: -20: setpriority: permission denied", ""},
		{"a missing CPU", "cpu:1023", nil, "CPUs: 1023: sched_setaffinity: invalid argument", ""},
		{"a malformed plan", "id:root", nil, `malformed element "id:root" of a plan`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, program, tt.attr, nil, "apply", tt.plan)
			if line := p.NextLine(); !strings.HasPrefix(line, "error: ") || !strings.Contains(line, tt.want) {
				t.Errorf("%s, want %s", line, tt.want)
			}
			if line := p.NextLine(); !strings.Contains(line, tt.ids) {
				t.Errorf("identity %s, want %s", line, tt.ids)
			}
			p.WaitGone()
			if lines := p.Lines(); len(lines) != 2 {
				t.Errorf("unexpected output %q", lines)
			}
			if state := p.Wait(); state.ExitCode() != 1 {
				t.Errorf("exit: %v, want code 1", state)
			}
		})
	}
}

// TestCommand checks that the settings of Attr and Env apply to programs that
// do not use this library.
func TestCommand(t *testing.T) {
	needRoot(t)
	s, err := Check(Config{User: "nobody", Groups: []string{"7"}, Chroot: "/", GOMAXPROCS: 2}, true)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "id -u; id -g; id -G; pwd; echo $GOMAXPROCS")
	cmd.Env, cmd.Dir = append(os.Environ(), s.Env(1)...), "/"
	if cmd.SysProcAttr, err = s.Attr(nil, true); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if want := "65534\n65534\n65534 7\n/\n2\n"; err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

// BenchmarkApply measures the cost of a plan for a new process. The metric
// took-µs is the median duration of Apply alone; ns/op is the lifetime of the
// process.
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
				_, took, _ := strings.Cut(p.NextLine(), "took=")
				d, err := time.ParseDuration(took)
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, d)
				p.in.Close()
				p.Wait()
				p.Stop() // closes the descriptors of its output
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "took-µs")
		})
	}
}
