package resources

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		c           Config
		field, want string
	}{
		{Config{GOMAXPROCS: -2}, "GOMAXPROCS", "negative"},
		{Config{GOMEMLIMIT: -1}, "GOMEMLIMIT", "negative"},
		{Config{CPUsPerWorker: -1}, "CPUsPerWorker", "negative"},
		{Config{CPUsPerWorker: 2000}, "CPUsPerWorker", "more than the number of CPUs"},
		{Config{CPUs: []int{}}, "CPUs", "empty"},
		{Config{CPUs: []int{-1}}, "CPUs", "CPU -1 is not one that the manager may run on"},
		{Config{CPUs: []int{1023}}, "CPUs", "not one that the manager may run on"},
		{Config{Nice: 20}, "Nice", "not between"},
		{Config{Nice: -21}, "Nice", "not between"},
		{Config{Rlimits: []Rlimit{{"rss", 1, 1}}}, "Rlimits", `"rss" is not one of as, core`},
		{Config{Rlimits: []Rlimit{{"", 1, 1}}}, "Rlimits", "is not one of"},
		{Config{Rlimits: []Rlimit{{"core", 1, 1}, {"core", 1, 1}}}, "Rlimits", "twice"},
		{Config{Rlimits: []Rlimit{{"core", Unlimited, 1}}}, "Rlimits", "the soft limit (unlimited) is above the hard limit (1)"},
		{Config{Group: "0"}, "Group", "User must be set"},
		{Config{Groups: []string{}}, "Groups", "User must be set"},
		{Config{User: "no such user"}, "User", "no user"},
		{Config{User: "4000000"}, "Group", "must be given"},
		{Config{Cgroup: "/no/such/cgroup"}, "Cgroup", "no such file"},
		{Config{Cgroup: "/"}, "Cgroup", "/: not a cgroup"},
		{Config{Cgroup: file}, "Cgroup", "not a directory"},
		{Config{Chroot: "relative"}, "Chroot", "not an absolute path"},
		{Config{Chroot: file + "\x00"}, "Chroot", "not an absolute path"},
	} {
		s, err := Check(tt.c, false)
		var field *FieldError
		if s != nil || !errors.As(err, &field) || field.Field != tt.field || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v; want %s: an error with %q", tt.c, err, tt.field, tt.want)
		}
	}
	if os.Geteuid() == 0 {
		for path, want := range map[string]string{file: "is not a directory", "/no/such/dir": "no such file"} {
			if _, err := Check(Config{Chroot: path}, false); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Chroot %s: %v", path, err)
			}
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory/cgroup.procs"); err == nil {
		if _, err := Check(Config{Cgroup: "/sys/fs/cgroup/memory"}, false); err == nil || !strings.Contains(err.Error(), "version 1") {
			t.Errorf("a cgroup of version 1: %v", err)
		}
	}
}

func TestCheckDuplicateCPU(t *testing.T) {
	cpus, err := allowed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Check(Config{CPUs: []int{cpus[0], cpus[0]}}, false); err == nil || !strings.Contains(err.Error(), "is given twice") {
		t.Error(err)
	}
}

// TestCheckZeroConfig checks that the zero Config changes nothing but GOMAXPROCS
// of workers.
func TestCheckZeroConfig(t *testing.T) {
	for _, command := range []bool{false, true} {
		s, err := Check(Config{}, command)
		if err != nil || command && len(s.Env(1)) > 0 || s.Plan(0) != "" {
			t.Fatalf("%v, %q, %v", s.Env(1), s.Plan(0), err)
		}
		if attr, err := s.Attr(nil, command); err != nil || attr.UseCgroupFD || attr.Credential != nil || attr.Chroot != "" {
			t.Errorf("%+v", attr)
		}
	}
}

// A Command needs a first step only for resources that the start of a process
// cannot set.
func TestNeedsStep(t *testing.T) {
	for name, c := range map[string]struct {
		Config
		needs bool
		plan  string
	}{
		"nothing":       {},
		"variables":     {Config{GOMAXPROCS: 1, GOMEMLIMIT: 1 << 30}, false, ""},
		"user":          {Config{User: "root", Groups: []string{}}, false, "id:0:0:"},
		"chroot":        {Config{Chroot: "/"}, false, "root:/"},
		"CPUs":          {Config{CPUs: first(t)}, true, "cpu:" + ranges(first(t))},
		"CPUsPerWorker": {Config{CPUs: first(t), CPUsPerWorker: 1}, true, "cpu:" + ranges(first(t))},
		"Nice":          {Config{Nice: 19}, true, "nice:19"},
		"Umask":         {Config{Umask: "0"}, true, "mask:000"},
		"Rlimits":       {Config{Rlimits: []Rlimit{{"core", 0, 0}}}, true, "lim:core:0:0"},
		"NoNewPrivs":    {Config{NoNewPrivs: true}, true, "nnp:"},
	} {
		if os.Getuid() != 0 && (c.User != "" || c.Chroot != "") {
			continue
		}
		s, err := Check(c.Config, true)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.NeedsStep() != c.needs || s.Plan(0) != c.plan {
			t.Errorf("%s: needs a step %t, plan %q", name, s.NeedsStep(), s.Plan(0))
		}
	}
}

