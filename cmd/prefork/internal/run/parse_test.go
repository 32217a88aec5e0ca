package run

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/cmd/prefork/internal/output"
)

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		parse func(string) (address, error)
		in    string
		want  address
	}{
		{parseListen, "8080", address{network: "tcp4", addr: "0.0.0.0:8080"}},
		{parseListen, ":8080", address{network: "tcp", addr: ":8080"}},
		{parseListen, "localhost:8080=5", address{network: "tcp", addr: "localhost:8080", pinned: true, fd: 5}},
		{parseListen, "[::1]:8080", address{network: "tcp6", addr: "[::1]:8080"}},
		{parseListen, "127.0.0.1:0", address{network: "tcp", addr: "127.0.0.1:0"}},
		{parseListen, "unix:/run/x.sock=4", address{network: "unix", addr: "/run/x.sock", pinned: true, fd: 4}},
		{parseListen, "udp:127.0.0.1:53", address{network: "udp", addr: "127.0.0.1:53"}},
		{parseListen, "udp:53", address{network: "udp4", addr: "0.0.0.0:53"}},
		{parsePort, "8080", address{network: "tcp4", addr: "0.0.0.0:8080"}},
		{parsePort, "u53", address{network: "udp4", addr: "0.0.0.0:53"}},
		{parsePort, "127.0.0.1:u53=7", address{network: "udp", addr: "127.0.0.1:53", pinned: true, fd: 7}},
		{parsePort, "u127.0.0.1:53", address{network: "udp", addr: "127.0.0.1:53"}},
		{parsePort, "upstream:80", address{network: "tcp", addr: "upstream:80"}},
		{parsePort, "[::1]:80", address{network: "tcp6", addr: "[::1]:80"}},
		{parsePath, "/run/x.sock", address{network: "unix", addr: "/run/x.sock", open: true}},
		{parsePort, "8080=0", address{network: "tcp4", addr: "0.0.0.0:8080", pinned: true}},
	} {
		if got, err := c.parse(c.in); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"", "x", "70000", "a:b", "::1:80", "unix:", "unix:x.sock", "unix:/a;b", "8080=2", "8080=1", "8080=-1", "8080=x", "8080=", "udp:", ":u53"} {
		if got, err := parseListen(in); err == nil {
			t.Errorf("--listen %q: %+v, want an error", in, got)
		}
	}
}

