//go:build unix

// Package loadgen puts an HTTP/1.1 server under load, for tests: many clients, on connections that are kept alive
// and on new ones alike, none of which ever repeats a request. What a retrying client (a browser, http.Transport)
// would paper over is counted here, which is the point: a server that replaces its workers is to lose nothing.
package loadgen

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Config says what load to make. Network and Address are needed, and at least one client; the rest has defaults.
type Config struct {
	Network, Address string // as for net.Dial

	KeepAlive int // clients that send request after request on one connection, until the server closes it
	Fresh     int // clients that open a connection for every request and ask for it to be closed

	Path    string                              // "" means "/"
	Body    string                              // not "": the requests are POSTs of it
	Pause   func() time.Duration                // between two requests of one client; nil means none
	Check   func(status int, body []byte) error // nil means that the status must be 200; body is not to be kept
	Timeout time.Duration                       // of one request, dialling included; 0 means 10 s
	MaxTime time.Duration                       // the clients stop after it by themselves; 0 means 1 minute
}

// Load is a load in progress.
type Load struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	res Result
}

// Start sets the clients going. Stop must be called.
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

// Stop lets every client finish the request that it is at, and returns what was counted. It may be called again.
func (l *Load) Stop() Result {
	l.cancel()
	l.wg.Wait()
	return l.Result()
}

// Result returns what has been counted so far.
func (l *Load) Result() Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.res
	r.Errors = append([]error(nil), r.Errors...)
	return r
}

// count changes the result under its lock.
func (l *Load) count(f func(*Result)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.res)
}

// client is the life of one client. It stops between two requests only: a request that the test
// itself broke off could not be told from one that the server lost.
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
			// A server that is gone must not be hammered with thousands of connections a second.
			l.pause(time.Millisecond)
		}
		if l.cfg.Pause != nil {
			l.pause(l.cfg.Pause())
		}
	}
}

// pause sleeps for d, or until the load is stopped.
func (l *Load) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

// request makes one request, on c or, where c is nil, on a new connection. It returns the connection for
// the next one: nil if that needs a new one.
func (l *Load) request(c *conn, request []byte, keep bool) (*conn, error) {
	began := time.Now()
	failed := func(stage Stage, err error) (*conn, error) {
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
			return failed(Dial, err)
		}
		c = newConn(nc)
		l.count(func(r *Result) { r.Dialed++ })
	}
	resp, stage, err := c.roundTrip(request, began.Add(l.cfg.Timeout))
	if err != nil {
		return failed(stage, err)
	}
	took := time.Since(began)
	if err := l.cfg.Check(resp.status, resp.body); err != nil {
		c.requests-- // this one
		return failed(Check, err)
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
