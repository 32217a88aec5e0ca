package control

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
)

// pingTimeout is how long a loop may take for a turn before it counts as
// unhealthy. Tests have a shorter one.
var pingTimeout = 2 * time.Second

// A statusCache keeps the last answers, as long as the states that they are made
// of are shared.
type statusCache struct {
	mu   sync.Mutex // also held while a status is made: others wait for that one
	last map[statusKey]*madeStatus
}

type statusKey struct {
	pool  string
	all   bool
	usage bool
	text  bool
}

// forget drops what is of no use after a pool has gone.
func (c *statusCache) forget(pool string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.last, func(k statusKey, _ *madeStatus) bool { return k.pool == pool })
}

type madeStatus struct {
	pools  []*pool
	of     []time.Time // when the states of the pools were taken
	status *client.Status
	body   []byte
}

// statusOf returns the status of some pools. It is shared and must not be changed.
func (s *server) statusOf(pools []*pool, usage, text bool) (*client.Status, []byte) {
	key := statusKey{all: true, usage: usage, text: text}
	if len(pools) == 1 {
		key.pool, key.all = pools[0].name, false
	}
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	states, of := make([]prefork.Snapshot, len(pools)), make([]time.Time, len(pools))
	for i, p := range pools {
		states[i], of[i] = p.state()
	}
	if made := s.cache.last[key]; made != nil && slices.Equal(made.pools, pools) && slices.Equal(made.of, of) {
		return made.status, made.body
	}
	made := &madeStatus{pools: pools, of: of, status: s.makeStatus(pools, states, usage)}
	if text {
		var b strings.Builder
		made.status.WriteTable(&b)
		made.body = []byte(b.String())
	} else {
		made.body = encode(made.status)
	}
	if s.cache.last == nil {
		s.cache.last = make(map[statusKey]*madeStatus)
	}
	s.cache.last[key] = made
	return made.status, made.body
}

func (x *exchange) status() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	text, contentType := x.accepts("text/plain"), typeJSON
	if text {
		contentType = typeText
	}
	_, body := x.statusOf(pools, text || x.query.Get("usage") == "1", text)
	if p := x.handedOver(); p != nil {
		return p // the successor may have answered another client already
	}
	return answer(x.w, 200, contentType, body)
}

func (s *server) makeStatus(pools []*pool, states []prefork.Snapshot, usage bool) *client.Status {
	st := &client.Status{
		API: client.API, Name: s.name, Program: s.about.program, Version: s.about.version, Revision: s.about.revision,
		Library: s.about.library, PID: os.Getpid(), Now: time.Now(), Args: os.Args, Pools: make([]client.Pool, 0, len(pools)),
	}
	for i, p := range pools {
		snap := states[i]
		if st.Started.IsZero() || snap.Started.Before(st.Started) {
			st.Started = snap.Started
		}
		st.Pools = append(st.Pools, p.status(snap, st.Now, usage))
	}
	return st
}

func (p *pool) status(snap prefork.Snapshot, now time.Time, usage bool) client.Pool {
	out := client.Pool{
		Name: p.name, Seq: snap.Seq, Generation: snap.Generation, Serving: snap.Serving, Settled: snap.Settled,
		Ready: isReady(snap), Pausing: snap.Pausing, Stopping: timeOrNil(snap.Stopping), Call: snap.Loop.Call,
		Limits: p.limits(snap), Requests: snap.Requests, Change: changeOf(snap.Change),
		LastReload: outcomeOf(snap.LastReload, snap.Serving), LastUpgrade: outcomeOf(snap.LastUpgrade, snap.Serving),
		Workers: make([]client.Worker, 0, len(snap.Workers)), Slots: []client.Slot{}, Sockets: p.sockets(),
	}
	if snap.Loop.Hook != "" {
		out.Hook = &client.Hook{Name: snap.Loop.Hook, Since: snap.Loop.Since}
	}
	for _, w := range snap.Workers {
		count(&out.Counts, w)
		cw := workerOf(w)
		if usage {
			cw.RSS, cw.Memory, cw.CPU = usageOf(w.PID)
		}
		out.Workers = append(out.Workers, cw)
	}
	for _, s := range snap.Slots {
		if s.WaitsUntil.After(now) {
			out.Counts.Waiting++
		}
		if s.WaitsUntil.After(now) || s.Crashes > 0 || s.Spawns > 1 || s.LastExit != nil || s.Held {
			out.Slots = append(out.Slots, slotOf(s, now))
		}
	}
	return out
}

func count(c *client.Counts, w prefork.WorkerInfo) {
	switch w.State {
	case prefork.StateStarting:
		c.Starting++
	case prefork.StateStandby:
		c.Standby++
	case prefork.StateReady:
		c.Ready++
		if w.Status != prefork.StatusNone && w.Status != prefork.StatusIdle {
			c.Busy++
		}
	case prefork.StateStopping:
		c.Stopping++
	case prefork.StateKilled:
		c.Killed++
	}
}

func isReady(snap prefork.Snapshot) bool {
	if !snap.Stopping.IsZero() {
		return false
	}
	for _, w := range snap.Workers {
		if w.State == prefork.StateReady {
			return true
		}
	}
	return false
}

