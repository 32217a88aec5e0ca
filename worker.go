package prefork

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/reaper"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/wire"
)

// self is what this process inherited, read once at its start. It is the package's only state.
var self = inheritSelf()

// process is what there is of a worker in every process: nothing but names in an ordinary one.
type process struct {
	role     inherit.Role
	err      error // why it is damaged
	marker   inherit.Marker
	cell     *scoreboard.Writer
	cellErr  error // why there is none
	confined sync.Once
	threads  sync.Once // spareThreads
	control  *os.File  // of a worker and of a successor
	args     []string  // of this process, before the program may have changed them

	ctx    context.Context
	cancel context.CancelCauseFunc
	heeds  atomic.Bool // Context was called

	promoted chan string // a standby's: the plan of the slot that it was given

	pauses pauses

	tookOver  chan struct{} // in a successor: closed when the manager before it has let go
	succeeded atomic.Bool   // a successor has taken over
	byStarter bool          // this process was started by start_server

	reaper     *reaper.Link  // above this process; nil for none
	reaperGone chan struct{} // closed when it is

	mu          sync.Mutex
	names       []string         // of the Managers in this process
	passedFiles []passedFile     // for a successor
	kept        map[int]*kept    // a worker's listeners with a socket for each slot, by index
	looked      bool             // outside was looked for
	wasGiven    bool             // something was found there
	outside     []*inherit.Given // sockets from start_server or systemd that nobody took yet
	outsideErr  error
}

// inheritSelf runs before main, so that the marker is gone before main reads or copies the environment, and the manager
// is watched however early it dies.
func inheritSelf() *process {
	p := &process{args: slices.Clone(os.Args)}
	p.marker, p.role, p.err = inherit.Take()
	p.meetReaper()
	if errors.Is(p.err, inherit.ErrGone) {
		fmt.Fprintln(os.Stderr, "prefork:", p.err)
		inherit.Exit(1)
	}
	switch p.role {
	case inherit.Successor:
		inherit.SetName(os.Args[0])
		p.control = os.NewFile(uintptr(p.marker.Control), "prefork control socket")
		p.tookOver = make(chan struct{})
		go p.watchPredecessor()
		return p
	case inherit.Ordinary, inherit.Damaged:
		return p
	}
	inherit.SetName(os.Args[0])
	p.control = os.NewFile(uintptr(p.marker.Control), "prefork control socket")
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.promoted = make(chan string, 1)
	p.pauses.begin(p.marker.Pause)
	go p.watch()
	return p
}

// watch waits for the end of the manager, which the kernel tells by the end of the socket: no polling, and right also
// where the parent's pid says nothing, as in a container whose first process the manager is. This goroutine also keeps
// a worker that waits for nothing else (select {}) from dying of "all goroutines are asleep".
func (p *process) watch() {
	conn, err := p.control.SyscallConn()
	buf, files := make([]byte, 0, wire.MaxSize), []int{}
	for err == nil {
		n, came := 0, []int(nil)
		n, came, err = inherit.ReadControl(conn, buf[len(buf):cap(buf)])
		buf, files = p.hear(buf[:len(buf)+n], append(files, came...))
	}
	if p.heeds.Load() {
		p.cancel(errManagerGone)
		time.Sleep(p.marker.Orphan)
	}
	inherit.Exit(1)
}

// hear handles the messages in buf, with the descriptors that came with them, and returns what is left of both. What it
// does not know comes from a fault of the manager's, and is left alone: the end of the socket still tells what matters
// most.
func (p *process) hear(buf []byte, files []int) ([]byte, []int) {
	rest := buf
	for {
		msg, n, err := wire.Decode(rest)
		if err != nil {
			if err != wire.ErrShort {
				rest = nil
			}
			return append(buf[:0], rest...), files
		}
		rest = rest[n:]
		switch msg := msg.(type) {
		case wire.Stop:
			p.cancel(p.told())
		case wire.Adopt:
			if len(files) > 0 {
				p.adopt(msg, files[0])
				files = files[1:]
			}
		case wire.Drop:
			p.drop(msg)
		case wire.Promote:
			p.promote(msg)
		case wire.Pause:
			p.pauses.pause(msg.N)
		case wire.Resume:
			p.pauses.resume()
		}
	}
}

// told is the cause of a Context that ended by the stop signal.
func (p *process) told() error {
	return fmt.Errorf("prefork: told to stop by %s", signalName(p.marker.Stop))
}

var errManagerGone = errors.New("prefork: the manager is gone")

func (p *process) register(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(p.names, name) {
		return configError("Name", "there is a Manager named %q in this program already; each needs a name of its own", name)
	}
	p.names = append(p.names, name)
	return nil
}

