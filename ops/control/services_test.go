//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
)

// fakeServices are services that tests change.
type fakeServices struct {
	mu       sync.Mutex
	all      map[string]*client.Service
	changed  chan struct{}
	starting atomic.Bool
	wrote    []string                    // "web:t"
	react    func(*client.Service, byte) // under the mutex
}

func newFakeServices(all ...client.Service) *fakeServices {
	f := &fakeServices{all: make(map[string]*client.Service), changed: make(chan struct{})}
	for _, s := range all {
		f.all[s.Name] = &s
	}
	return f
}

func (f *fakeServices) Services() (all []client.Service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.all {
		one := *s
		if s.Log != nil {
			log := *s.Log
			one.Log = &log
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b client.Service) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (f *fakeServices) Started() bool { return !f.starting.Load() }

func (f *fakeServices) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeServices) Do(name string, command byte) error {
	f.mu.Lock()
	f.wrote = append(f.wrote, fmt.Sprintf("%s:%c", name, command))
	s := f.all[strings.TrimSuffix(name, "/log")]
	if f.react != nil {
		f.react(s, command)
	}
	f.mu.Unlock()
	f.change("", nil)
	if s.State == client.StateEnded {
		return errors.New("service has ended")
	}
	return nil
}

func (f *fakeServices) Keep(name string, down bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrote = append(f.wrote, fmt.Sprintf("%s:keep=%v", name, down))
	return nil
}

// change changes a service, and wakes those that wait.
func (f *fakeServices) change(name string, how func(*client.Service)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if how != nil {
		how(f.all[name])
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeServices) commands() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.wrote, " ")
}

var (
	since = time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)
	upNow = client.Service{Name: "web", Kind: "service", State: client.StateRun, Since: since, PID: 4711, Want: client.WantUp, Ready: true, NormallyUp: true}
	isOff = client.Service{Name: "db", Kind: "service", State: client.StateDown, Since: since, Want: client.WantDown, NormallyUp: true}
)

func TestServiceStates(t *testing.T) {
	with := func(s client.Service, change func(*client.Service)) client.Service { change(&s); return s }
	starting := with(isOff, func(s *client.Service) { s.Want = client.WantUp })
	unready := with(upNow, func(s *client.Service) { s.Ready = false })
	stopping := with(upNow, func(s *client.Service) { s.Term, s.Since = true, since.Add(1) })
	again := with(upNow, func(s *client.Service) { s.PID, s.Since = 4712, since.Add(1) })
	once := with(again, func(s *client.Service) { s.Want = client.WantDown })
	finish := with(once, func(s *client.Service) { s.State = client.StateFinish })
	ran := with(isOff, func(s *client.Service) { s.Since = since.Add(2) })
	paused := with(upNow, func(s *client.Service) { s.Paused = true })
	ended := client.Service{State: client.StateEnded}
	young := with(upNow, func(s *client.Service) { s.Since = time.Now().Add(time.Hour) })
	reports := with(young, func(s *client.Service) { s.Notifies = true })
	for _, row := range []struct {
		until string
		now   client.Service
		want  bool
	}{
		{"up", upNow, true}, {"up", unready, false}, {"up", isOff, false}, {"up", finish, false}, {"up", starting, false}, {"up", paused, true},
		{"up", young, false}, {"up", reports, true}, {"restarted", young, false}, {"restarted", reports, true},
		{"restarted", with(reports, func(s *client.Service) { s.Ready = false }), false},
		{"down", isOff, true}, {"down", starting, false}, {"down", finish, false}, {"down", upNow, false}, {"down", ended, true},
		{"restarted", upNow, false}, {"restarted", again, true}, {"restarted", stopping, false}, {"restarted", ran, false}, {"restarted", finish, false},
		{"restarted,down", ran, true}, {"restarted,down", upNow, false},
		{"started", upNow, false}, {"started", once, true}, {"started", ran, true}, {"started", isOff, false}, {"started", finish, false},
		{"paused", paused, true}, {"paused", upNow, false}, {"continued", upNow, true}, {"continued", paused, false},
		{"ended", ended, true}, {"ended", isOff, false},
	} {
		holds, err := serviceCondition(row.until)
		if err != nil {
			t.Fatal(err)
		}
		before := upNow
		if got := holds(&row.now, &before); got != row.want {
			t.Errorf("%s, %+v: %v", row.until, row.now, got)
		}
	}
	for _, until := range []string{"", "upp", "up,", "up,,down"} {
		if _, err := serviceCondition(until); err == nil {
			t.Errorf("until=%q", until)
		}
	}
}

