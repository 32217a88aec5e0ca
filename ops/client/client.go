package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Errors that the functions and methods of this package return, wrapped.
var (
	// ErrNotRunning means that there is no socket, or no process listens on it.
	ErrNotRunning = errors.New("no manager is running")

	// ErrForbidden means that this user may not do it.
	ErrForbidden = errors.New("not permitted")

	// ErrForeign means that a process of a user other than root and the caller
	// serves the socket, which has an abstract name: any user can take one.
	ErrForeign = errors.New("the socket belongs to a process of another user")

	// ErrNoAnswer means that a process has the socket and did not answer in time.
	ErrNoAnswer = errors.New("no answer")

	// ErrLost means that the connection ended before the answer was complete: the
	// manager has exited. A command may have been carried out.
	ErrLost = errors.New("the connection ended before the answer")
)

// A RefusedError is the answer of a manager that has not carried out a request.
// It matches ErrForbidden if its Code is 403.
type RefusedError struct {
	Code int // the status code of HTTP
	Problem
}

func (e *RefusedError) Error() string { return e.Problem.Error }

// Is reports whether target is ErrForbidden and the request was not permitted.
func (e *RefusedError) Is(target error) bool { return target == ErrForbidden && e.Code == 403 }

const (
	// queryTimeout bounds a query whose context has no deadline.
	queryTimeout = 5 * time.Second

	// defaultTimeout is the timeout of a command that has none.
	defaultTimeout = time.Minute

	// maxAnswer bounds the memory that an answer uses, and maxHead its head.
	maxAnswer = 64 << 20
	maxHead   = 64 << 10

	// silence is how long a stream of events may send nothing. The manager sends
	// a beat every 15 seconds.
	silence = 40 * time.Second

	// retries is how often a request is sent again, to the successor, if the
	// manager that has accepted it was superseded.
	retries = 50
)

// A Client sends requests to one control socket. Each request has a connection of
// its own, so a Client needs no Close, and after an upgrade it asks the
// successor. Its methods are safe for concurrent use and block.
type Client struct {
	socket string

	mu    sync.Mutex
	peer  Peer
	spare net.Conn // of Dial, for the first request
	until time.Time
}

// A Peer is the process that listens on a control socket, as the kernel reports
// it. The manager need not answer for that. PID is 0, and UID -1, if the system
// does not report them.
type Peer struct{ PID, UID int }

// Dial finds a control socket and connects to it. The socket is a path, an
// abstract name that begins with "@", or the name of a manager that Find finds.
// The empty string stands for the variable PREFORK_CONTROL or, if that is not
// set, for the only manager that Find finds; a *SeveralError lists them if there
// are several. Dial does not wait for an answer of the manager.
func Dial(socket string) (*Client, error) {
	address, err := resolve(socket)
	if err != nil {
		return nil, err
	}
	conn, peer, err := connect(address)
	if err != nil {
		return nil, err
	}
	c := &Client{socket: address, peer: peer, spare: conn, until: time.Now().Add(time.Second)}
	return c, nil
}

// Socket returns the path or the abstract name of the socket.
func (c *Client) Socket() string { return c.socket }

// Peer returns the process that listened on the socket when the Client connected
// last.
func (c *Client) Peer() Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

// Close closes the connection that Dial has made if no request has used it.
// Calling it is optional: the manager closes such a connection after 5 seconds.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spare == nil {
		return nil
	}
	conn := c.spare
	c.spare = nil
	return conn.Close()
}

// StatusOptions choose what a Status contains. The zero value asks for all pools
// without the usage of their workers.
type StatusOptions struct {
	Pool  string // "" means all
	Usage bool   // also Worker.RSS, Memory and CPU, which take about 20 µs a worker
}

// Status returns the status of the manager. It waits for the answer for 5 seconds
// if ctx has no deadline.
func (c *Client) Status(ctx context.Context, opt StatusOptions) (*Status, error) {
	q := url.Values{}
	setNonempty(q, "pool", opt.Pool)
	if opt.Usage {
		q.Set("usage", "1")
	}
	body, err := c.query(ctx, "/v1/status", q, "application/json")
	if err != nil {
		return nil, err
	}
	s := new(Status)
	if err := json.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("%s: answer is not a status: %w", c.socket, err)
	}
	return s, nil
}

// TailOptions choose which lines a Tail has.
type TailOptions struct {
	Pool    string // "" means the only one
	OneSlot bool   // only lines of Slot
	Slot    int
	Lines   int // at most; 0 means all that the manager keeps
}

// Tail returns the last lines that the workers of a pool have written. It waits for
// the answer for 5 seconds if ctx has no deadline.
func (c *Client) Tail(ctx context.Context, opt TailOptions) (*Tail, error) {
	q := url.Values{}
	setNonempty(q, "pool", opt.Pool)
	if opt.OneSlot {
		q.Set("slot", strconv.Itoa(opt.Slot))
	}
	if opt.Lines > 0 {
		q.Set("lines", strconv.Itoa(opt.Lines))
	}
	body, err := c.query(ctx, "/v1/tail", q, "application/json")
	if err != nil {
		return nil, err
	}
	t := new(Tail)
	if err := json.Unmarshal(body, t); err != nil {
		return nil, fmt.Errorf("%s: answer is not a tail: %w", c.socket, err)
	}
	return t, nil
}

// Get returns the answer to any query, such as "/metrics". It waits for it for 5
// seconds if ctx has no deadline.
func (c *Client) Get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	return c.query(ctx, path, query, "")
}

