//go:build unix

// Package load puts an HTTP/1.1 server under load, for tests: many clients, on connections that are kept alive
// and on new ones alike, none of which ever repeats a request. What a retrying client (a browser, http.Transport)
// would paper over is counted here, which is the point: a server that replaces its workers is to lose nothing.
package load

import (
	"context"
	"errors"
	"fmt"
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
	Check   func(status int, body []byte) error // nil means that the status must be 200
	Timeout time.Duration                       // of one request, dialling included; 0 means 10 s
	MaxTime time.Duration                       // the clients stop after it by themselves; 0 means 1 minute
}

// Result counts what the clients saw. Every request is counted once, as OK or as Failed.
type Result struct {
	OK     int // the whole response came and Check found it good
	Failed int // anything else: refused, reset, end of file, timeout, malformed, a bad status

	// IdleClosed counts connections, not requests: those that the server closed while the client had nothing under way
	// on them. The client looks (without taking anything) just before it writes: if the end of the stream
	// or a reset is there, not a byte of the next request has left, so no request is lost; it is sent on a new
	// connection and counted by its own fate. A close that is not there yet when the client looks makes
	// that request fail. On a connection that has carried no request yet a close is a failure too.
	IdleClosed int

	Closing int // responses on kept-alive connections that said "Connection: close"
	Dialed  int // connections opened

	Errors []error // the first few failures
}

// String is for test logs.
func (r Result) String() string {
	return fmt.Sprintf("ok %d, failed %d, idle closed %d, closing %d, dialed %d", r.OK, r.Failed, r.IdleClosed, r.Closing, r.Dialed)
}

// maxErrors failures are kept in full; a server that is down makes thousands that say the same.
const maxErrors = 10

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
	var c *conn // nil: the next request opens one
	defer func() { c.close() }()
	for l.ctx.Err() == nil {
		if c != nil && c.ended() {
			l.count(func(r *Result) { r.IdleClosed++ })
			c.close()
			c = nil
		}
		var err error
		if c, err = l.request(c, keep); err != nil {
			l.count(func(r *Result) {
				r.Failed++
				if len(r.Errors) < maxErrors {
					r.Errors = append(r.Errors, err)
				}
			})
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
func (l *Load) request(c *conn, keep bool) (*conn, error) {
	deadline := time.Now().Add(l.cfg.Timeout)
	n := 0
	if c == nil {
		d := net.Dialer{Deadline: deadline}
		nc, err := d.Dial(l.cfg.Network, l.cfg.Address)
		if err != nil {
			return nil, err
		}
		c = newConn(nc)
		l.count(func(r *Result) { r.Dialed++ })
	} else {
		n = c.requests
	}
	resp, body, err := c.roundTrip(&l.cfg, keep, deadline)
	if err == nil {
		err = l.cfg.Check(resp.StatusCode, body)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("request %d on connection from %v: %w", n+1, c.nc.LocalAddr(), err)
	}
	l.count(func(r *Result) {
		r.OK++
		if keep && resp.Close {
			r.Closing++
		}
	})
	if !keep || resp.Close {
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
