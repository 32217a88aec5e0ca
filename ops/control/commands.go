package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/ops/client"
)

const (
	commandTimeout = time.Minute
	waitTimeout    = 30 * time.Second
	maxTimeout     = 24 * time.Hour
)

// A command is a request of a client to change something in some pools.
type command struct {
	name  string
	note  string // of the events and the log
	pools []*pool
	again bool // a successor that takes over before the outcome has to do it as well

	// prepare, if set, is called once the request is known to make sense.
	prepare func() error

	// run does it in one pool and waits for the outcome, at most until ctx ends.
	// The change goes on after that.
	run func(ctx context.Context, p *pool) (result, error)
}

// A result describes the effect of a command.
type result struct {
	generation, successor int
	text                  string
}

// errPending is returned by a command that is not done in time. It goes on.
type errPending struct{ text string }

func (e errPending) Error() string { return e.text }

// errSuperseded is returned by a command or a wait that the successor has to carry
// out: clients send it again.
var errSuperseded = errors.New(client.Superseded)

// perform carries a command out and answers with the outcome.
func (x *exchange) perform(c command) error {
	timeout, err := x.duration("timeout", commandTimeout)
	if err != nil {
		return err
	}
	if c.prepare != nil {
		if err := c.prepare(); err != nil {
			return err
		}
	}
	wait := x.query.Get("wait") != "0"
	stream := x.newStream(c.pools)
	stream.at = x.ring.end()
	for _, p := range c.pools {
		p.pm.Note(x.peer.String(), c.note)
	}
	began := time.Now()
	done := make(chan *client.Answer, 1)
	work, release := context.WithTimeout(context.Background(), timeout)
	x.handlers.Go(func() { // it goes on without the client
		defer release()
		stop := x.endWith(release)
		defer stop()
		a := x.runAll(work, c)
		x.forget()
		a.Seconds = seconds(time.Since(began))
		done <- a
	})
	if !wait {
		return answerJSON(x.w, 202, client.Answer{Command: c.name, Outcome: client.Pending, Text: "accepted"})
	}
	gone, cancel := x.untilGone(0)
	defer cancel()
	if x.accepts(typeNDJSON) {
		return x.performWithEvents(stream, gone, done)
	}
	select {
	case a := <-done:
		return answerJSON(x.w, codeOf(a), a)
	case <-gone.Done():
		return gone.Err()
	}
}

// performWithEvents writes the events until the outcome, then the outcome.
func (x *exchange) performWithEvents(s *stream, gone context.Context, done <-chan *client.Answer) error {
	s.out = head(200, typeNDJSON, -1)
	for {
		changed, err := s.copy()
		if errors.Is(err, errLost) {
			s.at = x.ring.end()
			changed, err = s.copy()
		}
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-gone.Done():
			return gone.Err()
		case a := <-done:
			if _, err := s.copy(); err != nil && !errors.Is(err, errLost) {
				return err
			}
			a.Type, a.Code = client.TypeOutcome, codeOf(a)
			line := encode(a)
			s.put(0, line[:len(line)-1])
			return s.flush()
		}
	}
}

// endWith calls cancel when the server closes, until stop is called.
func (s *server) endWith(cancel func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-stopped:
		}
	}()
	return func() { close(stopped) }
}

func codeOf(a *client.Answer) int {
	switch {
	case a.Outcome == client.Done:
		return 200
	case a.Outcome == client.Pending:
		return 504
	case a.Error == client.Superseded:
		return 503
	}
	return 409
}

// runAll runs a command in all its pools at once.
func (s *server) runAll(ctx context.Context, c command) *client.Answer {
	answers := make([]client.Answer, len(c.pools))
	var wg sync.WaitGroup
	for i, p := range c.pools {
		wg.Go(func() {
			r, err := s.runOne(ctx, c, p)
			answers[i] = s.outcome(ctx, c, p, r, err)
		})
	}
	wg.Wait()
	if len(answers) == 1 {
		a := answers[0]
		a.Pool = ""
		return &a
	}
	all := &client.Answer{Command: c.name, Outcome: client.Done, Pools: answers}
	var texts, errs []string
	for _, a := range answers {
		switch {
		case a.Outcome == client.Done:
			texts = append(texts, fmt.Sprintf("pool %q: %s", a.Pool, a.Text))
		case a.Outcome == client.Failed, all.Outcome == client.Done:
			all.Outcome = a.Outcome
		}
		if a.Error != "" {
			errs = append(errs, fmt.Sprintf("pool %q: %s", a.Pool, a.Error))
		}
	}
	all.Text, all.Error = strings.Join(texts, "; "), strings.Join(errs, "; ")
	return all
}