// first returns the first CPU on which this process may run.
func first(t *testing.T) []int {
	cpus, err := allowed()
	if err != nil {
		t.Fatal(err)
	}
	return cpus[:1]
}

func TestUmask(t *testing.T) {
	for text, want := range map[string]string{"": "", "0": "mask:000", "22": "mask:022", "0027": "mask:027", "777": "mask:777"} {
		if s, err := Check(Config{Umask: text}, false); err != nil || s.Plan(0) != want {
			t.Errorf("%q: %v, plan %q", text, err, s.Plan(0))
		}
	}
	for _, text := range []string{"8", "1000", "0o22", "-1", "u=rwx", " 22"} {
		_, err := Check(Config{Umask: text}, false)
		if field, ok := errors.AsType[*FieldError](err); !ok || field.Field != "Umask" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestCheckUnprivileged checks that a manager without root refuses the fields
// that require it.
func TestCheckUnprivileged(t *testing.T) {
	needRoot(t)
	program := shared(t)
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	one := []syscall.SysProcIDMap{{Size: 1}}
	alone := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one, GidMappingsEnableSetgroups: true}
	deny := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one}
	for _, tt := range []struct {
		c    Config
		attr *syscall.SysProcAttr
		want string
	}{
		{Config{User: "root"}, nobody, "User: the manager must run as root, not as user 65534"},
		{Config{User: "65534", Group: "65534"}, nobody, "ok id:65534:65534:"},
		{Config{User: "65534", Group: "65534", Groups: []string{"4"}}, nobody, "User: the manager must run as root"},
		{Config{Chroot: "/"}, nobody, "Chroot: the manager must run as root, with CAP_SYS_CHROOT"},
		{Config{Nice: -1}, nobody, "Nice: -1: the value is below the manager's"},
		{Config{Nice: 19}, nobody, "ok nice:19"},
		{Config{Rlimits: []Rlimit{{"nofile", 10, 900000}}}, nobody, "Rlimits: nofile: a hard limit of 900000 is above the manager's"},
		{Config{Rlimits: []Rlimit{{"nofile", 10, 20}}}, nobody, "ok lim:nofile:10:20"},
		{Config{NoNewPrivs: true}, nobody, "ok nnp:"},
		{Config{Cgroup: "CGROUP2"}, nobody, "Cgroup: CGROUP2: this process may not start others there"},
		{Config{User: "65534"}, alone, "User: user 65534 does not exist in this user namespace"},
		{Config{User: "0", Group: "1"}, alone, "Group: group 1 does not exist"},
		{Config{User: "0", Groups: []string{"1"}}, alone, "Groups: group 1 does not exist"},
		{Config{User: "0", Group: "0", Groups: []string{}}, deny, "ok id:0:0:"},
		{Config{User: "0", Group: "1", Groups: []string{}}, deny, "Groups: this user namespace does not allow"},
	} {
		if tt.c.Cgroup != "" {
			tt.c.Cgroup = unified(t)
			tt.want = strings.ReplaceAll(tt.want, "CGROUP2", tt.c.Cgroup)
		}
		text, err := json.Marshal(tt.c)
		if err != nil {
			t.Fatal(err)
		}
		if got := start(t, program, tt.attr, nil, "check", string(text)).NextLine(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", text, got, tt.want)
		}
	}
	if hard := hardLimit(t, "nofile"); hasCapability(unix.CAP_SYS_RESOURCE) && hard < maxLimit("nofile") {
		if _, err := Check(Config{Rlimits: []Rlimit{{"nofile", 10, hard + 1}}}, false); err != nil {
			t.Errorf("root must be able to raise a limit: %v", err)
		}
	}
	if _, err := Check(Config{Rlimits: []Rlimit{{"nofile", 10, 1 << 40}}}, false); err == nil || !strings.Contains(err.Error(), "above the system's") {
		t.Errorf("nofile above the system's maximum: %v", err)
	}
}
