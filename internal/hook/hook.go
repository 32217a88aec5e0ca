// Package hook runs the hooks of a program in its manager's loop and reports one that
// blocks, and admits one blocking call at a time.
package hook

import (
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Call is a call that is under way.
type Call struct {
	Name  string
	Since time.Time
}

// Runner runs the hooks of one loop, one at a time. Its other methods are safe for
// concurrent use.
type Runner struct {
	log         *slog.Logger
	call        atomic.Pointer[Call] // nil for none
	watched     atomic.Bool          // see watch
	interrupted atomic.Bool
}

// NewRunner returns a Runner that reports to log.
func NewRunner(log *slog.Logger) *Runner { return &Runner{log: log} }

// patience is how long a hook may take before the log names it.
const patience = 5 * time.Second

// Run calls a hook. The manager does nothing else until it returns, so a hook that
// blocks looks like a manager that does.
func (r *Runner) Run(name string, hook func()) {
	r.call.Store(&Call{name, time.Now()})
	r.watch(patience)
	defer r.call.Store(nil)
	hook()
}

// Current returns the hook that runs, nil for none.
func (r *Runner) Current() *Call { return r.call.Load() }

// watch has the log name a hook that blocks. One timer serves all hooks that run in
// that time: functions that follow are called for each event.
func (r *Runner) watch(after time.Duration) {
	if r.watched.Swap(true) {
		return
	}
	time.AfterFunc(after, func() {
		r.watched.Store(false)
		call := r.call.Load()
		if call == nil {
			return
		}
		if left := patience - time.Since(call.Since); left > 0 {
			r.watch(left)
			return
		}
		r.log.Warn("hook blocks the manager: no worker is spawned, reaped or stopped until it returns", "hook", call.Name, "for", patience.String())
	})
}

// interruptGrace is how long after the second interrupt a hook may still return.
const interruptGrace = time.Second

// Interrupt ends this process if a hook still blocks after the second interrupt
// since Begin: the loop, which would kill the workers, does not run.
func (r *Runner) Interrupt() {
	call := r.call.Load()
	if !r.interrupted.Swap(true) || call == nil {
		return
	}
	time.AfterFunc(interruptGrace, func() {
		if r.call.Load() == call {
			r.log.Error("second interrupt while a hook blocks, exiting without a stop of the workers", "hook", call.Name)
			exit(128 + int(syscall.SIGINT))
		}
	})
}

// exit is replaced by tests.
var exit = os.Exit

// Begin makes the next interrupt the first again.
func (r *Runner) Begin() { r.interrupted.Store(false) }

// Guard admits one blocking call at a time. The zero value is ready to use, and its
// methods are safe for concurrent use.
type Guard struct{ call atomic.Pointer[Call] }

// Enter begins a call, or returns the one that is under way.
func (g *Guard) Enter(name string) (other *Call) {
	call := &Call{name, time.Now()}
	for !g.call.CompareAndSwap(nil, call) {
		if other := g.call.Load(); other != nil {
			return other
		}
	}
	return nil
}

// Leave ends the call.
func (g *Guard) Leave() { g.call.Store(nil) }

// Current returns the call that is under way, nil for none.
func (g *Guard) Current() *Call { return g.call.Load() }
