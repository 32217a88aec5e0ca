// Package monitor keeps the programs and service directories of one directory
// running, each by a Manager of its own, as runsvdir with runsv, or svscan with
// supervise, does. The command `prefork watch` is built on it.
//
//	m, err := monitor.New(monitor.Config{Dir: "/etc/service"})
//	if err != nil { ... }
//	err = m.Run(ctx) // until ctx ends or m.Shutdown is called
//
// Use it only in a program that is below a reaper with Config.ReaperKills: finish
// and control scripts, and processes that services have started, otherwise outlive
// a program that is killed.
package monitor

import (
	"log/slog"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/supervise"
)

// A Style is the form of the first argument of finish after a signal has ended
// run.
type Style uint8

const (
	StyleRunit Style = iota // -1
	StyleS6                 // 256
)

// Config configures a Monitor. Dir is required.
type Config struct {
	// Dir is the directory of the services.
	Dir string

	// Enter, if not nil, is called before a directory is looked at for the first time:
	// at the start of Run, which returns its error, and when another directory has
	// taken the name. If it returns an error then, the services are stopped, and it is
	// called again later. Use it for a lock.
	Enter func() error

	// Backoff is Config.Backoff of programs (executable files). nil means 0, 5 s,
	// 15 s, 1 min; empty means no delay. Service directories have a file for it.
	Backoff []time.Duration

	// StopTimeout is Config.StopTimeout of programs. 0 means 3 s, a negative value
	// never. Service directories have the file timeout-kill.
	StopTimeout time.Duration

	// Settle is how long nothing must happen to a file before it counts as changed.
	// 0 means 300 ms.
	Settle time.Duration

	// Max is the maximum number of services. 0 means 4096.
	Max int

	// Style is the form of the first argument of finish.
	Style Style

	// Once starts each service once. Run returns when all have ended. A service that
	// cannot be started counts as ended.
	Once bool

	// Output, if not nil, is called before each start of a program, and of run, finish
	// and control scripts; the service of those in log is "NAME/log". It gives the
	// process its Stdout and Stderr; other fields of sp are ignored for scripts. If the
	// service has a logger, the pipe then takes the place of Stdout. The functions that
	// it returns may be nil: started is called once, with the pid, or 0 if the process
	// could not be started, and ended follows unless it was 0. By default the processes
	// have the streams of this process. None of the three must block, or call methods
	// of the Monitor.
	Output func(service string, sp *prefork.Spawn) (started func(pid int), ended func(prefork.Exit))

	// Attach, if not nil, is called with each new Manager, before its Run, and detach
	// (if not nil) when it has ended. A service directory gets another Manager when
	// files have changed that a Manager reads once. Name is that of Output. The Manager
	// must not be scaled, reloaded or shut down: Do commands the service.
	Attach func(name string, pm *prefork.Manager) (detach func())

	// Observe, if not nil, is called with each event, by one goroutine at a time. It
	// must not block, and must not call methods of the Monitor.
	Observe func(Event)

	// Logger gets warnings, and the lines of the Managers. nil means slog.Default().
	Logger *slog.Logger
}

const (
	defaultStopTimeout = 3 * time.Second
	defaultMax         = 4096
	defaultSettle      = 300 * time.Millisecond
)

var defaultBackoff = []time.Duration{0, 5 * time.Second, 15 * time.Second, time.Minute}

// A Kind is a kind of service.
type Kind uint8

const (
	Program Kind = iota + 1 // an executable file
	Service                 // a directory with an executable run
	Logger                  // the directory log of a Service
)

func (k Kind) String() string {
	return [...]string{"unknown", "program", "service", "logger"}[min(k, 4)%4]
}

// An EventKind is the kind of an Event.
type EventKind uint8

const (
	Added      EventKind = iota + 1 // the service has come, or runs again after a command x
	Changed                         // its file has changed: it is stopped, then started
	Removed                         // its entry has gone, or it has ended by a command x
	PassedOver                      // the entry is no service, or cannot be one: see Reason
	GaveUp                          // finish has exited with 125: it is not started again
)

var eventNames = [...]string{"unknown", "program-added", "program-changed", "program-removed", "passed-over", "gave-up"}

// String returns the name in a journal, such as "program-added".
func (k EventKind) String() string {
	if int(k) >= len(eventNames) {
		k = 0
	}
	return eventNames[k]
}

// An Event is a change of the set of services.
type Event struct {
	Kind    EventKind
	Time    time.Time
	Service string // the name of the entry, or "NAME/log"
	Type    Kind   // 0 for an entry that is passed over
	Reason  string // of PassedOver and Removed; may be ""
}

// Status is the state of a service.
type Status struct {
	Name string
	Kind Kind
	supervise.Status

	Ready      bool      // it is up, and reports that it is ready if Notifies
	Notifies   bool      // it has notification-fd
	WaitsUntil time.Time // it is not started before; zero if it does not wait
	GaveUp     bool      // finish has exited with 125
	Problem    string    // why it cannot be started; "" for none
	PIDs       []int     // of all instances of run
	Tally      []Death   // the last ends of run, the oldest first; none of a program
	Ends       int       // how often run has ended
	LastEnd    Death     // the last of them
	Log        *Status   // of the logger; nil for none
}

// A Death is an end of run.
type Death struct {
	Time   time.Time
	Status prefork.ExitStatus
}