// runOne runs a command in one pool. A defect in it must not end the manager.
func (s *server) runOne(ctx context.Context, c command, p *pool) (r result, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("control: panic", "command", c.name, "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	r, err = c.run(ctx, p)
	if err != nil && c.again && s.isSuperseded() {
		err = errSuperseded
	}
	return r, err
}

func (s *server) outcome(ctx context.Context, c command, p *pool, r result, err error) client.Answer {
	a := client.Answer{Command: c.name, Pool: p.name, Outcome: client.Done, Generation: r.generation, Successor: r.successor, Text: r.text}
	var pending errPending
	if err != nil {
		a.Text = ""
	}
	switch {
	case err == nil:
	case errors.Is(err, errSuperseded):
		a.Outcome, a.Error, a.Successor = client.Failed, client.Superseded, int(s.successor.Load())
	case errors.As(err, &pending):
		a.Outcome, a.Error = client.Pending, pending.text
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		a.Outcome, a.Error = client.Pending, "not done yet, and goes on"
		if s.isClosing() {
			a.Outcome, a.Error = client.Failed, "the manager ends"
		}
	default:
		a.Outcome, a.Error = client.Failed, strings.TrimPrefix(err.Error(), "prefork: ")
	}
	return a
}

func (s *server) isClosing() bool    { return isClosed(s.closing) }
func (s *server) isSuperseded() bool { return isClosed(s.superseded) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// duration returns a parameter that is a duration.
func (x *exchange) duration(name string, byDefault time.Duration) (time.Duration, error) {
	text := x.query.Get(name)
	if text == "" {
		return byDefault, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxTimeout {
		return 0, problemf(400, "%s=%.40q is not a duration of at most %v: write 30s", name, text, maxTimeout)
	}
	return d, nil
}

// await waits until a condition holds. It evaluates the condition after events. It
// returns errSuperseded when superseded is closed.
func (s *server) await(ctx context.Context, superseded <-chan struct{}, holds func() bool) error {
	var buf [1]*entry
	for at := s.ring.end(); ; {
		if holds() {
			return nil
		}
		_, changed, lost := s.ring.read(at, buf[:0])
		if lost || changed == nil { // there were events since
			changed = closed
		}
		select {
		case <-changed:
		case <-time.After(awaitAgain): // the blocking call, for one, changes without an event
		case <-ctx.Done():
			return ctx.Err()
		case <-superseded:
			return errSuperseded
		case <-s.closing:
			return context.Canceled
		}
		at = s.ring.end()
		select { // many events come together
		case <-time.After(awaitPause):
		case <-ctx.Done():
		}
	}
}

// awaitState waits until a condition on the state of each pool holds.
func (s *server) awaitState(ctx context.Context, pools []*pool, holds func(prefork.Snapshot) bool) error {
	return s.await(ctx, s.superseded, func() bool { return holdNow(ctx, pools, holds) })
}

// holdNow reports whether a condition holds in each pool. A state from before the
// call, and so from before an event, does not count.
func holdNow(ctx context.Context, pools []*pool, holds func(prefork.Snapshot) bool) bool {
	now := time.Now()
	for _, p := range pools {
		if snap, err := p.stateAfter(ctx, now); err != nil || !holds(snap) {
			return false
		}
	}
	return true
}

const (
	awaitPause = 5 * time.Millisecond // bounds how often await evaluates a condition
	awaitAgain = 500 * time.Millisecond
)

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// settled waits until a change that was asked for is in effect and the pool is
// settled.
func (s *server) settled(ctx context.Context, p *pool) (prefork.Snapshot, error) {
	var snap prefork.Snapshot
	for range 2 { // the first turn may have begun before
		if err := p.pm.Ping(ctx); err != nil {
			return snap, err
		}
	}
	err := s.awaitState(ctx, []*pool{p}, func(now prefork.Snapshot) bool {
		snap = now
		return now.Settled
	})
	return snap, err
}

func (x *exchange) reload() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	how := x.query.Get("how")
	if _, err := forwardFor(how, nil); err != nil {
		return err
	}
	note := "reload"
	if how != "" {
		note += " how=" + how
	}
	return x.perform(x.replace("reload", note, pools, func(p *pool) prefork.Forward {
		f, _ := forwardFor(how, p)
		return f
	}))
}

func (x *exchange) restart() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	return x.perform(x.replace("restart", "restart", pools, func(p *pool) prefork.Forward {
		return prefork.Forward{Signal: p.stopSignal()}
	}))
}

// replace is a command that begins a new generation.
func (x *exchange) replace(name, note string, pools []*pool, forward func(*pool) prefork.Forward) command {
	return command{name: name, note: note, pools: pools, again: true, run: func(ctx context.Context, p *pool) (result, error) {
		generation, err := p.pm.Reload(ctx, forward(p))
		return result{generation: generation, text: fmt.Sprintf("generation %d is in place, %d workers", generation, p.pm.MaxWorkers())}, err
	}}
}

// forwardFor returns the way of a reload. The pool is nil to check only.
func forwardFor(how string, p *pool) (f prefork.Forward, err error) {
	stop := os.Signal(syscall.SIGTERM)
	if p != nil {
		stop = p.stopSignal()
	}
	interval, isInterval := strings.CutPrefix(how, "interval=")
	switch {
	case how == "":
		return f, nil // the entry of the table for SIGHUP
	case how == "rolling":
		return prefork.Forward{Signal: stop, Rolling: true}, nil
	case how == "plain":
		return prefork.Forward{Signal: stop}, nil
	case isInterval:
		d, err := time.ParseDuration(interval)
		if err == nil && d > 0 && d <= maxTimeout {
			return prefork.Forward{Signal: stop, Interval: d}, nil
		}
	}
	return f, problemf(400, "how=%.40q is none of rolling, plain and interval=1s", how)
}

// stopSignal returns the signal that stops the workers of the pool.
func (p *pool) stopSignal() os.Signal {
	if s := p.cfg.TrapSignals[p.cfg.ShutdownSignal].Signal; s != nil {
		return s
	}
	return syscall.SIGTERM
}

func (x *exchange) upgrade() error {
	// A program with several Managers refuses it, so the first one's answer is
	// that of all.
	return x.perform(command{name: "upgrade", note: "upgrade", pools: x.pools[:1], run: func(ctx context.Context, p *pool) (result, error) {
		pid, err := p.pm.RequestUpgrade(ctx)
		return result{successor: pid, text: fmt.Sprintf("successor %d has taken over", pid)}, err
	}})
}

func (x *exchange) scale() error {
	p, err := x.one()
	if err != nil {
		return err
	}
	text := x.query.Get("workers")
	if count, ok := strings.CutPrefix(text, " "); ok { // a query encodes "+" so
		text = "+" + count
	}
	n, err := strconv.Atoi(text)
	const most = 1 << 20
	if err != nil || n > most || n < -most {
		return problemf(400, "workers=%.40q is not a number: write 8, +1 or -1", text)
	}
	relative := text[0] == '+' || text[0] == '-'
	return x.perform(command{name: "scale", note: "scale workers=" + text, pools: []*pool{p}, again: true, run: func(ctx context.Context, p *pool) (result, error) {
		x.scaling.Lock()
		if relative {
			n = max(n+p.pm.MaxWorkers(), 0)
		}
		p.pm.SetMaxWorkers(n)
		x.scaling.Unlock()
		snap, err := x.settled(ctx, p)
		return result{generation: snap.Generation, text: fmt.Sprintf("%d workers", n)}, err
	}})
}

func (x *exchange) pause() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	return x.perform(command{name: "pause", note: "pause", pools: pools, again: true, run: func(ctx context.Context, p *pool) (result, error) {
		p.pm.Pause()
		err := x.awaitState(ctx, []*pool{p}, prefork.Snapshot.AllPaused)
		if err != nil && ctx.Err() != nil {
			snap, _ := p.state()
			err = errPending{"not paused yet: " + notPaused(snap)}
		}
		return result{text: "all workers have paused"}, err
	}})
}