func TestServiceRoutes(t *testing.T) {
	web := upNow
	web.Log = &client.Service{State: client.StateRun, Since: since, PID: 4712, Want: client.WantUp, NormallyUp: true}
	none := newTestServer(t, Config{})
	f := newFakeServices(web, isOff, client.Service{Name: "old", State: client.StateEnded})
	s := newTestServer(t, Config{Services: f})
	for _, row := range []struct {
		s       *testServer
		request string
		code    int
		body    string // a part of it
		wrote   string
	}{
		{none, "GET /v1/services", 404, "keeps no services", ""},
		{none, "POST /v1/services/command?name=web&bytes=u", 404, "keeps no services", ""},
		{s, "GET /v1/services", 200, `"services":[{"name":"db"`, ""},
		{s, "GET /v1/services?name=web&name=db", 200, `"services":[{"name":"web"`, ""},
		{s, "GET /v1/services?name=web/log", 200, `"pid":4712`, ""},
		{s, "GET /v1/services?name=no", 404, "there is no service", ""},
		{s, "GET /v1/services/command?name=web", 405, "is for POST", ""},
		{s, "POST /v1/services/command", 400, "name=", ""},
		{s, "POST /v1/services/command?name=web&name=db&name=web", 400, "twice", ""},
		{s, "POST /v1/services/command?name=web&bytes=uz", 400, "bytes=", ""},
		{s, "POST /v1/services/command?name=web&keep=maybe", 400, "keep=", ""},
		{s, "POST /v1/services/command?name=web&until=soon", 400, "until=", ""},
		{s, "POST /v1/services/command?name=web&bytes=d&timeout=0", 400, "timeout", ""},
		{s, "POST /v1/services/command?name=no&bytes=u", 409, "no: there is no service", ""},
		{s, "POST /v1/services/command?name=old&bytes=d", 409, "old: service has ended", "old:d"},
		{s, "POST /v1/services/command?name=web&bytes=tcu", 200, `"outcome":"done"`, "web:t web:c web:u"},
		{s, "POST /v1/services/command?name=web&bytes=d&wait=0&until=down", 200, `"outcome":"done"`, "web:d"},
		{s, "POST /v1/services/command?name=web/log&name=db&bytes=h", 200, `"services":[{"name":"web/log"`, "web/log:h db:h"},
		{s, "POST /v1/services/command?name=web&keep=down&bytes=d", 200, `"outcome":"done"`, "web:keep=true web:d"},
		{s, "POST /v1/services/command?name=web&keep=up", 200, `"outcome":"done"`, "web:keep=false"},
		{s, "POST /v1/services/command?name=web&name=db&until=up", 504, "db: not done yet", ""},
		{s, "POST /v1/services/command?name=web&name=no&until=up", 409, "no: there is no service", ""},
		{s, "POST /v1/services/command?name=web&until=up", 200, `"pid":4711`, ""},
		{s, "GET /v1/services?name=web&until=up", 200, `"command":"services"`, ""},
		{s, "GET /v1/services?name=web&until=up&bytes=d", 405, "are for POST", ""},
		{s, "GET /v1/services?name=web&until=up&keep=down", 405, "are for POST", ""},
		{s, "GET /v1/services?until=up", 400, "name=", ""},
		{s, "GET /v1/services?name=web&until=soon", 400, "until=", ""},
	} {
		f.mu.Lock()
		f.wrote = nil
		f.mu.Unlock()
		line := row.request
		if row.code == 504 {
			line += "&timeout=1ms"
		}
		code, body := send(t, row.s, line)
		if code != row.code || !strings.Contains(body, row.body) {
			t.Errorf("%s: %d %s, want %d %s", row.request, code, body, row.code, row.body)
		}
		if wrote := f.commands(); wrote != row.wrote {
			t.Errorf("%s: wrote %q, want %q", row.request, wrote, row.wrote)
		}
	}
}

// A service that has a pool of its name does not take the commands that decide which
// workers run.
func TestServiceTakesNoPoolCommand(t *testing.T) {
	web := upNow
	web.Log = &client.Service{Name: "web/log", State: client.StateRun}
	s := newTestServer(t, Config{Services: newFakeServices(web)}, "own", "web", "web/log")
	for _, request := range []string{
		"reload?pool=web", "reload?pool=web/log&how=plain", "reload", "restart?pool=web", "scale?pool=web&workers=2",
		"pause?pool=web", "resume?pool=web", "signal?pool=web&signal=TERM",
	} {
		code, body := send(t, s, "POST /v1/"+request)
		if code != 409 || !strings.Contains(body, "is a service: use prefork sv") {
			t.Errorf("%s: %d %s", request, code, body)
		}
	}
	if code, body := send(t, s, "POST /v1/resume?pool=own"); code != 200 {
		t.Errorf("another pool: %d %s", code, body)
	}
}

