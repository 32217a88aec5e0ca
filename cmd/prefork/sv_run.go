package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

// An svRun carries out one verb for some services.
type svRun struct {
	*app
	verb          svVerb
	seconds       int
	verbose, keep bool

	client   *client.Client
	deadline time.Time
	before   map[string]*client.Service // by their names in the protocol

	mu       sync.Mutex
	failures int
	results  []svResult
}

// An svResult is the object that --json prints for a service.
type svResult struct {
	Name    string          `json:"name"`
	Outcome string          `json:"outcome"` // ok, fail, timeout, kill; "" for a status
	Error   string          `json:"error,omitempty"`
	Service *client.Service `json:"service"`
}

func (r *svRun) run(names []string) error {
	c, all, err := r.ask()
	if err != nil {
		e := err.(*exitError)
		e.code = min(max(len(names), 1), maxFailures)
		return e
	}
	r.client = c
	wait := r.verb.waits || r.verbose
	r.deadline = time.Now().Add(time.Duration(r.seconds) * time.Second)
	if len(names) == 0 {
		for _, s := range all.Services {
			names = append(names, s.Name)
		}
	}
	r.before = make(map[string]*client.Service)
	groups := make(map[string]*svGroup)
	var order []string
	for _, name := range names {
		s := find(all.Services, name)
		switch {
		case s == nil:
			r.report(name, "fail", nil, fmt.Sprintf("fail: %s: there is no such service", oneLine(name)))
		case r.verb.bytes == "" && !r.verb.check:
			r.status(name, s)
		case s.State == client.StateEnded && r.verb.until == "ended":
			r.done(name, s, wait)
		case r.verb.bytes == "" && s.State == client.StateEnded:
			r.report(name, "fail", s, "fail: "+s.Line(name, time.Now()))
		case r.verb.bytes == "" && s.PID == 0: // check of a service that is down
			r.done(name, s, true)
		default:
			g := svGroup{bytes: r.verb.bytes, keep: r.verb.keep}
			if wait {
				g.until = r.verb.until
			}
			if r.verb.bytes == "" {
				g.until = "up"
			}
			if r.verb.skip != nil && r.verb.skip(s) {
				g.bytes = ""
			}
			key := g.bytes
			if groups[key] == nil {
				groups[key] = &g
				order = append(order, key)
			}
			groups[key].add(name, s)
			r.before[s.Name] = s
		}
	}
	var wg sync.WaitGroup
	for _, key := range order {
		for _, g := range groups[key].split() {
			wg.Go(func() { r.command(g, wait) })
		}
	}
	wg.Wait()
	if r.json {
		r.printJSON(struct {
			Manager  string     `json:"manager"`
			Services []svResult `json:"services"`
			Exit     int        `json:"exit"`
		}{r.name, r.results, min(r.failures, maxFailures)})
	}
	if r.failures > 0 {
		return &exitError{code: min(r.failures, maxFailures), shown: true}
	}
	return nil
}

// ask returns the services as they are.
func (r *svRun) ask() (*client.Client, *client.Services, error) {
	if r.chosen() == "" {
		if found, err := client.Find(); err == nil && len(found) > 1 {
			r.socket = keeper(found)
		}
	}
	c, err := r.dial()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := query()
	defer cancel()
	all, err := c.Services(ctx)
	r.peer = c.Peer()
	if err != nil {
		return nil, nil, r.failure(err)
	}
	return c, all, nil
}

// keeper returns the socket of the only manager that keeps services, and "" if there
// is none or several. A service can be a manager too, as one of this library is.
func keeper(found []client.Found) string {
	keeps := make([]bool, len(found))
	var wg sync.WaitGroup
	for i, f := range found {
		switch {
		case errors.Is(f.Err, client.ErrNoAnswer):
			keeps[i] = true
		case f.Err == nil:
			wg.Go(func() { keeps[i] = keepsServices(f.Socket) })
		}
	}
	wg.Wait()
	i := slices.Index(keeps, true)
	if i < 0 || slices.Contains(keeps[i+1:], true) {
		return ""
	}
	return found[i].Socket
}

// keepsServices reports whether a manager keeps services. One that does not answer
// may do so.
func keepsServices(socket string) bool {
	c, err := client.Dial(socket)
	if err != nil {
		return errors.Is(err, client.ErrNoAnswer)
	}
	ctx, cancel := query()
	defer cancel()
	_, err = c.Services(ctx)
	var refused *client.RefusedError
	return err == nil || !errors.As(err, &refused)
}

// find returns the service with a name, or with the path of its directory.
func find(all []client.Service, name string) *client.Service {
	path := ""
	if filepath.IsAbs(name) || strings.HasPrefix(name, ".") {
		path, _ = filepath.Abs(name)
	}
	name = strings.TrimRight(name, "/")
	for i := range all {
		s := &all[i]
		for _, s := range []*client.Service{s, s.Log} {
			if s != nil && (s.Name == name || path != "" && s.Path == path) {
				return s
			}
		}
	}
	return nil
}

// An svGroup is some services that get the same bytes.
type svGroup struct {
	bytes, until, keep string
	names              []string // as in the protocol
	shown              map[string]string
	services           map[string]*client.Service
}

func (g *svGroup) add(name string, s *client.Service) {
	if g.shown == nil {
		g.shown, g.services = make(map[string]string), make(map[string]*client.Service)
	}
	if g.shown[s.Name] == "" {
		g.names = append(g.names, s.Name)
	}
	g.shown[s.Name], g.services[s.Name] = name, s
}

