//go:build unix

// Package loadgen puts an HTTP/1.1 server under load in tests. Its clients use
// kept-alive connections or a new one for each request, and never repeat a
// request. It therefore counts the failures that a retrying client (a browser,
// http.Transport) hides: a server that replaces its workers must not lose a
// request.
package loadgen

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Config describes a load. Network, Address, and at least one client are
// required. A test that replaces workers should use both kinds of clients,
// because they fail in different ways.
type Config struct {
	Network, Address string // see net.Dial

	KeepAlive int // number of clients that reuse their connection until the server closes it
	Fresh     int // number of clients that open a connection for each request

	Path    string                              // "" means "/"
	Body    string                              // sent by POST; "" means GET
	Pause   func() time.Duration                // between the requests of a client; nil means none
	Check   func(status int, body []byte) error // nil accepts status 200; must not retain body
	Timeout time.Duration                       // for a request with dialing; zero means 10 s
	MaxTime time.Duration                       // maximum duration of the load; zero means 1 minute
}

// Load is a running load.
type Load struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	res Result
}

// Start starts the clients. The caller must call Stop.
func Start(cfg Config) *Load {
	if cfg.Path == "" {
		cfg.Path = "/"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.MaxTime == 0 {
		cfg.MaxTime = time.Minute
	}
	if cfg.Check == nil {
		cfg.Check = checkOK
	}
	l := &Load{cfg: cfg}
	l.ctx, l.cancel = context.WithTimeout(context.Background(), cfg.MaxTime)
	for range cfg.KeepAlive {
		l.wg.Go(func() { l.client(true) })
	}
	for range cfg.Fresh {
		l.wg.Go(func() { l.client(false) })
	}
	return l
}

// Stop waits until each client has finished its current request, and returns
// the result. It may be called more than once.
func (l *Load) Stop() Result {
	l.cancel()
	l.wg.Wait()
	return l.Result()
}

// Result returns the counts so far.
func (l *Load) Result() Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.res
	r.Errors = append([]error(nil), r.Errors...)
	return r
}

// count calls f with the result under the lock.
func (l *Load) count(f func(*Result)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.res)
}

// client runs a client. It stops only between two requests: a request that the
// test itself aborted would look like one that the server lost.
func (l *Load) client(keep bool) {
	request := message(&l.cfg, keep)
	var c *conn // nil: the next request opens one
	defer func() { c.close() }()
	for l.ctx.Err() == nil {
		if c != nil && c.ended() {
			l.count(func(r *Result) { r.IdleClosed++ })
			c.close()
			c = nil
		}
		var err error
		if c, err = l.request(c, request, keep); err != nil {
			l.count(func(r *Result) { r.fail(err) })
			// Do not open thousands of connections a second to a dead server.
			l.pause(time.Millisecond)
		}
		if l.cfg.Pause != nil {
			l.pause(l.cfg.Pause())
		}
	}
}

// pause sleeps for d or until the load is stopped.
func (l *Load) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

// request makes a request on c, or on a new connection if c is nil. It returns
// the connection for the next request, or nil if that needs a new one.
func (l *Load) request(c *conn, request []byte, keep bool) (*conn, error) {
	began := time.Now()
	fail := func(stage Stage, err error) (*conn, error) {
		now := time.Now()
		e := &Error{Stage: stage, At: now, After: now.Sub(began), Err: err}
		if c != nil {
			e.Local, e.Carried = c.nc.LocalAddr(), c.requests
			c.close()
		}
		return nil, e
	}
	if c == nil {
		d := net.Dialer{Deadline: began.Add(l.cfg.Timeout)}
		nc, err := d.Dial(l.cfg.Network, l.cfg.Address)
		if err != nil {
			return fail(Dial, err)
		}
		c = newConn(nc)
		l.count(func(r *Result) { r.Dialed++ })
	}
	resp, stage, err := c.roundTrip(request, began.Add(l.cfg.Timeout))
	if err != nil {
		return fail(stage, err)
	}
	took := time.Since(began)
	if err := l.cfg.Check(resp.status, resp.body); err != nil {
		c.requests-- // do not count this one
		return fail(Check, err)
	}
	l.count(func(r *Result) {
		r.OK++
		r.Latency.Add(took)
		if keep && resp.close {
			r.Closing++
		}
	})
	if !keep || resp.close {
		c.close()
		return nil, nil
	}
	return c, nil
}

func checkOK(status int, _ []byte) error {
	if status != http.StatusOK {
		return errors.New("status " + http.StatusText(status))
	}
	return nil
}
