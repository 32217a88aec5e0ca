//go:build unix

package preforkhttp

import (
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The documentation states the values in this file. TestIdleLimit tests
// maxIdleLimit.

// A fakeQueue is a listener whose accept queue is empty, or always has another
// connection, which takes a millisecond to accept.
type fakeQueue struct {
	net.Listener
	pipe     *os.File // readable if the queue is not empty
	conn     syscall.RawConn
	deadline time.Time
	accepted int
	stolen   bool // another worker accepts the last connection
}

func newQueue(t *testing.T, empty bool) *fakeQueue {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	if !empty {
		w.Write([]byte{0})
	}
	conn, err := r.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return &fakeQueue{conn: conn, pipe: r}
}

func (q *fakeQueue) Accept() (net.Conn, error) {
	if !q.deadline.IsZero() && !time.Now().Before(q.deadline) {
		return nil, os.ErrDeadlineExceeded
	}
	if q.stolen {
		q.pipe.Read(make([]byte, 1))
		time.Sleep(time.Until(q.deadline))
		return nil, os.ErrDeadlineExceeded
	}
	time.Sleep(time.Millisecond)
	q.accepted++
	return nil, nil
}

func (q *fakeQueue) SetDeadline(t time.Time) error         { q.deadline = t; return nil }
func (q *fakeQueue) SyscallConn() (syscall.RawConn, error) { return q.conn, nil }
func (q *fakeQueue) Close() error                          { return nil }
func (q *fakeQueue) acceptAll(l *queueListener) (n int, _ error) {
	for {
		if _, err := l.Accept(); err != nil {
			return q.accepted, err
		}
	}
}

// A stopping worker accepts connections for acceptQueueLimit, 1 second, even if
// new ones keep arriving. If the queue is empty it stops at once.
func TestAcceptQueueLimit(t *testing.T) {
	for _, empty := range []bool{false, true} {
		q := newQueue(t, empty)
		synctest.Test(t, func(t *testing.T) {
			l := newQueueListener(q)
			began := time.Now()
			l.drain()
			n, err := q.acceptAll(l)
			took := time.Since(began)
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v", err)
			}
			least, most := time.Second, time.Second+10*time.Millisecond // acceptRetry
			if empty {
				least, most = 0, 0
			}
			if took < least || took > most || (n == 0) != empty {
				t.Errorf("empty %v: accepted %d connections in %v, want %v to %v",
					empty, n, took, least, most)
			}
		})
	}
}

// Surveys of all connections take at most a tenth of the time of one goroutine,
// but pause no longer than maxSurveyPause, 100 ms.
func TestSurveyPause(t *testing.T) {
	for survey, want := range map[time.Duration]time.Duration{
		0:                      0,
		time.Millisecond:       10 * time.Millisecond,
		9 * time.Millisecond:   90 * time.Millisecond,
		10 * time.Millisecond:  100 * time.Millisecond,
		500 * time.Millisecond: 100 * time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			d := hook(new(http.Server))
			const surveys = 5
			n := 0
			began := time.Now()
			d.await(func() (bool, time.Duration) {
				time.Sleep(survey)
				d.conns.setState(nil, http.StateNew) // there is always a change
				n++
				return n == surveys, time.Hour
			})
			pause := (time.Since(began) - surveys*survey) / (surveys - 1)
			if pause != want {
				t.Errorf("pause after a survey of %v: %v, want %v", survey, pause, want)
			}
		})
	}
}

// A survey that finds idle connections is repeated when the last of them may
// reach the limit, and not earlier.
func TestIdleRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 5 * time.Second // maxIdleLimit
		c := newConns()
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			c.setState(&net.TCPConn{}, http.StateNew)
		}
		idle, retry := c.idle(limit)
		if idle || retry != limit {
			t.Errorf("idle %v, retry after %v; want false, %v", idle, retry, limit)
		}
		time.Sleep(limit - time.Nanosecond)
		if idle, retry := c.idle(limit); idle || retry != time.Nanosecond {
			t.Errorf("idle %v, retry after %v; want false, 1ns", idle, retry)
		}
		time.Sleep(time.Nanosecond)
		if idle, _ := c.idle(limit); !idle {
			t.Errorf("not idle %v after the last change", limit)
		}
	})
}

// If another worker accepts the last connection of the queue, Accept checks the
// queue again after acceptRetry, 10 ms.
func TestAcceptRetry(t *testing.T) {
	q := newQueue(t, false)
	q.stolen = true
	synctest.Test(t, func(t *testing.T) {
		l := newQueueListener(q)
		began := time.Now()
		l.drain()
		n, err := q.acceptAll(l)
		if took := time.Since(began); took != 10*time.Millisecond || n != 0 ||
			!errors.Is(err, net.ErrClosed) {
			t.Errorf("accepted %d connections in %v, %v; want 0 in 10ms", n, took, err)
		}
	})
}
