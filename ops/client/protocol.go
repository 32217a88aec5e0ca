// Package client asks and commands a running prefork manager over its control
// socket, which package ops/control serves. The types of this package are the
// JSON objects of that protocol; ops/control/PROTOCOL.md describes it.
//
//	c, err := client.Dial("web") // or a path, or an abstract name such as "@prefork/0/web"
//	if err != nil { ... }
//	status, err := c.Status(ctx, client.StatusOptions{})
//	answer, err := c.Do(ctx, client.Command{Name: "reload"})
//
// It links neither net/http nor the library itself.
package client

import (
	"encoding/json"
	"time"
)

// API is the version of the protocol. Within a version, fields and paths are
// only ever added.
const API = 1

// Status describes a manager's process.
type Status struct {
	API      int       `json:"api"`
	Name     string    `json:"name"`     // of the socket
	Program  string    `json:"program"`  // the first argument, without its directory
	Version  string    `json:"version"`  // of the main module; "" if unknown
	Revision string    `json:"revision"` // of the version control system; "" if unknown
	Library  string    `json:"library"`  // version of the library
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Now      time.Time `json:"now"`
	Args     []string  `json:"args"`
	Pools    []Pool    `json:"pools"`
}

// Pool describes a Manager of the process.
type Pool struct {
	Name       string     `json:"name"`       // prefork.Config.Name
	Seq        uint64     `json:"seq"`        // of the last event before this state
	Generation int        `json:"generation"` // the newest
	Serving    int        `json:"serving"`    // differs from Generation after one has failed
	Settled    bool       `json:"settled"`
	Ready      bool       `json:"ready"` // a worker is ready, and no shutdown has begun
	Pausing    bool       `json:"pausing"`
	Stopping   *time.Time `json:"stopping"` // when the shutdown began
	Call       string     `json:"call"`     // the blocking call that is under way; "" for none
	Hook       *Hook      `json:"hook"`     // the hook that is running

	Limits      Limits   `json:"limits"`
	Counts      Counts   `json:"counts"`
	Requests    uint64   `json:"requests"` // of all workers, also of those that are gone
	Change      *Change  `json:"change"`
	LastReload  *Outcome `json:"last_reload"`
	LastUpgrade *Outcome `json:"last_upgrade"`

	Workers []Worker `json:"workers"` // in the order of their spawns
	Slots   []Slot   `json:"slots"`   // those whose worker was replaced, or that wait
	Sockets []Socket `json:"sockets"`
}

// Hook is a hook of the program that has not returned yet.
type Hook struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
}

// Limits are the limits of a pool, as in prefork.Config. A timeout that never ends
// is negative.
type Limits struct {
	MaxWorkers   int      `json:"max_workers"`
	MinSpare     int      `json:"min_spare"`
	MaxSpare     int      `json:"max_spare"` // 0 means no maximum
	Standby      int      `json:"standby"`
	Surge        int      `json:"surge"`
	StopTimeout  Duration `json:"stop_timeout"`
	ReadyTimeout Duration `json:"ready_timeout"`
}

// Counts are numbers of workers by state, and of slots.
type Counts struct {
	Starting int `json:"starting"`
	Standby  int `json:"standby"`
	Ready    int `json:"ready"`
	Stopping int `json:"stopping"`
	Killed   int `json:"killed"`
	Busy     int `json:"busy"`    // among Ready
	Waiting  int `json:"waiting"` // slots without a worker that wait before their next spawn
}

// Change is a reload, restart or upgrade that is under way.
type Change struct {
	Kind       string     `json:"kind"`
	Generation int        `json:"generation"`
	Began      time.Time  `json:"began"`
	Replaced   int        `json:"replaced"`
	Of         int        `json:"of"`
	Successor  int        `json:"successor,omitempty"` // its pid
	Deadline   *time.Time `json:"deadline"`
}

// Outcome is how a reload or an upgrade ended.
type Outcome struct {
	Outcome    string    `json:"outcome"` // Done or Failed
	Generation int       `json:"generation"`
	Serving    int       `json:"serving"`
	At         time.Time `json:"at"`
	Seconds    float64   `json:"seconds"`
	Error      string    `json:"error,omitempty"`
}

// Worker describes a worker that is not reaped yet.
type Worker struct {
	ID         int        `json:"id"`   // the ordinal, which is never used again
	Slot       int        `json:"slot"` // -1 for a standby
	PID        int        `json:"pid"`
	Generation int        `json:"gen"`
	State      string     `json:"state"`
	Since      time.Time  `json:"since"` // in this state
	Started    time.Time  `json:"started"`
	ReadyAfter *Duration  `json:"ready_after"` // null if it was never ready
	Deadline   *time.Time `json:"deadline"`    // when it will be killed
	Status     string     `json:"status"`      // one character, as set by Worker.SetStatus
	Paused     bool       `json:"paused"`
	Requests   uint64     `json:"requests"`

	// Nil unless they were asked for and the system reports them: the resident
	// memory in bytes, the part of it that the worker shares with no other
	// process, and the CPU time in seconds.
	RSS    *int64   `json:"rss,omitempty"`
	Memory *int64   `json:"memory,omitempty"`
	CPU    *float64 `json:"cpu,omitempty"`
}

