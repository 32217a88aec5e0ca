package control

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/ops/client"
)

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
	return command{name: name, note: note, pools: pools, again: true, steers: true, run: func(ctx context.Context, p *pool) (result, error) {
		generation, err := p.pm.Reload(ctx, forward(p))
		return result{generation: generation, text: fmt.Sprintf("generation %d is in place, %s", generation, workers(p.pm.MaxWorkers()))}, err
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
		f = prefork.Forward{Signal: stop, Rolling: true}
		if p != nil && p.cfg.TrapSignals[syscall.SIGHUP].Rolling {
			f.Linger = p.cfg.TrapSignals[syscall.SIGHUP].Linger
		}
		return f, nil
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

// workers returns a number of workers in words.
func workers(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", n)
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
	switch {
	case x.cfg.Stop != nil:
		return problemf(409, "this program cannot be upgraded: stop it and start it again")
	case len(x.pools) == 0:
		return errNoPools
	}
	// One that waits for another is done by the successor.
	return x.perform(command{name: "upgrade", note: "upgrade", pools: x.pools[:1], again: true, run: func(ctx context.Context, p *pool) (result, error) {
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
	return x.perform(command{name: "scale", note: "scale workers=" + text, pools: []*pool{p}, again: true, steers: true, run: func(ctx context.Context, p *pool) (result, error) {
		x.scaling.Lock()
		if relative {
			n = max(n+p.pm.MaxWorkers(), 0)
		}
		p.pm.SetMaxWorkers(n)
		x.scaling.Unlock()
		snap, err := x.settled(ctx, p)
		return result{generation: snap.Generation, text: workers(n)}, err
	}})
}

func (x *exchange) pause() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	return x.perform(command{name: "pause", note: "pause", pools: pools, again: true, steers: true, run: func(ctx context.Context, p *pool) (result, error) {
		p.pm.Pause()
		_, err := x.whileRunning(ctx, p, prefork.Snapshot.AllPaused)
		if err != nil && ctx.Err() != nil {
			snap, _ := p.state()
			err = errPending{"not paused yet: " + notPaused(snap) + "; a worker pauses at its next Checkpoint"}
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
	return x.perform(command{name: "resume", note: "resume", pools: pools, again: true, steers: true, run: func(ctx context.Context, p *pool) (result, error) {
		p.pm.Resume()
		if err := p.pm.Ping(ctx); err != nil {
			return result{}, err
		}
		_, err := x.whileRunning(ctx, p, func(prefork.Snapshot) bool { return true })
		return result{text: "the workers go on"}, err
	}})
}

func (x *exchange) stop() error {
	pools, err := x.chosen()
	if err != nil {
		return err
	}
	if x.cfg.Stop != nil && x.query.Has("pool") {
		return problemf(409, "pool %.60q is not stopped alone: prefork sv stops a service, and stop without pool= the program", pools[0].name)
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
		err := x.await(ctx, nil, func() bool { return p.ended.Load() || p.gone.Load() })
		return stopped(x, err)
	}
	if x.cfg.Stop != nil {
		c.pools, c.program = nil, true
		c.run = func(ctx context.Context, _ *pool) (result, error) {
			x.cfg.Stop()
			return stopped(x, x.await(ctx, nil, x.isClosing))
		}
	}
	return x.perform(c)
}

// stopped is the result of a stop. The program may end before its pools have.
func stopped(x *exchange, err error) (result, error) {
	if x.isClosing() {
		err = nil
	}
	return result{text: "stopped"}, err
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
				return problemf(400, "%s%s is not in the program's table of signals (TrapSignals); to=workers sends it to the workers", p.label(), signalName(s))
			}
		}
	case "workers":
	default:
		return problemf(400, "to=%.40q is neither manager nor workers", to)
	}
	note := fmt.Sprintf("signal %s to=%s", signalName(s), to)
	return x.perform(command{name: "signal", note: note, pools: pools, steers: to == "manager", run: func(ctx context.Context, p *pool) (result, error) {
		if to == "manager" {
			p.pm.Deliver(s)
		} else {
			p.pm.SignalAllChildren(s)
		}
		if err := p.pm.Ping(ctx); err != nil {
			return result{}, err
		}
		var err error
		if f := p.cfg.TrapSignals[s]; to == "manager" && (f.Rolling || f.Upgrade) {
			if _, err = x.whileRunning(ctx, p, func(prefork.Snapshot) bool { return true }); err == errStopping {
				err = fmt.Errorf("%w, and does not act on %s", errStopping, signalName(s))
			}
		}
		return result{text: fmt.Sprintf("%s was sent to the %s", signalName(s), to)}, err
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
		return problemf(404, "there is no %.60q here: /v1/workers/ID/replace, stop, kill or signal", x.path)
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
		run = x.endWorker(ordinal, p.pm.StopWorker)
	case "kill":
		run = x.endWorker(ordinal, func(ordinal int) error { return p.pm.SignalWorker(ordinal, syscall.SIGKILL) })
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
		return problemf(404, "there is no worker with ID %d: %s", ordinal, p.whichID(ordinal))
	}
	return x.perform(command{name: "workers/" + id + "/" + verb, note: note, pools: []*pool{p}, steers: verb == "replace", run: run})
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

// whichID explains which number is the ID of a worker.
func (p *pool) whichID(n int) string {
	snap, _ := p.state()
	for _, w := range snap.Workers {
		if w.PID == n {
			return fmt.Sprintf("it is a pid, of the worker with ID %d", w.Ordinal)
		}
	}
	return "the status lists the IDs, which are not pids"
}

func hasWorker(snap prefork.Snapshot, ordinal int) bool {
	return slices.ContainsFunc(snap.Workers, func(w prefork.WorkerInfo) bool { return w.Ordinal == ordinal })
}

// endWorker has a worker end and waits until it is reaped.
func (x *exchange) endWorker(ordinal int, end func(ordinal int) error) func(ctx context.Context, p *pool) (result, error) {
	return func(ctx context.Context, p *pool) (result, error) {
		if err := end(ordinal); err != nil {
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
