// Package control reads the messages of one process from its control socket, a
// bounded amount in each period.
//
// A process that writes without end is throttled by its own full socket, and
// the manager keeps serving the others. A worker sends a few messages in its
// life, or one each time the manager has asked to be notified.
package control

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/prefork-go/prefork/internal/pool"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/wire"
)

// The budget of a process: 512 bytes are 256 of the usual messages, and more
// than the longest one.
const (
	budgetBytes  = 512
	budgetPeriod = 10 * time.Millisecond
)

// ErrThrottled means that the process has used up its budget. Reading continues
// at Reader.Resumes.
var ErrThrottled = errors.New("control: process is throttled")

// ProtocolError reports a message that cannot be decoded. The Reader is closed
// after it.
type ProtocolError struct{ Err error }

func (e *ProtocolError) Error() string { return "protocol error: " + e.Err.Error() }
func (e *ProtocolError) Unwrap() error { return e.Err }

// Reader reads the messages of one process. It belongs to the loop. The zero
// Reader is closed.
type Reader struct {
	decode    func([]byte) (msg wire.Message, size int, err error)
	src       io.Reader // returns proc.ErrWouldBlock if there is nothing to read
	buf       []byte
	err       error     // of the last read, not yet returned
	period    pool.Time // when the period began
	read      int       // bytes in this period
	throttled bool      // Next has returned ErrThrottled last
}

// NewReader returns a Reader of the messages that src delivers.
func NewReader(src io.Reader) Reader { return Reader{src: src, decode: wire.Decode} }

// NewLineReader returns a Reader of a process that does not know the messages.
// Each newline that it writes is a wire.Ready, and all else is discarded, except a
// wire.Executing or wire.NotStarted of the first step before it.
func NewLineReader(src io.Reader) Reader { return Reader{src: src, decode: decodeLine} }

func decodeLine(buf []byte) (wire.Message, int, error) {
	if msg, n, err := wire.Decode(buf); err == nil {
		switch msg.(type) {
		case wire.Executing, wire.NotStarted:
			return msg, n, nil
		}
	}
	if end := bytes.IndexByte(buf, '\n'); end >= 0 {
		return wire.Ready{}, end + 1, nil
	}
	return nil, len(buf), wire.ErrShort
}

// Open reports whether more messages can arrive.
func (r *Reader) Open() bool { return r.src != nil }

// Close discards all further messages.
func (r *Reader) Close() { *r = Reader{} }

// Refill gives the process a new budget. A caller uses it to read the last
// messages of a process that has exited.
func (r *Reader) Refill() { r.period, r.read, r.throttled = 0, 0, false }

// Throttled reports whether the process has used up its budget.
func (r *Reader) Throttled() bool { return r.throttled }

// Resumes returns when a throttled process has a budget again.
func (r *Reader) Resumes() pool.Time { return r.period + budgetPeriod }

// Next returns the next message. Its error is proc.ErrWouldBlock if there is
// none now, ErrThrottled, io.EOF at the end of the socket, or a *ProtocolError.
// After the last two the Reader is closed.
func (r *Reader) Next(now pool.Time) (wire.Message, error) {
	for r.src != nil {
		msg, n, err := r.decode(r.buf)
		r.buf = r.buf[n:]
		if err == nil {
			return msg, nil
		}
		if err != wire.ErrShort {
			r.Close()
			return nil, &ProtocolError{err}
		}
		if err := r.err; err != nil {
			r.err = nil
			if err != proc.ErrWouldBlock {
				r.Close()
				err = io.EOF // any other error also means that the process cannot be read again
			}
			return nil, err
		}
		if err := r.fill(now); err != nil {
			return nil, err
		}
	}
	return nil, io.EOF
}

func (r *Reader) fill(now pool.Time) error {
	if now-r.period >= budgetPeriod {
		r.period, r.read = now, 0
	}
	left := budgetBytes - r.read
	if r.throttled = left <= 0; r.throttled {
		return ErrThrottled
	}
	var buf [wire.MaxSize]byte
	n, err := r.src.Read(buf[:min(left, len(buf))])
	r.read += n
	r.buf, r.err = append(r.buf, buf[:n]...), err
	return nil
}