func (p *pool) limits(snap prefork.Snapshot) client.Limits {
	l := client.Limits{
		MaxWorkers: snap.MaxWorkers, MinSpare: p.cfg.MinSpareWorkers, MaxSpare: p.cfg.MaxSpareWorkers, Standby: p.cfg.Standby,
		Surge: p.cfg.MaxSurge, StopTimeout: client.Duration(p.cfg.StopTimeout), ReadyTimeout: client.Duration(p.cfg.Readiness.Timeout),
	}
	if l.MaxSpare == math.MaxInt {
		l.MaxSpare = 0
	}
	return l
}

func workerOf(w prefork.WorkerInfo) client.Worker {
	cw := client.Worker{
		ID: w.Ordinal, Slot: w.Slot, PID: w.PID, Generation: w.Generation, State: w.State.String(), Since: w.Since,
		Started: w.Started, Deadline: timeOrNil(w.Deadline), Status: string(rune(w.Status)), Paused: w.Paused, Requests: w.Requests,
	}
	if w.ReadyAfter != 0 {
		after := client.Duration(w.ReadyAfter)
		cw.ReadyAfter = &after
	}
	return cw
}

func slotOf(s prefork.SlotInfo, now time.Time) client.Slot {
	out := client.Slot{Slot: s.Slot, Spawns: s.Spawns, Crashes: s.Crashes, Held: s.Held, Done: s.Done}
	if s.WaitsUntil.After(now) {
		out.WaitsUntil = timeOrNil(s.WaitsUntil)
	}
	if x := s.LastExit; x != nil {
		out.LastExit = &client.Exit{
			ID: x.Ordinal, PID: x.PID, Reason: x.Reason.String(), Code: x.Status.Code, CoreDump: x.Status.CoreDump,
			Uptime: client.Duration(x.Uptime), At: s.LastExitAt,
		}
		if x.Status.Signal != 0 {
			out.LastExit.Signal = signalName(x.Status.Signal)
		}
	}
	return out
}

func changeOf(c *prefork.Change) *client.Change {
	if c == nil {
		return nil
	}
	return &client.Change{
		Kind: c.Kind, Generation: c.Generation, Began: c.Began, Replaced: c.Replaced, Of: c.Of, Successor: c.Successor,
		Deadline: timeOrNil(c.Deadline),
	}
}

func outcomeOf(o *prefork.Outcome, serving int) *client.Outcome {
	if o == nil {
		return nil
	}
	out := &client.Outcome{Outcome: client.Done, Generation: o.Generation, Serving: serving, At: o.Ended, Seconds: seconds(o.Ended.Sub(o.Began))}
	if o.Err != nil {
		out.Outcome, out.Error = client.Failed, reason(o.Err)
	}
	return out
}

// sockets returns the sockets of the pool, each once although every slot may have
// one of its own.
func (p *pool) sockets() []client.Socket {
	all := []client.Socket{}
	index := make(map[prefork.SocketInfo]int)
	for _, q := range p.pm.Queues() {
		i, seen := index[q.SocketInfo]
		if !seen {
			index[q.SocketInfo] = len(all)
			all = append(all, client.Socket{Network: q.Network, Address: q.Address, PerWorker: q.PerWorker, Waiting: q.Waiting, Backlog: q.Backlog})
			continue
		}
		all[i].Waiting, all[i].Backlog = sum(all[i].Waiting, q.Waiting), sum(all[i].Backlog, q.Backlog)
	}
	return all
}

// sum adds numbers that are -1 if they are unknown.
func sum(a, b int) int {
	switch {
	case a < 0:
		return b
	case b < 0:
		return a
	}
	return a + b
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

func (x *exchange) healthz() error {
	problems := make([]string, len(x.pools))
	var wg sync.WaitGroup
	for i, p := range x.pools {
		wg.Go(func() {
			if p.ping() != nil && !p.gone.Load() {
				problems[i] = p.label() + p.standsStill(time.Now())
			}
		})
	}
	wg.Wait()
	return x.probe(problems)
}

// standsStill describes a loop that has not turned.
func (p *pool) standsStill(now time.Time) string {
	snap, _ := p.state()
	loop := snap.Loop
	switch {
	case loop.Hook != "":
		return fmt.Sprintf("the loop is in the hook %s since %s", loop.Hook, client.Age(now.Sub(loop.Since)))
	case loop.Call == "":
		return "no blocking call is under way, so nothing is spawned or reaped"
	}
	return fmt.Sprintf("the loop in %s has not turned for %v", loop.Call, pingTimeout)
}

func (x *exchange) readyz() error {
	var problems []string
	names, pools := x.unready()
	if x.cfg.Services != nil && !x.cfg.Services.Started() {
		problems = append(problems, "the services are starting or stopping")
	}
	for _, name := range names {
		problems = append(problems, fmt.Sprintf("service %s is not ready", name))
	}
	for _, p := range pools {
		switch snap, _ := p.state(); {
		case isReady(snap):
		case !snap.Stopping.IsZero():
			problems = append(problems, p.label()+"stopping")
		default:
			problems = append(problems, p.label()+"no worker is ready")
		}
	}
	return x.probe(problems)
}

// probe answers 200 if there are no problems.
func (x *exchange) probe(problems []string) error {
	if p := x.handedOver(); p != nil {
		return p
	}
	var text []string
	for _, t := range problems {
		if t != "" {
			text = append(text, t)
		}
	}
	if len(text) > 0 {
		return problemf(503, "%s", strings.Join(text, "; "))
	}
	return answer(x.w, 200, typeText, []byte("ok\n"))
}

// label begins a message about the pool, if it has a name.
func (p *pool) label() string {
	if p.name == "" {
		return ""
	}
	return fmt.Sprintf("pool %s: ", p.name)
}