// notPaused names the workers that have not paused.
func notPaused(snap prefork.Snapshot) string {
	var names []string
	for _, w := range snap.Workers {
		if w.Slot >= 0 && !w.Paused && (w.State == prefork.StateStarting || w.State == prefork.StateReady) {
			names = append(names, fmt.Sprintf("worker %d (slot %d, id %d)", w.PID, w.Slot, w.Ordinal))
		}
	}
	if len(names) > 10 {
		names = append(names[:10], fmt.Sprintf("%d more", len(names)-10))
	}
	return strings.Join(names, ", ")
}

func (x *exchange) resume() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	return x.perform(command{name: "resume", note: "resume", pools: pools, run: func(ctx context.Context, p *pool) (result, error) {
		p.pm.Resume()
		return result{text: "the workers go on"}, p.pm.Ping(ctx)
	}})
}

func (x *exchange) stop() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	c := command{name: "stop", note: "stop", pools: pools}
	if x.query.Get("stay") == "1" {
		switch {
		case x.cfg.Stay == nil:
			return problemf(400, "stay=1: the program has no service whose stopped flag could be set (control.Config.Stay)")
		case len(pools) < len(x.pools):
			return problemf(400, "stay=1 is for the whole program: leave out pool=")
		}
		c.note += " stay=1"
		c.prepare = func() error {
			if err := x.cfg.Stay(); err != nil {
				return problemf(409, "cannot set the stopped flag: %v", err)
			}
			return nil
		}
	}
	c.run = func(ctx context.Context, p *pool) (result, error) {
		p.pm.Shutdown()
		err := x.await(ctx, nil, p.ended.Load)
		if x.isClosing() { // the program ends
			err = nil
		}
		return result{text: "stopped"}, err
	}
	return x.perform(c)
}

