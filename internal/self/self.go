// Package self holds the role in which this process was started, and its link to
// the process that started it.
package self

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/binary"
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pause"
	"github.com/prefork-go/prefork/internal/reaper"
	"github.com/prefork-go/prefork/internal/resources"
	"github.com/prefork-go/prefork/internal/scoreboard"
	"github.com/prefork-go/prefork/internal/wire"
)

// Process is this process. There is one, which Read returns. Its methods are
// safe for concurrent use.
type Process struct {
	Role   marker.Role
	Err    error         // the reason for marker.Damaged
	Marker marker.Marker // Slot and Files change: use the methods Slot and PassedFile
	Args   []string      // as they were before main could change them
	Dir    string        // the working directory before main; "" if it is not known
	Notify []string      // the variables of systemd for notifications, as they were before main

	sockets Sockets   // of a worker; nil before Follow
	unblock sync.Once // the first Unblock of a worker that stops

	control *os.File // the socket to the manager, of a worker and of a successor
	Pause   *pause.State

	LogLevel slog.LevelVar // of a worker, as its manager has set it

	ctx         context.Context
	cancel      context.CancelCauseFunc
	notify      sync.Once                 // the first call of Context
	contextUsed atomic.Bool               // Context was called
	managerGone atomic.Pointer[time.Time] // when the manager of a worker that uses Context was gone
	promoted    chan string               // the resources of a standby's slot
	ignored     chan os.Signal            // never read; see ignoreSignals

	Interrupted chan struct{} // of a worker: closed when an interrupt stops the program
	interrupt   sync.Once     // the close of Interrupted

	confined sync.Once
	cell     *scoreboard.Writer
	cellErr  error

	awaitTakeOver sync.Once     // the first call of SlotTakenOver
	slotTakenOver chan struct{} // of a worker: closed when it is the only one of its slot

	tookOver   chan struct{} // of a successor: closed when its predecessor has handed over
	oldGone    chan struct{} // of a successor: closed when its predecessor has exited
	HandedOver atomic.Bool   // a successor has taken over from this process

	Reaper     *reaper.Link    // above this process; nil for none
	Guard      int             // the pid of the guard above the reaper; 0 for none
	ReaperGone context.Context // ends when the reaper has exited

	mu          sync.Mutex
	names       []string    // of the Managers in this process
	trapped     []os.Signal // by them; one entry for each trap
	passedFiles []passedFile
	started     []fd.Started
}

// Read reads the marker in the environment of this process, and removes it. It is
// called once, in the initialization of the root package: before main reads or
// copies the environment. In a process that no manager started, it reads the
// working directory, which main may change, and does nothing else.
func Read() *Process {
	p := &Process{Args: slices.Clone(os.Args)}
	p.Dir, _ = os.Getwd()
	marker.BecomeCommand(resources.Apply, reportStep)
	p.Marker, p.Role, p.Err = marker.Take()
	p.joinReaper()
	if p.Role == marker.Successor {
		activation.Readdress(p.Marker.Manager)
	}
	p.Notify = activation.NotifyVariables(os.Environ())
	if errors.Is(p.Err, marker.ErrGone) {
		fmt.Fprintln(os.Stderr, "prefork:", p.Err)
		syscall.Exit(1)
	}
	switch p.Role {
	case marker.Worker:
		p.ctx, p.cancel = context.WithCancelCause(context.Background())
		p.promoted = make(chan string, 1)
		p.Interrupted = make(chan struct{})
		p.slotTakenOver = make(chan struct{})
		p.LogLevel.Set(slog.Level(p.Marker.Level))
		p.Pause = pause.New(p.Marker.Pause, func(n int) { p.Send(wire.Paused{N: n}) })
	case marker.Successor:
		p.tookOver, p.oldGone = make(chan struct{}), make(chan struct{})
	default:
		return p
	}
	binary.SetName(os.Args[0])
	p.control = os.NewFile(uintptr(p.Marker.Control), "prefork control socket")
	return p
}

// stepSocket is that of reportStep. It stays here, since a file that is collected
// closes its descriptor, which the Command may get.
var stepSocket *os.File

// reportStep reports to the manager that this process, the first step of a Command,
// is about to execute it, or could not.
func reportStep(socket int, err error) error {
	if stepSocket == nil {
		stepSocket = os.NewFile(uintptr(socket), "prefork control socket")
	}
	if err == nil {
		_, err = stepSocket.Write(wire.Append(nil, wire.Executing{}))
		return err
	}
	var m wire.NotStarted
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		m.Errno = byte(errno)
	}
	if _, executed := err.(syscall.Errno); !executed {
		m.Reason = err.Error()
	}
	_, err = stepSocket.Write(wire.Append(nil, m))
	return err
}

// IsWorker reports whether this process was started as a worker, also if its
// marker is damaged.
func (p *Process) IsWorker() bool { return p.Role == marker.Worker || p.Role == marker.Damaged }

// Slot returns the worker's slot; marker.NoSlot for a standby.
func (p *Process) Slot() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Marker.Slot
}

// Register adds the name of a Manager. It returns false if the name is taken.
func (p *Process) Register(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(p.names, name) {
		return false
	}
	p.names = append(p.names, name)
	return true
}

// Unregister removes the name of a Manager.
func (p *Process) Unregister(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names = slices.DeleteFunc(p.names, func(n string) bool { return n == name })
}

// Managers returns the number of Managers in this process.
func (p *Process) Managers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.names)
}

// HasManager reports whether a Manager of this name is in this process.
func (p *Process) HasManager(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.names, name)
}

// Confine maps the worker's cell, applies the worker's resources, and is a no-op
// after the first call. If the resources cannot be applied, the process exits: a
// program may ignore an error, and would run with rights that it must not have.
func (p *Process) Confine() {
	p.confined.Do(func() {
		p.cell, p.cellErr = p.openCell() // first, as a limit may leave no room for it
		p.apply(p.Marker.Resources)
	})
}

func (p *Process) apply(plan string) {
	if err := resources.Apply(plan); err != nil {
		fmt.Fprintf(os.Stderr, "prefork: worker %d of slot %d exits: cannot apply its resources: %v\n", os.Getpid(), p.Slot(), err)
		syscall.Exit(1)
	}
}

// openCell maps the memory in which this worker publishes its status.
func (p *Process) openCell() (*scoreboard.Writer, error) {
	if p.Marker.Cell == 0 {
		return nil, nil
	}
	defer fd.Close(p.Marker.Cell)
	// If the socket has no room for the message, it holds older ones of this
	// worker that have the same effect.
	return scoreboard.Open(p.Marker.Cell, func() { p.Send(wire.StatusChanged{}) })
}

// Cell returns the memory in which this worker publishes its status, or the
// reason why it cannot.
func (p *Process) Cell() (*scoreboard.Writer, error) { return p.cell, p.cellErr }
