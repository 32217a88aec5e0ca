//go:build unix

package loadgen

import (
	"fmt"
	"net"
	"time"
)

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

	Latency Latencies // of the requests that are OK, dialling included

	Errors []error // the first few failures, each an *Error
}

// maxErrors failures are kept in full; a server that is down makes thousands that say the same.
const maxErrors = 10

// String is for test logs.
func (r Result) String() string {
	return fmt.Sprintf("ok %d, failed %d, idle closed %d, closing %d, dialed %d", r.OK, r.Failed, r.IdleClosed, r.Closing, r.Dialed)
}

// Merge adds what another load has counted.
func (r *Result) Merge(other Result) {
	r.OK += other.OK
	r.Failed += other.Failed
	r.IdleClosed += other.IdleClosed
	r.Closing += other.Closing
	r.Dialed += other.Dialed
	r.Latency.Merge(&other.Latency)
	r.Errors = append(r.Errors, other.Errors...)
	r.Errors = r.Errors[:min(len(r.Errors), maxErrors)]
}

// fail counts a request that failed.
func (r *Result) fail(err error) {
	r.Failed++
	if len(r.Errors) < maxErrors {
		r.Errors = append(r.Errors, err)
	}
}

// Stage is how far a request had come.
type Stage string

// The stages of a request, in their order.
const (
	Dial       Stage = "dial"
	Write      Stage = "write"
	ReadHeader Stage = "read header"
	ReadBody   Stage = "read body"
	Check      Stage = "check" // the response came, and is not the one that is wanted
)

// Error is a request that failed.
type Error struct {
	Stage   Stage
	Carried int           // requests that the connection had carried before
	Local   net.Addr      // the client's end of it; nil at Dial
	At      time.Time     // when it failed
	After   time.Duration // how long the request had been under way
	Err     error
}

func (e *Error) Error() string {
	where := "no connection"
	if e.Local != nil {
		where = fmt.Sprintf("connection %v had carried %d", e.Local, e.Carried)
	}
	return fmt.Sprintf("%s: %v (%s; %v after its start, at %s)", e.Stage, e.Err, where, e.After.Round(time.Microsecond), e.At.Format("15:04:05.000"))
}

func (e *Error) Unwrap() error { return e.Err }