// Slot describes a slot in which workers were replaced, that waits before its next
// spawn, or that stays empty.
type Slot struct {
	Slot       int        `json:"slot"`
	Spawns     int        `json:"spawns"`
	Crashes    int        `json:"crashes"` // in a row
	WaitsUntil *time.Time `json:"waits_until"`
	LastExit   *Exit      `json:"last_exit"`
	Held       bool       `json:"held,omitempty"` // it stays empty until it is released
	Done       bool       `json:"done,omitempty"` // its worker has exited, and no other follows
}

// Exit describes a worker that is gone.
type Exit struct {
	ID       int       `json:"id"`
	PID      int       `json:"pid"`
	Reason   string    `json:"reason"`
	Code     int       `json:"code"`
	Signal   string    `json:"signal,omitempty"`
	CoreDump bool      `json:"core_dump,omitempty"`
	Uptime   Duration  `json:"uptime"`
	At       time.Time `json:"at"`
}

// Socket describes a listening socket of the pool. Waiting and Backlog are -1 if
// the system does not report them, and sums if each slot has a socket of its
// own.
type Socket struct {
	Network   string `json:"network"`
	Address   string `json:"address"`
	PerWorker bool   `json:"per_worker"`
	Waiting   int    `json:"waiting"`
	Backlog   int    `json:"backlog"`
}

// Event is an event of the manager. Type is a type of the journal, or one of the
// constants below. Data depends on the type.
type Event struct {
	Seq  uint64          `json:"seq,omitempty"` // of the pool; 0 for the types below but TypeState
	Time time.Time       `json:"time"`
	PID  int             `json:"pid"` // of the manager
	Pool string          `json:"pool"`
	Type string          `json:"type"`
	Text string          `json:"text"` // one line for people
	Data json.RawMessage `json:"data"`
}

// Types of events that are not in the journal.
const (
	TypeState       = "state"      // the first: Data is a Status
	TypeBeat        = "beat"       // every 15 seconds
	TypeLost        = "lost"       // this reader was too slow, so events are missing: connect again
	TypeEnd         = "end"        // Data is an End; events of an old manager may follow
	TypePoolAdded   = "pool-added" // Data is a Pool
	TypePoolRemoved = "pool-removed"

	TypeOutcome = "outcome" // the last line of a command's events: an Answer
)

// End is the data of an event of TypeEnd.
type End struct {
	Reason    string `json:"reason"` // Stopped or Upgraded
	Successor int    `json:"successor,omitempty"`
}

// Reasons of an End.
const (
	Stopped  = "stopped"
	Upgraded = "upgraded"
)

// Answer is the answer to a command.
type Answer struct {
	Type       string   `json:"type,omitempty"` // TypeOutcome after events
	Command    string   `json:"command"`
	Outcome    string   `json:"outcome"`
	Generation int      `json:"generation,omitempty"`
	Successor  int      `json:"successor,omitempty"` // pid, of an upgrade
	Seconds    float64  `json:"seconds"`
	Text       string   `json:"text,omitempty"`
	Error      string   `json:"error,omitempty"`
	Code       int      `json:"code,omitempty"`  // the status code of HTTP, after events
	Pools      []Answer `json:"pools,omitempty"` // if there are several
	Pool       string   `json:"pool,omitempty"`  // in Pools

	Services []ServiceOutcome `json:"services,omitempty"` // of a command for services
}

// Outcomes of a command.
const (
	Done    = "done"
	Failed  = "failed"
	Pending = "pending" // not done in time; it goes on
)

// MaxTail is how many lines of a slot a manager keeps.
const MaxTail = 100

// Tail has the last lines that the workers of a pool have written.
type Tail struct {
	API   int    `json:"api"`
	Pool  string `json:"pool"`
	Lines []Line `json:"lines"` // the oldest first
}

// Line is a line that a worker has written.
type Line struct {
	Time      time.Time `json:"time"` // when it was read
	Slot      int       `json:"slot"`
	PID       int       `json:"pid"`
	Stream    string    `json:"stream"` // stdout or stderr
	Line      string    `json:"line"`
	Raw       []byte    `json:"raw,omitempty"`       // instead, if it is not valid UTF-8
	Continued bool      `json:"continued,omitempty"` // the rest of a long line
}

// Text returns the line as it was written.
func (l Line) Text() string {
	if l.Raw != nil {
		return string(l.Raw)
	}
	return l.Line
}

// Problem is the answer to a request that was refused.
type Problem struct {
	Error     string `json:"error"`
	Successor int    `json:"successor,omitempty"` // the manager to ask instead
}

// Superseded is the Error of a Problem if a successor has taken over. The request
// can be sent again, to the successor.
const Superseded = "superseded"

// Ending is the Error of a Problem, or of an Answer, if the manager ends.
const Ending = "the manager ends"

// Duration is encoded as a string such as "1.5s".
type Duration time.Duration

// String returns the duration as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns the String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}