func (x *exchange) signal() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	s, err := x.signalParameter()
	if err != nil {
		return err
	}
	to := x.query.Get("to")
	switch to {
	case "", "manager":
		to = "manager"
		for _, p := range pools {
			if !p.traps(s) {
				return problemf(400, "%s%s is not in the table of signals, which the program has chosen", p.label(), signalName(s))
			}
		}
	case "workers":
	default:
		return problemf(400, "to=%.40q is neither manager nor workers", to)
	}
	note := fmt.Sprintf("signal %s to=%s", signalName(s), to)
	return x.perform(command{name: "signal", note: note, pools: pools, run: func(ctx context.Context, p *pool) (result, error) {
		if to == "manager" {
			p.pm.Deliver(s)
		} else {
			p.pm.SignalAllChildren(s)
		}
		return result{text: fmt.Sprintf("%s was sent to the %s", signalName(s), to)}, p.pm.Ping(ctx)
	}})
}

// traps reports whether the Manager handles a signal.
func (p *pool) traps(s syscall.Signal) bool {
	_, named := p.cfg.TrapSignals[s]
	return named || os.Signal(s) == p.cfg.ShutdownSignal || s == syscall.SIGINT
}

// maxSignal is the greatest number of a signal that a Manager sends.
const maxSignal = 64

// signalParameter returns the signal of the query: a name with or without "SIG",
// or a number.
func (x *exchange) signalParameter() (syscall.Signal, error) {
	text := strings.ToUpper(x.query.Get("signal"))
	for _, name := range []string{text, "SIG" + text, "signal " + text} {
		if s, err := sig.Parse(name); err == nil && s <= maxSignal {
			return s, nil
		}
	}
	return 0, problemf(400, "signal=%.40q is not the name or number of a signal", x.query.Get("signal"))
}

func signalName(s syscall.Signal) string { return sig.Name(s) }

func (x *exchange) worker() error {
	id, verb, ok := strings.Cut(strings.TrimPrefix(x.path, "/v1/workers/"), "/")
	ordinal, err := strconv.Atoi(id)
	if !ok || err != nil || ordinal < 0 {
		return problemf(404, "there is no %.100q here: /v1/workers/ID/replace, stop, kill or signal", x.path)
	}
	p, err := x.one()
	if err != nil {
		return err
	}
	var run func(ctx context.Context, p *pool) (result, error)
	note := fmt.Sprintf("%s worker %d", verb, ordinal)
	switch verb {
	case "replace":
		run = func(ctx context.Context, p *pool) (result, error) {
			return result{text: fmt.Sprintf("worker %d is replaced", ordinal)}, p.pm.ReplaceWorker(ctx, ordinal)
		}
	case "stop":
		run = x.endWorker(ordinal, p.stopSignal())
	case "kill":
		run = x.endWorker(ordinal, syscall.SIGKILL)
	case "signal":
		s, err := x.signalParameter()
		if err != nil {
			return err
		}
		note = fmt.Sprintf("signal %s to worker %d", signalName(s), ordinal)
		run = func(ctx context.Context, p *pool) (result, error) {
			if err := p.pm.SignalWorker(ordinal, s); err != nil {
				return result{}, err
			}
			return result{text: fmt.Sprintf("%s was sent to worker %d", signalName(s), ordinal)}, p.pm.Ping(ctx)
		}
	default:
		return problemf(404, "there is no verb %.40q: replace, stop, kill or signal", verb)
	}
	if !p.has(ordinal) {
		return problemf(404, "there is no worker %d; its pid may be %d, and the number is its id", ordinal, ordinal)
	}
	return x.perform(command{name: "workers/" + id + "/" + verb, note: note, pools: []*pool{p}, run: run})
}