// send sends a request and returns the answer.
func send(t *testing.T, s *testServer, line string, headers ...string) (code int, body string) {
	t.Helper()
	return ask(t, s.sock.address, line+" HTTP/1.1\r\n"+strings.Join(headers, "")+"\r\n")
}

// until returns once the services have got this command.
func (f *fakeServices) until(command string) {
	for {
		changed := f.Changed()
		if strings.Contains(f.commands(), command) {
			return
		}
		<-changed
	}
}

func TestServicesAsText(t *testing.T) {
	web := upNow
	web.Since = time.Now()
	web.Log = &client.Service{State: client.StateDown, Since: time.Now(), Want: client.WantDown}
	s := newTestServer(t, Config{Services: newFakeServices(web)})
	for line, want := range map[string]string{
		"GET /v1/services":              "run: web: (pid 4711) Ns; down: log: Ns\n",
		"GET /v1/services?name=web/log": "down: web/log: Ns\n",
	} {
		_, body := send(t, s, line, "Accept: text/plain\r\n")
		if got := strings.NewReplacer("0s", "Ns", "1s", "Ns", "2s", "Ns").Replace(body); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// A command is sent to all services at once, and each outcome comes when it is
// there.
func TestServiceOutcomes(t *testing.T) {
	f := newFakeServices(upNow, isOff)
	s := newTestServer(t, Config{Services: f})
	c, err := client.Dial(s.sock.address)
	if err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan client.ServiceOutcome)
	done := make(chan error)
	go func() {
		done <- c.CommandServices(context.Background(), client.ServiceCommand{Names: []string{"web", "db", "no"}, Bytes: "tcu", Until: "restarted"},
			func(o client.ServiceOutcome) { outcomes <- o })
	}()
	expect := func(name, outcome, err string, pid int) {
		t.Helper()
		o := <-outcomes
		if o.Name != name || o.Outcome != outcome || !strings.Contains(o.Error, err) || (o.Service != nil) != (pid > 0) || o.Service != nil && o.Service.PID != pid {
			t.Errorf("%+v, want %s %s %q, pid %d", o, name, outcome, err, pid)
		}
	}
	expect("no", client.Failed, "no service", 0)
	if got, want := f.commands(), "web:t web:c web:u db:t db:c db:u"; got != want {
		t.Errorf("commands %q, want %q", got, want)
	}
	restart := func(pid int) func(*client.Service) {
		return func(s *client.Service) {
			s.State, s.PID, s.Since, s.Want, s.Ready = client.StateRun, pid, s.Since.Add(time.Second), client.WantUp, true
		}
	}
	f.change("web", func(s *client.Service) { s.Term = true })
	f.change("db", restart(4801))
	expect("db", client.Done, "", 4801)
	f.change("web", restart(4802))
	f.change("web", func(s *client.Service) { s.Term = false })
	expect("web", client.Done, "", 4802)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A service that has just been started counts as up when it has lived for a while,
// without another change.
func TestServiceProvesItself(t *testing.T) {
	f := newFakeServices(isOff)
	s := newTestServer(t, Config{Services: f})
	var started time.Time
	f.react = func(s *client.Service, _ byte) {
		*s = upNow
		s.Name, s.Since = "db", time.Now()
		started = s.Since
	}
	code, body := send(t, s, "POST /v1/services/command?name=db&bytes=u&until=up&timeout=60s")
	if took := time.Since(started); code != 200 || took < proven {
		t.Errorf("%d after %v %s", code, took, body)
	}
}

// A service that gives up, and one that goes, end the wait.
func TestServiceWaitEnds(t *testing.T) {
	f := newFakeServices(upNow, isOff)
	s := newTestServer(t, Config{Services: f})
	wait := func(name, until string) chan string {
		got := make(chan string)
		go func() {
			_, body := send(t, s, "POST /v1/services/command?name="+name+"&bytes=t&until="+until)
			got <- body
		}()
		f.until(name + ":t")
		f.mu.Lock()
		f.wrote = nil
		f.mu.Unlock()
		return got
	}
	got := wait("db", "up")
	f.change("db", func(s *client.Service) { s.GaveUp = true })
	if body := <-got; !strings.Contains(body, "125") || !strings.Contains(body, `"failed"`) {
		t.Error(body)
	}
	got = wait("db", "up") // and again, after another start
	f.change("db", func(s *client.Service) { s.Since = s.Since.Add(time.Second) })
	if body := <-got; !strings.Contains(body, "125") {
		t.Error(body)
	}
	got = wait("web", "restarted")
	f.change("web", func(*client.Service) { delete(f.all, "web") })
	if body := <-got; !strings.Contains(body, "any more") || !strings.Contains(body, `"service":null`) {
		t.Error(body)
	}
	got = wait("db", "ended")
	f.change("db", func(*client.Service) { delete(f.all, "db") })
	if body := <-got; !strings.Contains(body, `"outcome":"done"`) || !strings.Contains(body, `"service":null`) {
		t.Error(body)
	}
}

// The end of the manager ends a wait.
func TestServiceWaitAndDetach(t *testing.T) {
	f := newFakeServices(upNow)
	s := newTestServer(t, Config{Services: f})
	got := make(chan string)
	go func() {
		_, body := send(t, s, "POST /v1/services/command?name=web&bytes=d&until=down")
		got <- body
	}()
	f.until("web:d")
	s.detachOnce()
	if body := <-got; !strings.Contains(body, "the manager ends") {
		t.Error(body)
	}
}

// Who has given a command is in the events of the service's pool, or in the log.
func TestServiceNotes(t *testing.T) {
	f := newFakeServices(upNow, isOff)
	s := newTestServer(t, Config{Services: f}, "queue", "web")
	var log strings.Builder
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	send(t, s, "POST /v1/services/command?name=web&name=db&bytes=tcu&keep=down")
	by := fmt.Sprintf("user %d (pid %d)", os.Geteuid(), os.Getpid())
	if got, want := s.fakes[1].notes, []string{by + ": keep down", by + ": service command tcu"}; !slices.Equal(got, want) || s.fakes[0].notes != nil {
		t.Errorf("notes %q and %q, want %q", got, s.fakes[0].notes, want)
	}
	for _, want := range []string{`msg="keep down" service=db by="` + by, `msg="service command tcu" service=db by="` + by} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log %q, want %q", log.String(), want)
		}
	}
}