func (p *process) unregister(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names = slices.DeleteFunc(p.names, func(n string) bool { return n == name })
}

// IsWorker reports whether this process was started as a worker by a Manager. Any goroutine, also before New.
func IsWorker() bool { return self.role == inherit.Worker || self.role == inherit.Damaged }

// Worker is what a worker knows of itself, and how it hears from its manager. There is one in a worker, from Start on;
// its methods may be called from any goroutine and do not block, save for Checkpoint.
type Worker struct {
	context sync.Once
	ready   sync.Once
	passed  func() []byte
}

// startWorker is Start in a worker.
func (m *Manager) startWorker() {
	if m.foreign {
		m.log.Debug("this worker belongs to another Manager; here Start does not return", "worker of", self.marker.Name, "Start of", m.cfg.Name)
		select {} // this worker belongs to another Manager, whose Start another goroutine calls
	}
	if m.started.Swap(true) {
		misuse("Start called twice in a worker; after its work a worker ends by Finish, or by returning from the function of StartFunc or Run")
	}
	if self.cellErr != nil {
		m.log.Error("this worker's status cannot be published", "err", self.cellErr)
	}
	inherit.HideDepth()
	self.standBy()
	w := &Worker{passed: sync.OnceValue(readPassed)}
	m.mu.Lock()
	m.worker = w // not before: a standby is nobody's worker yet
	m.mu.Unlock()
	if !m.cfg.Readiness.Explicit {
		w.Ready()
	}
}

// standBy has a standby wait until it is given a slot. One that is told to stop has nothing to finish.
func (p *process) standBy() {
	if p.slot() != inherit.NoSlot {
		return
	}
	p.control.Write(wire.Append(nil, wire.Parked{})) // fails only when the manager is gone, which watch sees
	select {
	case plan := <-p.promoted:
		p.follow(plan)
	case <-p.ctx.Done():
		inherit.Exit(0)
	}
}

// promote makes a standby the worker of a slot.
func (p *process) promote(msg wire.Promote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.marker.Slot == inherit.NoSlot {
		p.marker.Slot = msg.Slot
		p.promoted <- msg.Plan
	}
}

func (p *process) slot() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.marker.Slot
}

// work runs a worker's function and ends the process by what it returns.
func (m *Manager) work(work func(*Worker) error) {
	w := m.Worker()
	if err := work(w); err != nil {
		m.log.Error("worker failed", "slot", w.Slot(), "gen", w.Generation(), "pid", os.Getpid(), "err", err)
		m.Finish(1)
	}
	m.Finish(0)
}

// Context ends when the worker should: on the stop signal and on the manager's death; context.Cause says which. Until
// its first call the stop signal keeps its default effect, which as a rule ends the process. Where it does not (the
// program listens for that signal itself, or was started with it ignored), Context is at its end when it is called: the
// manager also says it through the socket between the two.
func (w *Worker) Context() context.Context {
	w.context.Do(func() {
		self.heeds.Store(true)
		c := make(chan os.Signal, 1)
		signal.Notify(c, self.marker.Stop)
		go func() {
			<-c
			self.cancel(self.told())
		}()
	})
	return self.ctx
}

// Ready tells the manager that this worker is ready, where Config.Readiness asks for it; else it was said by Start. Calling
// it again does nothing.
func (w *Worker) Ready() {
	w.ready.Do(func() {
		self.control.Write(wire.Append(nil, wire.Reached{})) // fails only when the manager is gone, which watch sees
	})
}

// Passed is what Manager.Pass was given before this worker's generation began; nil if it was not called. The bytes are
// shared by all callers and must not be changed.
func (w *Worker) Passed() []byte { return w.passed() }

func readPassed() []byte {
	if self.marker.Passed == 0 {
		return nil
	}
	data, err := inherit.ReadBlob(self.marker.Passed)
	if err != nil {
		// The manager made and sealed it; a worker that went on without its configuration would do harm.
		misuse("%v", err)
	}
	return data
}

// Slot is the worker's place in the pool: 0 … MaxWorkers-1, used again by the worker that replaces it.
func (w *Worker) Slot() int { return self.slot() }

// Generation is the generation that the worker belongs to: 1 for those of the first Start.
func (w *Worker) Generation() int { return self.marker.Generation }

// Ordinal is 1 for the first worker that the manager ever spawned, then 2, 3 …
func (w *Worker) Ordinal() int { return self.marker.Ordinal }

// ManagerPID is the pid of the manager, as the manager itself sees it.
func (w *Worker) ManagerPID() int { return self.marker.Manager }
