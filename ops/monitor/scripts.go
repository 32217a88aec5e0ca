//go:build unix

package monitor

import (
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/launch"
	"github.com/prefork-go/prefork/internal/proc"
)

// A script is a run of finish, or of control/C. It leads a process group.
type script struct {
	dir   string // of the service
	args  []string
	env   []string
	unset []string
	out   *os.File      // nil for the stdout of this process
	errs  *os.File      // nil for its stderr
	limit time.Duration // then its group is killed; 0 is no limit

	started func(pid int) // 0 if it could not be started
	ended   func(s proc.Status, err error)

	process proc.Process
	due     time.Time
	killed  bool
	overdue bool // it was killed because of limit
}

// scripts runs scripts. One goroutine owns them, so a script that hangs holds up no
// service, and takes no thread.
type scripts struct {
	depth int
	null  *os.File
	table proc.Table
	wake  chan struct{}

	mu    sync.Mutex
	notes []uint64
	calls []func()
	stop  bool
	over  bool // the goroutine has ended

	// The following belong to the goroutine.
	last  uint64
	alive map[uint64]*script
}

func newScripts(depth int, null *os.File) *scripts {
	r := &scripts{depth: depth, null: null, wake: make(chan struct{}, 1), alive: make(map[uint64]*script)}
	r.table = proc.Share(func(n proc.Note) {
		if n.Kind == proc.Exited {
			r.put(func() { r.notes = append(r.notes, n.ID) })
		}
	})
	return r
}

// put adds something for the goroutine.
func (r *scripts) put(add func()) {
	r.mu.Lock()
	add()
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *scripts) call(f func()) { r.put(func() { r.calls = append(r.calls, f) }) }

// run starts a script soon. Its ended is called in any case.
func (r *scripts) run(s *script) {
	over := false
	r.put(func() {
		if over = r.over; !over {
			r.calls = append(r.calls, func() { r.start(s) })
		}
	})
	if over { // its service is one that Run has not waited for
		go s.abort()
	}
}

// abort ends a script that is not started.
func (s *script) abort() {
	s.started(0)
	s.ended(proc.Status{}, os.ErrProcessDone)
}

// kill kills a script and its group.
func (r *scripts) kill(s *script) { r.call(func() { r.killNow(s) }) }

func (r *scripts) killAll() {
	r.call(func() {
		for _, s := range r.alive {
			r.killNow(s)
		}
	})
}

// close ends the goroutine when no script is left.
func (r *scripts) close() { r.put(func() { r.stop = true }) }

// loop is the goroutine.
func (r *scripts) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer r.table.Close()
	for {
		r.mu.Lock()
		notes, calls := r.notes, r.calls
		r.notes, r.calls = nil, nil
		r.mu.Unlock()
		for _, f := range calls {
			f()
		}
		for _, id := range notes {
			r.reap(id)
		}
		r.mu.Lock()
		r.over = r.stop && len(r.alive) == 0 && len(r.calls) == 0
		over := r.over
		r.mu.Unlock()
		if over {
			return
		}
		next := r.overdue(time.Now())
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		select {
		case <-r.wake:
		case <-due:
		}
	}
}

func (r *scripts) start(s *script) {
	if s.killed {
		s.abort()
		return
	}
	spec, release, err := launch.Command(launch.Plan{
		Args: s.args, Dir: s.dir, Env: s.env, Unset: s.unset, Depth: r.depth, Generation: 1,
		Streams: [3]*os.File{r.null, s.out, s.errs},
	})
	if err == nil {
		r.last++
		s.process, err = r.table.Start(r.last, spec)
		release()
	}
	if err != nil {
		s.started(0)
		s.ended(proc.Status{}, launch.ExplainCommand("", s.dir, err))
		return
	}
	r.alive[r.last] = s
	if s.limit > 0 {
		s.due = time.Now().Add(s.limit)
	}
	s.started(s.process.Pid())
}

func (r *scripts) killNow(s *script) {
	if s.killed = true; s.process != nil {
		// Its number cannot belong to another group: it was not waited for.
		syscall.Kill(-s.process.Pid(), syscall.SIGKILL)
		s.process.Signal(syscall.SIGKILL) // it may have left the group
	}
}

func (r *scripts) reap(id uint64) {
	s := r.alive[id]
	if s == nil {
		return
	}
	status, _, ok := s.process.Reap()
	if !ok {
		return
	}
	delete(r.alive, id)
	s.process = nil
	s.ended(status, nil)
}

// overdue kills the scripts whose time has passed, and returns when that of the
// next one does.
func (r *scripts) overdue(now time.Time) (next time.Time) {
	for _, s := range r.alive {
		switch {
		case s.due.IsZero() || s.killed:
		case !now.Before(s.due):
			s.overdue = true
			r.killNow(s)
		case next.IsZero() || s.due.Before(next):
			next = s.due
		}
	}
	return next
}
