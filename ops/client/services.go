package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Services are the services that a program such as prefork watch keeps.
type Services struct {
	API      int       `json:"api"`
	Now      time.Time `json:"now"`
	Services []Service `json:"services"` // in the order of their names
}

// Service describes a service: a program that runs once, or a service directory.
type Service struct {
	Name  string    `json:"name"`
	Kind  string    `json:"kind"`          // program, service or logger
	Path  string    `json:"path"`          // of the program, or of the directory
	State string    `json:"state"`         // StateDown, StateRun, StateFinish or StateEnded
	Since time.Time `json:"since"`         // of the last start of run, or of the end in state down
	PID   int       `json:"pid,omitempty"` // that of finish in state finish

	Want       string     `json:"want"`                  // WantUp, WantDown or WantExit
	Paused     bool       `json:"paused"`                // it was sent SIGSTOP
	Term       bool       `json:"term"`                  // the stop signal was sent since the start
	Ready      bool       `json:"ready"`                 // it is up and, if it reports that, ready
	Notifies   bool       `json:"notifies,omitempty"`    // it reports its readiness
	NormallyUp bool       `json:"normally_up"`           // there is no file down
	WaitsUntil *time.Time `json:"waits_until,omitempty"` // it is not started before
	GaveUp     bool       `json:"gave_up,omitempty"`     // finish has exited with 125
	Problem    string     `json:"problem,omitempty"`     // why it cannot be started
	PIDs       []int      `json:"pids,omitempty"`        // of all instances of run
	Tally      []Death    `json:"tally,omitempty"`       // the last ends of run, the oldest first
	Ends       int        `json:"ends,omitempty"`        // how often run has ended
	LastEnd    *Death     `json:"last_end,omitempty"`    // the last of them
	Log        *Service   `json:"log,omitempty"`         // its logger
}

// MeantDown reports whether the service is not to run now: it is wanted down, and has
// neither given up nor ended for a problem. It is not waited for until it is ready.
func (s *Service) MeantDown() bool {
	if s.State == StateEnded {
		return s.Problem == ""
	}
	return s.Want != WantUp && !s.GaveUp
}

// States of a Service. That of one that has ended by a command x is StateEnded: a
// command u begins it again.
const (
	StateDown   = "down"
	StateRun    = "run"
	StateFinish = "finish"
	StateEnded  = "ended"
)

// Values of Service.Want.
const (
	WantUp   = "up"
	WantDown = "down"
	WantExit = "exit"
)

// A Death is an end of run.
type Death struct {
	Time time.Time `json:"time"`
	End  string    `json:"end"` // "exitcode 1" or "signal SIGKILL"
}

// Words describes the end: "exited with code 1", "was ended by SIGKILL".
func (d *Death) Words() string {
	kind, value, _ := strings.Cut(d.End, " ")
	if kind == "signal" {
		return "was ended by " + value
	}
	return "exited with code " + value
}

// Line describes the service as sv of runit does: "run: web: (pid 4711) 10s,
// normally down". The name comes from the caller. The line of its logger follows.
func (s *Service) Line(name string, now time.Time) string {
	if s.State == StateEnded {
		text := "ended: " + clean(name)
		if s.Problem != "" {
			text += ": " + clean(s.Problem)
		}
		return text
	}
	text := s.line(name, now)
	if s.Log != nil {
		text += "; " + s.Log.line("log", now)
	}
	return text
}

func (s *Service) line(name string, now time.Time) string {
	var b strings.Builder
	b.WriteString(s.State + ": " + clean(name) + ": ")
	if s.PID != 0 {
		b.WriteString("(pid " + strconv.Itoa(s.PID) + ") ")
	}
	fmt.Fprintf(&b, "%ds", max(0, now.Unix()-s.Since.Unix()))
	isUp := s.PID != 0
	switch {
	case isUp && !s.NormallyUp:
		b.WriteString(", normally down")
	case !isUp && s.NormallyUp:
		b.WriteString(", normally up")
	}
	if s.Paused && isUp {
		b.WriteString(", paused")
	}
	if isUp != (s.Want == WantUp) {
		b.WriteString(", want " + s.Want)
	}
	if s.Term && isUp {
		b.WriteString(", got TERM")
	}
	switch {
	case s.Problem != "":
		b.WriteString(": " + clean(s.Problem))
	case s.GaveUp:
		b.WriteString(": " + GaveUp)
	}
	return b.String()
}

// GaveUp describes a Service with GaveUp.
const GaveUp = "finish has exited with 125, so it is not started again"

// Services returns the services of the program, or those with the names. The error
// is a *RefusedError with code 404 if the program keeps none. It waits for the
// answer for 5 seconds if ctx has no deadline.
func (c *Client) Services(ctx context.Context, names ...string) (*Services, error) {
	q := url.Values{}
	if len(names) > 0 {
		q["name"] = names
	}
	body, err := c.query(ctx, "/v1/services", q, "application/json")
	if err != nil {
		return nil, err
	}
	s := new(Services)
	if err := json.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("%s: answer is not a list of services: %w", c.socket, err)
	}
	return s, nil
}

// A ServiceCommand is for some services.
type ServiceCommand struct {
	Names []string

	// Bytes are commands as in the FIFO supervise/control: "u", "d", "tcu". Without
	// them, and without Keep, it is a query that waits.
	Bytes string

	// Until is the state to wait for: "up", "down", "restarted", "started",
	// "paused", "continued" or "ended", or several with commas, any of which
	// suffices. "" returns at once.
	Until string

	// Keep is "down" or "up": the file down of a service directory is written or
	// removed before, so that it lasts.
	Keep string

	Timeout time.Duration // of the wait; 0 means a minute
}

// A ServiceOutcome is the outcome of a command for one service.
type ServiceOutcome struct {
	Name    string   `json:"name"`
	Outcome string   `json:"outcome"` // Done, Failed or Pending
	Seconds float64  `json:"seconds"`
	Error   string   `json:"error,omitempty"`
	Service *Service `json:"service"` // at that time; null if there is none
}

// CommandServices commands services and waits for the outcome of each: f is called
// with them as they come. The error is nil if the manager has answered. The commands
// are sent to all services before any outcome is waited for. A request has room for
// about 6 KiB of names.
func (c *Client) CommandServices(ctx context.Context, cmd ServiceCommand, f func(ServiceOutcome)) error {
	if cmd.Timeout == 0 {
		cmd.Timeout = defaultTimeout
	}
	q := url.Values{"timeout": {cmd.Timeout.String()}, "name": cmd.Names}
	setNonempty(q, "bytes", cmd.Bytes)
	setNonempty(q, "until", cmd.Until)
	setNonempty(q, "keep", cmd.Keep)
	ctx, cancel := withTimeout(ctx, cmd.Timeout+queryTimeout)
	defer cancel()
	method, path := "POST", "/v1/services/command"
	if cmd.Bytes+cmd.Keep == "" {
		method, path = "GET", "/v1/services"
		q.Set("until", cmd.Until)
	}
	r, err := c.request(ctx, call{method: method, path: path, query: q, accept: ndjson, until: time.Now().Add(cmd.Timeout)})
	if err != nil {
		return err
	}
	defer r.Close()
	if r.contentType() != ndjson {
		body, err := r.readAll()
		if err != nil {
			return err
		}
		return r.refused(body)
	}
	for range cmd.Names {
		data, err := r.line()
		if err == io.EOF {
			err = r.wrap(io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
		var o ServiceOutcome
		if err := json.Unmarshal(data, &o); err != nil {
			return r.wrap(err)
		}
		f(o)
	}
	return nil
}