// split divides a group into those that a request has room for.
func (g *svGroup) split() (all []*svGroup) {
	const room = 5 << 10
	left := 0
	for _, name := range g.names {
		if left -= 3*len(name) + len("&name="); left < 0 {
			all = append(all, &svGroup{bytes: g.bytes, until: g.until, keep: g.keep, shown: g.shown, services: g.services})
			left = room
		}
		last := all[len(all)-1]
		last.names = append(last.names, name)
	}
	return all
}

// command sends the bytes to a group and reports the outcomes.
func (r *svRun) command(g *svGroup, wait bool) {
	if g.bytes+g.until+g.keep == "" { // nothing to do
		for _, name := range g.names {
			r.done(g.shown[name], g.services[name], wait)
		}
		return
	}
	left := make(map[string]bool)
	for _, name := range g.names {
		left[name] = true
	}
	var checks sync.WaitGroup
	cmd := client.ServiceCommand{Names: g.names, Bytes: g.bytes, Until: g.until, Keep: g.keep, Timeout: max(time.Until(r.deadline), time.Millisecond)}
	err := r.client.CommandServices(context.Background(), cmd, func(o client.ServiceOutcome) {
		delete(left, o.Name)
		if o.Outcome == client.Done && wait && r.verb.check {
			checks.Go(func() { r.check(g.shown[o.Name], o) })
			return
		}
		r.outcome(g.shown[o.Name], o, wait)
	})
	checks.Wait()
	if err != nil {
		text := strings.TrimPrefix(r.failure(err).Error(), r.prefix())
		for _, name := range g.names {
			if left[name] {
				r.report(g.shown[name], "fail", nil, fmt.Sprintf("fail: %s: %s", oneLine(g.shown[name]), text))
			}
		}
	}
}

// outcome reports the outcome for one service.
func (r *svRun) outcome(name string, o client.ServiceOutcome, wait bool) {
	switch o.Outcome {
	case client.Done:
		s := o.Service
		if s == nil { // its entry has gone, as it was asked to
			s = &client.Service{State: client.StateEnded}
		}
		r.done(name, s, wait)
	case client.Pending:
		r.late(name, o.Name, o.Service)
	default:
		text := fmt.Sprintf("fail: %s: %s", oneLine(name), oneLine(o.Error))
		if o.Service != nil && o.Service.GaveUp && o.Service.LastEnd != nil {
			text += "; run " + o.Service.LastEnd.Words()
		}
		r.report(name, "fail", o.Service, text)
	}
}

// done reports a service that is as wanted.
func (r *svRun) done(name string, s *client.Service, wait bool) {
	text := ""
	if wait && !r.quiet {
		text = "ok: " + s.Line(name, time.Now())
	}
	r.report(name, "ok", s, text)
}

func (r *svRun) status(name string, s *client.Service) {
	if s.State == client.StateEnded {
		r.report(name, "fail", s, "fail: "+s.Line(name, time.Now()))
		return
	}
	r.report(name, "", s, s.Line(name, time.Now()))
}

// late reports a service that is not as wanted in time.
func (r *svRun) late(name, service string, s *client.Service) {
	word := "timeout"
	if r.verb.kill {
		word = "kill"
		err := r.client.CommandServices(context.Background(), client.ServiceCommand{Names: []string{service}, Bytes: "k"}, func(client.ServiceOutcome) {})
		if err != nil {
			r.note("%v", err)
		}
	}
	if s == nil {
		s = &client.Service{State: client.StateEnded}
	}
	r.report(name, word, s, word+": "+s.Line(name, time.Now())+ends(r.before[service], s))
}

// ends says how run has ended since the command; "" if it has not, or should.
func ends(before, now *client.Service) string {
	if before == nil || now.LastEnd == nil || now.Want != client.WantUp {
		return ""
	}
	switch n := now.Ends - before.Ends; {
	case n <= 0:
		return ""
	case n == 1:
		return "; run " + now.LastEnd.Words()
	default:
		return fmt.Sprintf("; run %s, %d times", now.LastEnd.Words(), n)
	}
}

func (r *svRun) report(name, outcome string, s *client.Service, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if outcome != "ok" && outcome != "" {
		r.failures++
	}
	result := svResult{Name: name, Outcome: outcome, Service: s}
	if outcome == "fail" {
		result.Error = text
	}
	r.results = append(r.results, result)
	if text != "" && !r.json {
		fmt.Fprintln(r.out, text)
	}
}

// check runs the script check of a service until it succeeds. No event shows when
// it would.
func (r *svRun) check(name string, o client.ServiceOutcome) {
	if o.Service == nil || o.Service.PID == 0 || !executable(filepath.Join(o.Service.Path, "check")) {
		r.outcome(name, o, true)
		return
	}
	for !runCheck(o.Service.Path) {
		if time.Until(r.deadline) <= 0 {
			r.late(name, o.Name, r.fresh(o))
			return
		}
		time.Sleep(min(checkPause, max(time.Until(r.deadline), 0)))
	}
	s := r.fresh(o)
	if s == nil || s.PID == 0 {
		r.late(name, o.Name, s)
		return
	}
	r.done(name, s, true)
}

// fresh returns a service as it is now.
func (r *svRun) fresh(o client.ServiceOutcome) *client.Service {
	ctx, cancel := query()
	defer cancel()
	all, err := r.client.Services(ctx, o.Name)
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Code == 404:
		return nil
	case err != nil:
		return o.Service
	}
	return &all.Services[0]
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// runCheck runs the script check in the directory of a service.
func runCheck(dir string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), checkLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./check")
	cmd.Dir = dir
	ownGroup(cmd)
	return cmd.Run() == nil
}
