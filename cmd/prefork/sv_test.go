//go:build unix

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/control"
)

// fakeServices are the services of a control socket of this process.
type fakeServices struct {
	mu      sync.Mutex
	all     map[string]*client.Service
	changed chan struct{}
	wrote   map[string]string
	react   map[byte]func(*client.Service)
	look    func(*client.Service) // before each list
}

func (f *fakeServices) Services() (all []client.Service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.all {
		if f.look != nil {
			f.look(s)
		}
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b client.Service) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (f *fakeServices) Started() bool { return true }

func (f *fakeServices) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeServices) Do(name string, command byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrote[name] += string(command)
	s := f.all[strings.TrimSuffix(name, "/log")]
	if s.State == client.StateEnded {
		return errors.New("it has ended")
	}
	if react := f.react[command]; react != nil {
		react(s)
		close(f.changed)
		f.changed = make(chan struct{})
	}
	return nil
}

func (f *fakeServices) Keep(name string, down bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrote[name] += fmt.Sprintf("[down=%v]", down)
	f.all[name].NormallyUp = !down
	return nil
}

// startServices serves services on a control socket, which PREFORK_CONTROL names.
func startServices(t *testing.T, all ...client.Service) *fakeServices {
	t.Helper()
	pm, err := prefork.New(prefork.Config{Name: "watch", Logger: slog.New(slog.DiscardHandler), Untrapped: true})
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeServices{all: make(map[string]*client.Service), changed: make(chan struct{}), wrote: make(map[string]string)}
	for _, s := range all {
		f.all[s.Name] = &s
	}
	socket := filepath.Join(testprog.SocketDir(t), "watch"+client.Suffix)
	detach, err := control.Attach(control.Config{Path: socket, Services: f}, pm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(detach(), pm.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Setenv(client.EnvSocket, socket)
	return f
}

var (
	svUp   = client.Service{Name: "web", Kind: "service", State: client.StateRun, Since: time.Now().Add(-10 * time.Second), PID: 4711, Want: client.WantUp, Ready: true, NormallyUp: true}
	svDown = client.Service{Name: "web", Kind: "service", State: client.StateDown, Since: svUp.Since, Want: client.WantDown, NormallyUp: true}
	svEnd  = client.Service{Name: "web", Kind: "service", State: client.StateEnded}

	svSeconds = regexp.MustCompile(`\d+s\b`)
)

type changes = map[byte]func(*client.Service)

func svStart(s *client.Service) {
	log := s.Log
	*s = svUp
	s.Since, s.PID, s.Log = time.Now(), 4800, log
}
func svStop(s *client.Service)   { normally := s.NormallyUp; *s = svDown; s.NormallyUp = normally }
func svTerm(s *client.Service)   { s.Term, s.Want = true, client.WantDown }
func svPause(s *client.Service)  { s.Paused = true }
func svNotUp(s *client.Service)  { s.Want = client.WantDown }
func svExited(s *client.Service) { *s = svEnd }

func changed(s client.Service, change func(*client.Service)) client.Service {
	change(&s)
	return s
}

// The verbs of sv, as TestSV of ops/supervise has them for sv itself.
func TestServiceVerbs(t *testing.T) {
	const ok, up, down = "ok: ", "run: web: (pid 4711) Ns", "down: web: Ns, normally up"
	const again = "ok: run: web: (pid 4800) Ns"
	check := func(code string) string {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/check", []byte("#!/bin/sh\nexit "+code+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	succeeds, fails := check("0"), check("1")
	in := func(s client.Service, path string) client.Service { s.Path = path; return s }
	for _, row := range []struct {
		args  string
		state client.Service
		react changes
		wrote string
		code  int
		out   string
	}{
		{"status web", svUp, nil, "", 0, up},
		{"s web", svDown, nil, "", 0, down},
		{"status", svUp, nil, "", 0, up},
		{"status web", svEnd, nil, "", 1, "fail: ended: web"},
		{"up web", svUp, nil, "", 0, ""},
		{"up web", svDown, nil, "u", 0, ""},
		{"-v up web", svDown, changes{'u': svStart}, "u", 0, again},
		{"-v u web", svUp, nil, "", 0, ok + up},
		{"start web", svDown, changes{'u': svStart}, "u", 0, again},
		{"start web", svUp, nil, "", 0, ok + up},
		{"-w0 start web", svDown, nil, "u", 1, "timeout: " + down},
		{"start web", in(svUp, succeeds), nil, "", 0, ok + up},
		{"-w0 start web", in(svUp, fails), nil, "", 1, "timeout: " + up},
		{"up web", svEnd, nil, "u", 1, "fail: web: it has ended"},
		{"down web", svUp, nil, "d", 0, ""},
		{"down web", changed(svUp, svTerm), nil, "", 0, ""},
		{"stop web", svUp, changes{'d': svStop}, "d", 0, ok + down},
		{"stop web", svDown, nil, "d", 0, ok + down},
		{"-w0 stop web", svUp, changes{'d': svTerm}, "d", 1, "timeout: " + up + ", want down, got TERM"},
		{"-w0 force-stop web", svUp, changes{'d': svTerm}, "dk", 1, "kill: " + up + ", want down, got TERM"},
		{"force-stop web", svUp, changes{'d': svStop}, "d", 0, ok + down},
		{"stop --keep web", svUp, changes{'d': svStop}, "[down=true]d", 0, "ok: down: web: Ns"},
		{"up --keep web", svDown, nil, "[down=false]u", 0, ""},
		{"up --keep web", svUp, nil, "[down=false]", 0, ""},
		{"-v D web", svUp, changes{'d': svStop}, "[down=true]d", 0, "ok: down: web: Ns"},
		{"U web", svDown, nil, "[down=false]u", 0, ""},
		{"Q web", svDown, nil, "[down=true]o", 0, ""},
		{"once web", svDown, nil, "o", 0, ""},
		{"-v once web", svUp, changes{'o': svNotUp}, "o", 0, ok + up + ", want down"},
		{"-w0 -v once web", svDown, nil, "o", 1, "timeout: " + down},
		{"-v O web", svDown, nil, "", 0, ok + down},
		{"O web", svUp, nil, "o", 0, ""},
		{"-v pause web", svUp, changes{'p': svPause}, "p", 0, ok + up + ", paused"},
		{"-v p web", svDown, nil, "p", 0, ok + down},
		{"-w0 -v cont web", changed(svUp, svPause), nil, "c", 1, "timeout: " + up + ", paused"},
		{"-v hup web", svUp, nil, "h", 0, ok + up},
		{"l web", svUp, nil, "h", 0, ""},
		{"alarm web", svUp, nil, "a", 0, ""},
		{"interrupt web", svUp, nil, "i", 0, ""},
		{"quit web", svUp, nil, "q", 0, ""},
		{"1 web", svUp, nil, "1", 0, ""},
		{"2 web", svUp, nil, "2", 0, ""},
		{"t web", svUp, nil, "t", 0, ""},
		{"k web", svUp, nil, "k", 0, ""},
		{"x web", svUp, nil, "x", 0, ""},
		{"-v term web", svUp, changes{'t': svStart}, "t", 0, again},
		{"-v term web", svDown, nil, "t", 0, ok + down},
		{"-w0 -v kill web", svUp, nil, "k", 1, "timeout: " + up},
		{"reload web", svUp, nil, "h", 0, ok + up},
		{"restart web", svUp, changes{'u': svStart}, "tcu", 0, again},
		{"r web", svDown, changes{'u': svStart}, "tcu", 0, again},
		{"-w0 restart web", svUp, nil, "tcu", 1, "timeout: " + up},
		{"-w0 force-restart web", svUp, nil, "tcuk", 1, "kill: " + up},
		{"try-restart web", svDown, nil, "tc", 0, ok + down},
		{"try-restart web", svUp, changes{'t': svStart}, "tc", 0, again},
		{"force-reload web", svUp, changes{'t': svStart}, "tc", 0, again},
		{"shutdown web", svUp, changes{'x': svExited}, "x", 0, "ok: ended: web"},
		{"shutdown web", svEnd, nil, "", 0, "ok: ended: web"},
		{"-w0 exit -v web", svUp, nil, "x", 1, "timeout: " + up},
		{"-w0 force-shutdown web", svUp, nil, "xk", 1, "kill: " + up},
		{"check web", svUp, nil, "", 0, ok + up},
		{"check web", in(svUp, succeeds), nil, "", 0, ok + up},
		{"-w0 check web", in(svUp, fails), nil, "", 1, "timeout: " + up},
		{"check web", in(svDown, fails), nil, "", 0, ok + down},
		{"check web", svEnd, nil, "", 1, "fail: ended: web"},
		{"-q start web", svUp, nil, "", 0, ""},
		{"status none", svUp, nil, "", 1, "fail: none: there is no such service"},
		{"status none web no", svUp, nil, "", 2, "fail: none: there is no such service\n" + up + "\nfail: no: there is no such service"},
		{"stop ./none", svUp, nil, "", 1, "fail: ./none: there is no such service"},
		{"status " + succeeds + "/", in(svUp, succeeds), nil, "", 0, strings.Replace(up, "web", succeeds+"/", 1)},
		{"", svUp, nil, "", 100, ""},
		{"up", svUp, nil, "", 100, ""},
		{"frob web", svUp, nil, "", 100, ""},
		{"restart --keep web", svUp, nil, "", 100, ""},
		{"-w x up web", svUp, nil, "", 100, ""},
		{"-w -1 up web", svUp, nil, "", 100, ""},
	} {
		t.Run(row.args, func(t *testing.T) {
			f := startServices(t, row.state)
			f.react = row.react
			code, out, errs := command(append([]string{"sv"}, strings.Fields(row.args)...)...)
			if out = svSeconds.ReplaceAllString(strings.TrimSuffix(out, "\n"), "Ns"); code != row.code || out != row.out {
				t.Errorf("exit %d, %q, want %d, %q", code, out, row.code, row.out)
			}
			if (errs != "") != (code == 100) || errs != "" && !strings.Contains(errs, "usage: prefork sv") {
				t.Errorf("stderr: %q", errs)
			}
			if f.wrote["web"] != row.wrote {
				t.Errorf("wrote %q, want %q", f.wrote["web"], row.wrote)
			}
		})
	}
}

// Services that are commanded together wait together, and each is reported when it
// is done.
func TestManyServices(t *testing.T) {
	var all []client.Service
	var names []string
	for i := range 300 { // more than one request has room for
		s := svDown
		s.Name = fmt.Sprintf("service-with-a-long-name-%03d", i)
		all, names = append(all, s), append(names, s.Name)
	}
	all[7].Want = client.WantUp // and so the command is not sent
	all[8] = svUp
	all[8].Name = names[8]
	f := startServices(t, all...)
	f.react = changes{'u': func(s *client.Service) {
		if s.Name != names[3] {
			name := s.Name
			svStart(s)
			s.Name = name
		}
	}}
	late := []string{names[3], names[7]}
	code, out, _ := command(append([]string{"sv", "-w", "1", "start"}, late...)...)
	if code != 2 || strings.Count(out, "timeout: down: ") != 2 {
		t.Errorf("exit %d: %q", code, out)
	}
	code, out, _ = command(append([]string{"sv", "-w", "30", "start", "none"}, slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(late, name) })...)...)
	if ok := strings.Count(out, "ok: run: "); code != 1 || ok != 298 || strings.Count(out, "fail: ") != 1 {
		t.Errorf("exit %d, %d are ok: %q", code, ok, out)
	}
	for i, name := range names {
		want := "u"
		if i == 7 || i == 8 {
			want = ""
		}
		if f.wrote[name] != want {
			t.Errorf("%s got %q", name, f.wrote[name])
		}
	}
	code, out, _ = command(append([]string{"sv", "hup"}, append(names, "a", "b", "c")...)...)
	if code != 3 || strings.Count(out, "\n") != 3 {
		t.Errorf("exit %d, %q", code, out)
	}
}

// The logger of a service is a service, too.
func TestServiceLog(t *testing.T) {
	web := svUp
	web.Log = &client.Service{Name: "web/log", Kind: "logger", Path: "/none/web/log", State: client.StateRun, Since: svUp.Since, PID: 4712, Want: client.WantUp, NormallyUp: true, Ready: true}
	f := startServices(t, web)
	for _, row := range []struct{ args, out string }{
		{"status web", "run: web: (pid 4711) Ns; run: log: (pid 4712) Ns\n"},
		{"status web/log", "run: web/log: (pid 4712) Ns\n"},
		{"status /none/web/log", "run: /none/web/log: (pid 4712) Ns\n"},
		{"-v hup web/log", "ok: run: web/log: (pid 4712) Ns\n"},
	} {
		code, out, errs := command(append([]string{"sv"}, strings.Fields(row.args)...)...)
		if out = svSeconds.ReplaceAllString(out, "Ns"); code != 0 || out != row.out || errs != "" {
			t.Errorf("%s: exit %d, %q %q, want %q", row.args, code, out, errs, row.out)
		}
	}
	if f.wrote["web/log"] != "h" {
		t.Errorf("wrote %v", f.wrote)
	}
}

// The script check decides for the verbs that wait, and is run again until it
// succeeds.
func TestServiceCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/check", []byte("#!/bin/sh\necho noise\n[ -e second ] || { touch second; exit 1; }\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	web := svDown
	web.Path = dir
	f := startServices(t, web)
	f.react = changes{'u': func(s *client.Service) { svStart(s); s.Path = dir }}
	code, out, errs := command("sv", "start", "web")
	if out = svSeconds.ReplaceAllString(out, "Ns"); code != 0 || out != "ok: run: web: (pid 4800) Ns\n" || errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if _, err := os.Stat(dir + "/second"); err != nil {
		t.Error("check was not run")
	}
}