func TestReady(t *testing.T) {
	for in, want := range map[string]ready{
		"alive:1s": {after: time.Second}, "alive:0": {}, "alive:2.5": {after: 2500 * time.Millisecond}, "at-once": {}, "fd:3": {fd: 3}, "notify": {notify: true},
		"http://127.0.0.1:80%i/x": {url: "http://127.0.0.1:80%i/x"}, "http:https://h/": {url: "https://h/"}, "tcp:127.0.0.1:80%i": {tcp: "127.0.0.1:80%i"}, "tcp:8080": {tcp: "127.0.0.1:8080"},
	} {
		want.explain = in
		if got, err := parseReady(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "alive", "alive:x", "alive:1us", "alive:-1s", "fd:2", "fd:", "notify:1", "at-once:1", "http:x", "http:", "tcp:", "tcp:a:b", "never"} {
		if got, err := parseReady(in); err == nil {
			t.Errorf("--ready %q: %+v, want an error", in, got)
		}
	}
}

func TestTrap(t *testing.T) {
	for in, want := range map[string]prefork.Forward{
		"HUP=rolling": {Rolling: true}, "SIGHUP=rolling/5s": {Rolling: true, Linger: 5 * time.Second}, "hup=TERM": {Signal: syscall.SIGTERM},
		"1=quit/500ms": {Signal: syscall.SIGQUIT, Interval: 500 * time.Millisecond}, "HUP=none": {},
	} {
		if sig, got, err := parseTrap(in); err != nil || sig != syscall.SIGHUP || got != want {
			t.Errorf("%s: %v %+v, %v; want %+v", in, sig, got, err, want)
		}
	}
	for _, in := range []string{"", "HUP", "HUP=", "X=TERM", "HUP=x", "HUP=TERM/x", "HUP=none/1s", "0=TERM", "65=TERM"} {
		if _, got, err := parseTrap(in); err == nil {
			t.Errorf("--trap %q: %+v, want an error", in, got)
		}
	}
}

func TestLists(t *testing.T) {
	for in, want := range map[string]prefork.CrashLoop{"0": {Failures: -1}, "5": {Failures: 5}, "5/1m": {Failures: 5, Window: time.Minute}} {
		if got, err := parseGiveUp(in); err != nil || got != want {
			t.Errorf("--give-up %s: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for name, err := range map[string]error{
		"give-up": second(parseGiveUp("5/0")), "env": parseEnv([]string{"=x"}, nil), "unset": parseEnv(nil, []string{"a=b"}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestResources(t *testing.T) {
	for in, want := range map[string][]int{"": nil, "0": {0}, "0-3,8": {0, 1, 2, 3, 8}, "5,2-2": {5, 2}} {
		if got, err := parseCPUs(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("--cpus %s: %v, %v; want %v", in, got, err, want)
		}
	}
	for flag, change := range map[string]func(*Options, string){
		"--cpus": func(o *Options, v string) { o.CPUs = v }, "--limit": func(o *Options, v string) { o.Limits = []string{v} },
		"--user": func(o *Options, v string) { o.User = v }, "--groups": func(o *Options, v string) { o.Groups = strings.Split(v, ",") },
	} {
		for _, value := range map[string][]string{
			"--cpus": {"x", "3-1", "-1", "0-", "1024", "0,,1"}, "--user": {":", "www:", ":adm"}, "--groups": {"adm,www"},
			"--limit": {"nofile", "=1", "nofile=", "nofile=x", "nofile=2:1", "nofile=1:0", "nofile=1:", "nofile=-1"},
		}[flag] {
			o := defaults()
			change(&o, value)
			if _, err := o.plan(); Status(err) != ExitUsage || !strings.HasPrefix(err.Error(), flag+" "+value+":") {
				t.Errorf("%s %s: %v", flag, value, err)
			}
		}
	}
	o := defaults()
	o.User, o.Groups, o.Umask, o.Nice, o.CPUs, o.Limits, o.NoNewPrivs = "7:8", []string{}, "027", 5, "1", []string{"core=0", "nofile=9"}, true
	p, err := o.plan()
	want := prefork.Resources{User: "7", Group: "8", Groups: []string{}, Umask: "027", Nice: 5, CPUs: []int{1}, NoNewPrivs: true,
		Rlimits: []prefork.Rlimit{{Resource: "core"}, {Resource: "nofile", Soft: 9, Hard: 9}}}
	if err != nil || !reflect.DeepEqual(p.config.Resources, want) {
		t.Errorf("%+v, %v; want %+v", p.config.Resources, err, want)
	}
}

// An error of New names the flag. Each field that a flag sets is in the table.
func TestFlagError(t *testing.T) {
	for field, want := range map[string]string{"Resources.Umask": "--umask: why", "Resources.Group": "--user: why; give it as USER:GROUP"} {
		if got := flagError(&prefork.ConfigError{Field: field, Err: errors.New("why")}); got.Error() != want || Status(got) != ExitUsage {
			t.Errorf("%s: %v, status %d", field, got, Status(got))
		}
	}
	for _, err := range []error{&prefork.ConfigError{Field: "MaxWorkers", Err: errors.New("why")}, errors.New("another")} {
		if got := flagError(err); got != err {
			t.Errorf("%v: %v", err, got)
		}
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[prefork.Resources]()) {
		if name := "Resources." + field.Name; flags[name] == "" && !slices.Contains([]string{"GOMAXPROCS", "GOMEMLIMIT", "CPUsPerWorker"}, field.Name) {
			t.Errorf("%s has no flag", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestExpand(t *testing.T) {
	for in, want := range map[string]string{"80%i": "803", "%g-%i": "7-3", "%%i": "%i", "100%": "100%", "%x": "%x"} {
		if got := expand(in, 3, 7); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// defaults returns the options of a command line without flags.
func defaults() Options {
	return Options{Args: []string{"/bin/web", "%i"}, Workers: 1, Surge: 1, Group: true, StopTimeout: DefaultStop, ReadyTimeout: DefaultReadyIn,
		Backoff: DefaultBackoff, Restart: "always", GiveUp: "0", AutoRestartInterval: DefaultAutoRestart, Options: output.Options{Log: "-"}}
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		check  func(prefork.Config, *plan) bool
	}{
		"defaults": {func(*Options) {}, func(c prefork.Config, p *plan) bool {
			return c.Name == "web" && c.Readiness == prefork.Readiness{After: time.Second} && c.StopGroup && c.StopSignal == syscall.SIGTERM &&
				reflect.DeepEqual(c.TrapSignals, prefork.Signals{syscall.SIGHUP: {Rolling: true}, syscall.SIGTERM: {Signal: syscall.SIGTERM}}) && len(c.Backoff) == 8 && c.CrashLoop.Failures == -1 && !p.starter
		}},
		"listen": {func(o *Options) { o.Listen = []string{"0"} }, func(c prefork.Config, p *plan) bool { return p.starter && c.ListenStarter && !c.ListenFDs }},
		"systemd": {func(o *Options) { o.Listen, o.Pass = []string{"0"}, "systemd" }, func(c prefork.Config, p *plan) bool {
			return !p.starter && c.ListenFDs
		}},
		"start_server": {func(o *Options) {
			o.Interval, o.SignalOnHup, o.SignalOnTerm, o.KillOldDelay = "2", "USR1", "QUIT", "3"
		}, func(c prefork.Config, p *plan) bool {
			return c.Readiness.After == 2*time.Second && c.StopSignal == syscall.SIGQUIT && c.TrapSignals[syscall.SIGHUP].Linger == 3*time.Second && c.TrapSignals[syscall.SIGHUP].Rolling
		}},
		"auto restart": {func(o *Options) { o.AutoRestart = true }, func(c prefork.Config, p *plan) bool {
			return c.Recycle.MaxLifetime == 6*time.Minute && c.TrapSignals[syscall.SIGHUP].Linger == 5*time.Second
		}},
		"trap TERM": {func(o *Options) { o.Trap = []string{"TERM=QUIT"} }, func(c prefork.Config, p *plan) bool {
			return c.StopSignal == syscall.SIGQUIT && c.TrapSignals[syscall.SIGTERM].Signal == syscall.SIGQUIT
		}},
		"no timeouts": {func(o *Options) { o.StopTimeout, o.ReadyTimeout, o.Ready = 0, 0, "notify" }, func(c prefork.Config, p *plan) bool {
			return c.StopTimeout < 0 && c.Readiness.Timeout < 0 && c.Readiness.Explicit
		}},
		"no group": {func(o *Options) { o.NoGroup = true }, func(c prefork.Config, p *plan) bool { return !c.StopGroup }},
	} {
		o := defaults()
		c.change(&o)
		p, err := o.plan()
		if err != nil || !c.check(p.config, p) {
			t.Errorf("%s: %v, %+v", name, err, p)
		}
	}
	for name, change := range map[string]func(*Options){
		"no program":       func(o *Options) { o.Args = nil },
		"no workers":       func(o *Options) { o.Workers = 0 },
		"pin and systemd":  func(o *Options) { o.Listen, o.Pass = []string{"80=5"}, "systemd" },
		"two pins":         func(o *Options) { o.Listen = []string{"80=5", "81=5"} },
		"two inputs":       func(o *Options) { o.Listen = []string{"80=0", "81=0"} },
		"pin and fd":       func(o *Options) { o.Listen, o.Ready = []string{"80=5"}, "fd:5" },
		"none and starter": func(o *Options) { o.Pass = "none,starter" },
		"interval, ready":  func(o *Options) { o.Interval, o.Ready = "1", "notify" },
		"two stops":        func(o *Options) { o.StopSignal, o.SignalOnTerm = "QUIT", "INT" },
		"TERM rolls":       func(o *Options) { o.Trap = []string{"TERM=rolling"} },
		"HUP twice":        func(o *Options) { o.Trap, o.SignalOnHup = []string{"HUP=TERM"}, "USR1" },
		"no envdir":        func(o *Options) { o.EnvDir = "/nonexistent" },
		"no dir":           func(o *Options) { o.Dir = "/nonexistent" },
		"max of stderr":    func(o *Options) { o.LogMax = "1M" },
		"two forms":        func(o *Options) { o.LogPrefix, o.LogJSON = true, true },
		"daemon, stderr":   func(o *Options) { o.Daemonize = true },
		"daemon, no log":   func(o *Options) { o.Daemonize, o.Log = true, "none" },
		"two ages":         func(o *Options) { o.AutoRestart, o.MaxAge = true, time.Hour },
	} {
		o := defaults()
		change(&o)
		if _, err := o.plan(); Status(err) != ExitUsage {
			t.Errorf("%s: %v, want an error of usage", name, err)
		}
	}
}

func TestVariables(t *testing.T) {
	t.Setenv("FROM_OUTSIDE", "x")
	o := defaults()
	o.Env, o.Unset, o.CleanEnv = []string{"SLOT=%i"}, []string{"B"}, true
	p, err := o.plan()
	if err != nil {
		t.Fatal(err)
	}
	set, unset, err := p.variables(2, 1)
	if err != nil || !slices.Equal(set, []string{"SLOT=2"}) || !slices.Contains(unset, "FROM_OUTSIDE") || !slices.Contains(unset, "B") || !slices.Contains(unset, starterGeneration) {
		t.Errorf("%q, %q, %v", set, unset, err)
	}
}

// A directory that can no longer be read changes nothing.
func TestVariablesOfLostDirectory(t *testing.T) {
	o := defaults()
	o.EnvDir, o.CleanEnv = t.TempDir(), true
	t.Setenv("FROM_OUTSIDE", "x")
	if err := os.WriteFile(filepath.Join(o.EnvDir, "PASSWORD"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := o.plan()
	if err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(o.EnvDir)
	for range 2 {
		set, unset, err := p.variables(0, 1)
		if err == nil || !slices.Equal(set, []string{"PASSWORD=secret"}) || !slices.Contains(unset, "FROM_OUTSIDE") {
			t.Errorf("%q, %q, %v", set, unset, err)
		}
	}
}

func TestStatusFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	s := statusFile{path: path, workers: make(map[int]int)}
	for _, err := range []error{s.set(9, 1), s.set(8, 2), s.set(7, 1), s.set(6, 1), s.remove(6), s.remove(5)} {
		if err != nil {
			t.Error(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil || string(data) != "1:7\n1:9\n2:8\n" {
		t.Errorf("%q, %v", data, err)
	}
	if lowest, highest, err := readStatus(path); err != nil || lowest != 1 || highest != 2 {
		t.Errorf("%d, %d, %v; want 1 and 2", lowest, highest, err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("left: %s", strings.Join(left, ", "))
	}
	if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := readStatus(path); err == nil {
		t.Error("a damaged file is no error")
	}
}