// has reports whether a worker is not reaped yet. It may be younger than the shared
// state.
func (p *pool) has(ordinal int) bool {
	now := time.Now()
	if snap, _ := p.state(); hasWorker(snap, ordinal) {
		return true
	}
	snap, _ := p.stateAfter(context.Background(), now)
	return hasWorker(snap, ordinal)
}

func hasWorker(snap prefork.Snapshot, ordinal int) bool {
	return slices.ContainsFunc(snap.Workers, func(w prefork.WorkerInfo) bool { return w.Ordinal == ordinal })
}

// endWorker sends a worker a signal and waits until it is reaped.
func (x *exchange) endWorker(ordinal int, s os.Signal) func(ctx context.Context, p *pool) (result, error) {
	return func(ctx context.Context, p *pool) (result, error) {
		if err := p.pm.SignalWorker(ordinal, s); err != nil {
			return result{}, err
		}
		err := x.await(ctx, nil, func() bool {
			return holdNow(ctx, []*pool{p}, func(snap prefork.Snapshot) bool { return !hasWorker(snap, ordinal) })
		})
		return result{text: fmt.Sprintf("worker %d is gone", ordinal)}, err
	}
}

func (x *exchange) loglevel() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	var level slog.Level
	text := x.query.Get("level")
	if err := level.UnmarshalText([]byte(text)); err != nil {
		return problemf(400, "level=%.40q is none of debug, info, warn and error", text)
	}
	for _, p := range pools {
		p.pm.Note(x.peer.String(), "loglevel "+level.String())
		p.pm.SetLogLevel(level)
	}
	return answerJSON(x.w, 200, client.Answer{Command: "loglevel", Outcome: client.Done, Text: "level " + level.String()})
}

func (x *exchange) wait() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	timeout, err := x.duration("timeout", waitTimeout)
	if err != nil {
		return err
	}
	state := x.query.Get("for")
	holds, err := condition(state)
	if err != nil {
		return err
	}
	began := time.Now()
	ctx, cancel := x.untilGone(timeout)
	defer cancel()
	err = x.awaitState(ctx, pools, holds)
	if p := x.handedOver(); p != nil {
		return p
	}
	a := client.Answer{Command: "wait", Outcome: client.Done, Seconds: seconds(time.Since(began)), Text: state}
	switch {
	case err == nil: // a status that is made after that is not of an older state
	case x.isClosing():
		return problemf(503, "the manager ends")
	case errors.Is(err, context.DeadlineExceeded):
		a.Outcome, a.Text, a.Error = client.Pending, "", fmt.Sprintf("not %s within %v", state, timeout)
	default:
		return err
	}
	return answerJSON(x.w, codeOf(&a), a)
}

// condition returns the condition of a state that a client waits for.
func condition(state string) (func(prefork.Snapshot) bool, error) {
	generation, reloaded := strings.CutPrefix(state, "reloaded>")
	switch {
	case state == "ready":
		return isReady, nil
	case state == "settled":
		return func(s prefork.Snapshot) bool { return s.Settled }, nil
	case state == "paused":
		return prefork.Snapshot.AllPaused, nil
	case state == "running":
		return func(s prefork.Snapshot) bool { return s.Loop.Call != "" && s.Generation > 0 && s.Stopping.IsZero() }, nil
	case reloaded:
		if n, err := strconv.Atoi(generation); err == nil {
			return func(s prefork.Snapshot) bool { return s.Settled && s.Serving > n }, nil
		}
	}
	return nil, problemf(400, "for=%.40q is none of ready, settled, reloaded>N, paused and running", state)
}
