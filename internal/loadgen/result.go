//go:build unix

package loadgen

import (
	"fmt"
	"net"
	"time"
)

// Result holds the counts of a load. Every request counts once, as OK or as
// Failed.
type Result struct {
	OK     int // complete responses that Check accepted
	Failed int // all others: refused, reset, EOF, timeout, malformed, rejected by Check

	// IdleClosed counts the connections, not requests, that the server
	// closed between two requests. A client peeks at the connection just
	// before it writes. If the end of the stream or a reset has arrived, no
	// byte of the next request has been sent, so no request is lost; the
	// client sends it on a new connection. If the close arrives later, the
	// request fails. A close of a connection that has carried no request is
	// a failure, too.
	IdleClosed int

	Closing int // responses with "Connection: close" on kept-alive connections
	Dialed  int // connections opened

	Latency Latencies // of the requests in OK, including dialing

	Errors []error // the first failures, each an *Error
}

// maxErrors bounds Errors: a dead server causes thousands of identical ones.
const maxErrors = 10

// String formats the counts for test logs.
func (r Result) String() string {
	return fmt.Sprintf("ok %d, failed %d, idle closed %d, closing %d, dialed %d", r.OK, r.Failed, r.IdleClosed, r.Closing, r.Dialed)
}

// Merge adds the counts in other.
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

// fail counts a failed request.
func (r *Result) fail(err error) {
	r.Failed++
	if len(r.Errors) < maxErrors {
		r.Errors = append(r.Errors, err)
	}
}

// Stage is the part of a request that failed.
type Stage string

// The stages of a request, in order.
const (
	Dial       Stage = "dial"
	Write      Stage = "write"
	ReadHeader Stage = "read header"
	ReadBody   Stage = "read body"
	Check      Stage = "check" // Config.Check has rejected the response
)

// Error describes a failed request.
type Error struct {
	Stage   Stage
	Carried int           // earlier requests on the connection
	Local   net.Addr      // the client's address; nil at Dial
	At      time.Time     // when it failed
	After   time.Duration // time since the request started
	Err     error
}

func (e *Error) Error() string {
	conn := "no connection"
	if e.Local != nil {
		conn = fmt.Sprintf("connection %v, %d earlier requests", e.Local, e.Carried)
	}
	return fmt.Sprintf("%s: %v (%s; after %v, at %s)", e.Stage, e.Err, conn, e.After.Round(time.Microsecond), e.At.Format("15:04:05.000"))
}

func (e *Error) Unwrap() error { return e.Err }