// query asks once more if the connection has ended before the answer: a query
// changes nothing, and the second answer tells a manager that is gone from one that
// has a successor.
func (c *Client) query(ctx context.Context, path string, q url.Values, accept string) ([]byte, error) {
	ctx, cancel := withTimeout(ctx, queryTimeout)
	defer cancel()
	body, err := c.ask(ctx, path, q, accept)
	if errors.Is(err, ErrLost) {
		body, err = c.ask(ctx, path, q, accept)
	}
	return body, err
}

func (c *Client) ask(ctx context.Context, path string, q url.Values, accept string) ([]byte, error) {
	r, err := c.request(ctx, call{method: "GET", path: path, query: q, accept: accept})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	body, err := r.readAll()
	if err != nil {
		return nil, err
	}
	if r.code != 200 {
		return nil, r.refused(body)
	}
	return body, nil
}

// A Command is a request that changes something. Name is the path below /v1/, such
// as "reload" or "workers/12/kill".
type Command struct {
	Name    string
	Pool    string     // "" means all, or the only one
	Query   url.Values // more parameters, such as "how"
	Timeout time.Duration
	NoWait  bool // return when the manager has accepted it

	// Events, if set, is called with each event until the outcome.
	Events func(Event)
}

// Do sends a command and waits for its outcome. If a successor takes over before
// that, it sends those commands again whose effect would be lost. Timeout, 0 meaning a minute, is
// how long the manager waits for it; the answer's Outcome is Pending after that,
// and the thing goes on. The error is nil if the manager has answered, also if
// the outcome is Failed or Pending.
func (c *Client) Do(ctx context.Context, cmd Command) (*Answer, error) {
	if cmd.Timeout == 0 {
		cmd.Timeout = defaultTimeout
	}
	q := url.Values{}
	for name, values := range cmd.Query {
		q[name] = values
	}
	setNonempty(q, "pool", cmd.Pool)
	if cmd.NoWait {
		q.Set("wait", "0")
	}
	to := call{method: "POST", path: "/v1/" + cmd.Name, query: q, accept: "application/json", until: time.Now().Add(cmd.Timeout)}
	if cmd.Name == "loglevel" {
		to.method, to.until = "PUT", time.Time{}
	} else {
		q.Set("timeout", cmd.Timeout.String())
	}
	if cmd.Events != nil {
		to.accept = ndjson
	}
	ctx, cancel := withTimeout(ctx, cmd.Timeout+queryTimeout)
	defer cancel()
	for n := 0; ; n++ {
		a, err := c.do(ctx, to, cmd.Events)
		if err != nil || a.Error != Superseded || n == retries {
			return a, err
		}
		if err := to.again(ctx); err != nil {
			return nil, err
		}
	}
}

// do sends a command once. Its stream may end with the news that a successor has to
// carry it out.
func (c *Client) do(ctx context.Context, to call, events func(Event)) (*Answer, error) {
	r, err := c.request(ctx, to)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.contentType() == ndjson {
		return r.outcome(events)
	}
	body, err := r.readAll()
	if err != nil {
		return nil, err
	}
	a := new(Answer)
	if json.Unmarshal(body, a) == nil && a.Outcome != "" {
		return a, nil
	}
	return nil, r.refused(body)
}

// Wait waits until a condition holds: "ready", "settled", "paused", "running", or
// "reloaded>N" for a generation after N. It reports false if it did not hold
// within the timeout. It does not poll. After an upgrade it waits for the successor,
// whose generations count from 1 again.
func (c *Client) Wait(ctx context.Context, condition, pool string, timeout time.Duration) (bool, error) {
	q := url.Values{"for": {condition}, "timeout": {timeout.String()}}
	setNonempty(q, "pool", pool)
	ctx, cancel := withTimeout(ctx, timeout+queryTimeout)
	defer cancel()
	r, err := c.request(ctx, call{method: "GET", path: "/v1/wait", query: q, until: time.Now().Add(timeout)})
	if err != nil {
		return false, err
	}
	defer r.Close()
	body, err := r.readAll()
	switch {
	case err != nil:
		return false, err
	case r.code == 504:
		return false, nil
	case r.code != 200:
		return false, r.refused(body)
	}
	return true, nil
}

// EventsOptions choose the events of Events. The zero value asks for the state of
// all pools, then for each event from that moment on.
type EventsOptions struct {
	Pool string // "" means all

	// Replay asks for the events after Since that the manager still has, at most
	// 1,024, instead of the state.
	// PID is that of the manager whose events Since counts; another one, such as its
	// successor, sends all that it has. If there are several pools, Since is for each.
	Replay bool
	Since  uint64
	PID    int

	NoFollow bool // end after the state, or after the replay
}

// Events returns the events of the manager as they happen. It ends with an error,
// or after the manager has stopped, or without an error after an event of
// TypeLost, which means that events are missing. After an End whose reason is
// Upgraded the caller can call Events again, to follow the successor as well.
func (c *Client) Events(ctx context.Context, opt EventsOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		q := url.Values{}
		setNonempty(q, "pool", opt.Pool)
		if opt.Replay {
			since := strconv.FormatUint(opt.Since, 10)
			if opt.PID > 0 {
				since += "@" + strconv.Itoa(opt.PID)
			}
			q.Set("since", since)
		}
		if opt.NoFollow {
			q.Set("follow", "0")
		}
		r, err := c.request(ctx, call{method: "GET", path: "/v1/events", query: q, accept: ndjson})
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer r.Close()
		if r.code != 200 {
			body, err := r.readAll()
			if err == nil {
				err = r.refused(body)
			}
			yield(Event{}, err)
			return
		}
		for {
			e, err := r.event()
			if err == io.EOF {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

const ndjson = "application/x-ndjson"

func setNonempty(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}