// A wait for all pools and services waits for none that is meant to be down, but for
// those that have no pool yet. One for a pool waits for that.
func TestWaitForServices(t *testing.T) {
	web := upNow
	web.Log = &client.Service{Name: "web/log", State: client.StateDown, Want: client.WantDown}
	late := client.Service{Name: "late", State: client.StateEnded, Problem: "it is locked"}
	f := newFakeServices(web, isOff, late)
	f.starting.Store(true)
	s := newTestServer(t, Config{Services: f}, "db", "own", "web", "web/log")
	for _, m := range s.fakes {
		m.change(func(snap *prefork.Snapshot) { snap.Settled = true })
	}
	own := func(ready bool) {
		s.fakes[1].change(func(snap *prefork.Snapshot) {
			snap.Workers = nil
			if ready {
				snap.Workers = []prefork.WorkerInfo{{State: prefork.StateReady}}
			}
		})
	}
	expect := func(state string, code int, unready string) {
		t.Helper()
		timeout := "20ms"
		if code == 200 {
			timeout = "20s"
		}
		if got, body := send(t, s, "GET /v1/wait?timeout="+timeout+"&for="+state); got != code {
			t.Errorf("wait for %s: %d %s, want %d", state, got, body, code)
		}
		if got, body := send(t, s, "GET /readyz"); unready != "" && (got != 503 || !strings.Contains(body, unready)) || unready == "" && got != 200 {
			t.Errorf("readyz: %d %s, want %q", got, body, unready)
		}
	}
	own(true)
	expect("ready", 504, "service late is not ready")
	expect("settled", 504, "service late is not ready")
	f.starting.Store(false)
	expect("settled", 200, "service late is not ready")
	expect("ready", 504, "service late is not ready")
	expect("ready&pool=db", 504, "service late is not ready")
	f.change("late", func(s *client.Service) { s.Problem = "" })
	own(false)
	expect("ready", 504, "pool own: no worker is ready")
	own(true)
	expect("ready", 200, "")
	f.starting.Store(true) // or stopping, when all are wanted down
	expect("ready", 504, "the services are starting or stopping")
	f.starting.Store(false)
	f.change("db", func(s *client.Service) { s.Want = client.WantUp })
	expect("ready", 504, "service db is not ready")
	done := make(chan struct{})
	go func() {
		defer close(done)
		expect("ready", 200, "")
	}()
	f.change("db", func(s *client.Service) { s.State, s.PID, s.Ready = client.StateRun, 4, true })
	<-done
}