// A service that has ended while its check ran is not up.
func TestServiceEndsInCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/check", []byte("#!/bin/sh\n>ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	web := svUp
	web.Path = dir
	startServices(t, web).look = func(s *client.Service) {
		if _, err := os.Stat(dir + "/ran"); err == nil {
			*s = svDown
		}
	}
	if code, out, _ := command("sv", "check", "web"); code != 1 || !strings.HasPrefix(out, "timeout: down: web: ") {
		t.Errorf("exit %d, %q", code, out)
	}
}

// A check that hangs is killed after a second, with its children.
func TestServiceCheckHangs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/check", []byte("#!/bin/sh\nexec >held\nsleep 1000 &\nwait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(dir+"/held", 0o600); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := os.ReadFile(dir + "/held") // until both have exited
		ended <- err
	}()
	web := svUp
	web.Path = dir
	startServices(t, web)
	if code, out, _ := command("sv", "-w", "0", "check", "web"); code != 1 || !strings.HasPrefix(out, "timeout: run: web: ") {
		t.Errorf("exit %d, %q", code, out)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A service that is not up in time is named with its last end, and so is one that has
// given up.
func TestServiceCrashes(t *testing.T) {
	web := svDown
	web.Ends, web.LastEnd = 3, &client.Death{Time: time.Now(), End: "exitcode 7"}
	for _, row := range []struct {
		name, end string
		times     int
		then      func(*client.Service)
		want      string
	}{
		{"once", "exitcode 1", 1, nil, "timeout: down: web: Ns, normally up, want up; run exited with code 1"},
		{"often", "signal SIGSEGV", 6, nil, "timeout: down: web: Ns, normally up, want up; run was ended by SIGSEGV, 6 times"},
		{"not since", "exitcode 7", 0, nil, "timeout: down: web: Ns, normally up, want up"},
		{"gave up", "exitcode 1", 1, func(s *client.Service) { s.Want, s.GaveUp = client.WantDown, true },
			"fail: web: finish has exited with 125, so it is not started again; run exited with code 1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := startServices(t, web)
			f.react = changes{'u': func(s *client.Service) {
				s.Want, s.Ends, s.Since, s.LastEnd = client.WantUp, s.Ends+row.times, time.Now(), &client.Death{Time: time.Now(), End: row.end}
				if row.then != nil {
					row.then(s)
				}
			}}
			status, out, errs := command("sv", "-w", "1", "start", "web")
			if got := svSeconds.ReplaceAllString(out, "Ns"); status != 1 || errs != "" || got != row.want+"\n" {
				t.Errorf("status %d, %q, %q; want %q", status, got, errs, row.want)
			}
			status, out, _ = command("sv", "status")
			if shows := strings.Contains(out, "so it is not started again"); status != 0 || shows != (row.then != nil) {
				t.Errorf("status: %d, %q", status, out)
			}
		})
	}
}

// A wait for all services names those that are not ready. One that is meant to be down
// is not waited for.
func TestWaitForServices(t *testing.T) {
	with := func(name string, s client.Service, change func(*client.Service)) client.Service {
		s.Name = name
		if change != nil {
			change(&s)
		}
		return s
	}
	pm := []client.Service{
		with("up", svUp, nil), with("off", svDown, nil), with("exited", svEnd, nil),
		with("starts", svDown, func(s *client.Service) { s.Want = client.WantUp }),
		with("locked", svEnd, func(s *client.Service) { s.Problem = "process 1 runs this service" }),
		with("gaveup", svDown, func(s *client.Service) { s.GaveUp = true }),
		with("notready", svUp, func(s *client.Service) { s.Ready, s.Notifies = false, true }),
		with("logged", svUp, func(s *client.Service) {
			s.Log = &client.Service{Name: "logged/log", State: client.StateDown, Want: client.WantUp}
		}),
	}
	startServices(t, pm...)
	status, _, stderr := command("--timeout", "50ms", "wait", "ready")
	if want := ": watch, gaveup, locked, logged/log, notready, starts; "; status != 6 || !strings.Contains(stderr, want) {
		t.Errorf("status %d, %q, want %q", status, stderr, want)
	}
}
