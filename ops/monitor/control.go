package monitor

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/control"
	"github.com/prefork-go/prefork/ops/supervise"
)

// Control returns the services for a control socket, where prefork sv commands
// them:
//
//	control.Attach(control.Config{Services: m.Control()}, pms...)
func (m *Monitor) Control() control.Services { return controlled{m} }

type controlled struct{ *Monitor }

func (c controlled) Services() []client.Service {
	all := c.Monitor.Services()
	var dirs []string
	for i := range all {
		dirs = append(dirs, c.path(&all[i]))
		if log := all[i].Log; log != nil {
			dirs = append(dirs, c.path(log))
		}
	}
	down := c.haveDown(dirs)
	out := make([]client.Service, len(all))
	for i := range all {
		out[i] = c.service(&all[i], down)
	}
	return out
}

// Started is false in a stop: the services are then wanted down, and not meant to be.
func (c controlled) Started() bool { return !c.isStopping() && c.Monitor.Started() }

func (c controlled) path(st *Status) string { return filepath.Join(c.dir(), st.Name) }

// Keep writes or removes the file down of a service directory.
func (c controlled) Keep(name string, down bool) error {
	dir := filepath.Join(c.dir(), name)
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return errors.New("a program has no file down: change its x bit instead (chmod -x)")
	}
	return supervise.SetDown(dir, down)
}

func (c controlled) service(st *Status, down map[string]bool) client.Service {
	path := c.path(st)
	isDown, known := down[path]
	if !known { // as it is now: nothing is said of it then
		isDown = st.PID == 0
	}
	s := client.Service{
		Name: st.Name, Kind: st.Kind.String(), Path: path, NormallyUp: !isDown, State: st.State.String(), Since: st.Since, PID: st.PID,
		Want: client.WantDown, Paused: st.Paused, Term: st.Term, Ready: st.Ready, Notifies: st.Notifies, Ends: st.Ends, GaveUp: st.GaveUp, Problem: st.Problem, PIDs: st.PIDs,
	}
	switch {
	case st.Since.IsZero():
		s.State = client.StateEnded
	case st.Up:
		s.Want = client.WantUp
	case st.Exit:
		s.Want = client.WantExit
	}
	if !st.WaitsUntil.IsZero() {
		s.WaitsUntil = &st.WaitsUntil
	}
	for _, d := range st.Tally {
		s.Tally = append(s.Tally, client.Death{Time: d.Time, End: endOf(d.Status)})
	}
	if st.Ends > 0 {
		s.LastEnd = &client.Death{Time: st.LastEnd.Time, End: endOf(st.LastEnd.Status)}
	}
	if st.Log != nil {
		log := c.service(st.Log, down)
		s.Log = &log
	}
	return s
}

// endOf returns the words of s6-svdt for an end.
func endOf(s prefork.ExitStatus) string {
	if s.Signal != 0 {
		name, _, _ := strings.Cut(s.String(), " ")
		return "signal " + name
	}
	return "exitcode " + strconv.Itoa(s.Code)
}

// A notifier wakes those that wait for a change.
type notifier struct {
	mu sync.Mutex
	c  chan struct{} // nil while none waits
}

// next returns a channel that is closed at the next change.
func (n *notifier) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.c == nil {
		n.c = make(chan struct{})
	}
	return n.c
}

func (n *notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.c != nil {
		close(n.c)
		n.c = nil
	}
}
