package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/safedir"
)

// connection returns the connection of Dial, or a new one.
func (c *Client) connection() (net.Conn, error) {
	c.mu.Lock()
	conn := c.spare
	c.spare = nil
	fresh := time.Now().Before(c.until)
	c.mu.Unlock()
	if conn != nil {
		if fresh {
			return conn, nil
		}
		conn.Close()
	}
	conn, peer, err := connect(c.socket)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.peer = peer
	c.mu.Unlock()
	return conn, nil
}

// connect connects to a socket and refuses it if it may be an impostor's.
func connect(address string) (net.Conn, Peer, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: address})
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, Peer{}, fmt.Errorf("%s: %w: %w", address, ErrNotRunning, cause(err))
	case errors.Is(err, fs.ErrPermission):
		return nil, Peer{}, fmt.Errorf("%s: %w: %w", address, ErrForbidden, cause(err))
	case errors.Is(err, syscall.EAGAIN):
		return nil, Peer{}, fmt.Errorf("%s: %w: its queue of connections is full", address, ErrNoAnswer)
	case err != nil:
		return nil, Peer{}, err
	}
	peer := peerOf(conn)
	if strings.HasPrefix(address, "@") && !isTrusted(peer.UID, os.Geteuid()) {
		conn.Close()
		return nil, peer, fmt.Errorf("%s: %w: process %d of user %d", address, ErrForeign, peer.PID, peer.UID)
	}
	return conn, peer, nil
}

// isTrusted reports whether a user is root or the own one.
func isTrusted(uid, own int) bool { return uid == 0 || uid == own && !ambiguous(uint32(uid)) }

// Tests have users that stand for several.
var ambiguous = safedir.Ambiguous

// cause returns the system's error alone: the address is in the message already.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// A response is an answer whose head was read.
type response struct {
	client  *Client
	conn    net.Conn
	ctx     context.Context
	release func() bool
	code    int
	head    textproto.MIMEHeader
	body    *bufio.Reader
}

// A call is what is requested.
type call struct {
	method, path string
	query        url.Values
	accept       string    // content type, or ""
	until        time.Time // when the timeout of the query is over; zero if it has none
}

// again prepares a call for the successor, which accepts in a moment, with the rest
// of the time.
func (to *call) again(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
	}
	if !to.until.IsZero() {
		to.query.Set("timeout", max(time.Until(to.until), time.Millisecond).String())
	}
	return nil
}

// request sends a request and reads the head of the answer. A manager that was
// superseded in between leaves the request to its successor.
func (c *Client) request(ctx context.Context, to call) (*response, error) {
	for n := 0; ; n++ {
		r, err := c.requestOnce(ctx, to)
		if err != nil || r.code != 503 || n == retries {
			return r, err
		}
		body, err := r.readAll()
		r.Close()
		if err != nil {
			return nil, err
		}
		if refused := r.refused(body); refused.Problem.Error != Superseded {
			return nil, refused
		}
		if err := to.again(ctx); err != nil {
			return nil, err
		}
	}
}

func (c *Client) requestOnce(ctx context.Context, to call) (*response, error) {
	conn, err := c.connection()
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	r := &response{client: c, conn: conn, ctx: ctx}
	r.release = context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	r.body = bufio.NewReader(conn)
	target := url.URL{Path: to.path, RawQuery: to.query.Encode()}
	head := to.method + " " + target.RequestURI() + " HTTP/1.1\r\nHost: prefork\r\n"
	if to.accept != "" {
		head += "Accept: " + to.accept + "\r\n"
	}
	_, writeErr := io.WriteString(conn, head+"Content-Length: 0\r\n\r\n")
	if err := r.readHead(); err != nil { // an answer can come although writing has failed
		r.Close()
		if writeErr != nil && !isTimeout(err) {
			err = writeErr
		}
		return nil, r.wrap(err)
	}
	return r, nil
}

func (r *response) readHead() error {
	limited := io.LimitedReader{R: r.conn, N: maxHead}
	r.body.Reset(&limited)
	tp := textproto.NewReader(r.body)
	line, err := tp.ReadLine()
	if err != nil {
		return err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	if r.code, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(proto, "HTTP/1.") {
		return fmt.Errorf("not an answer of HTTP: %.60q", line)
	}
	if r.head, err = tp.ReadMIMEHeader(); err != nil {
		return err
	}
	limited.N = 1<<63 - 1
	return nil
}

// Close ends the request. A command goes on.
func (r *response) Close() {
	r.release()
	r.conn.Close()
}

func (r *response) contentType() string {
	t, _, _ := strings.Cut(r.head.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}

func (r *response) readAll() ([]byte, error) {
	want := int64(-1)
	if text := r.head.Get("Content-Length"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > maxAnswer {
			return nil, r.wrap(fmt.Errorf("Content-Length %q of an answer", text))
		}
		want = n
	}
	body, err := io.ReadAll(io.LimitReader(r.body, maxAnswer+1))
	switch {
	case want >= 0 && int64(len(body)) >= want:
		return body[:want], nil
	case err != nil:
		return nil, r.wrap(err)
	case len(body) > maxAnswer:
		return nil, r.wrap(errors.New("answer is too long"))
	case want >= 0:
		return nil, r.wrap(io.ErrUnexpectedEOF)
	}
	return body, nil
}

// outcome reads the events of a command and the answer that follows.
func (r *response) outcome(events func(Event)) (*Answer, error) {
	for {
		data, err := r.line()
		if err == io.EOF {
			err = r.wrap(io.ErrUnexpectedEOF)
		}
		if err != nil {
			return nil, err
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return nil, r.wrap(err)
		}
		if e.Type == TypeOutcome {
			a := new(Answer)
			return a, json.Unmarshal(data, a)
		}
		events(e)
	}
}

// event reads one event. It returns io.EOF at the end of the stream.
func (r *response) event() (e Event, err error) {
	if _, ok := r.ctx.Deadline(); !ok {
		r.conn.SetReadDeadline(time.Now().Add(silence))
		if r.ctx.Err() != nil { // its end may have come before that
			return e, r.ctx.Err()
		}
	}
	data, err := r.line()
	if err == nil {
		if err = json.Unmarshal(data, &e); err != nil {
			err = r.wrap(err)
		}
	}
	return e, err
}

func (r *response) line() ([]byte, error) {
	var line []byte
	for {
		part, err := r.body.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case err == io.EOF && len(line) == 0:
			return nil, io.EOF
		case err != bufio.ErrBufferFull:
			return nil, r.wrap(err)
		case len(line) > maxAnswer:
			return nil, r.wrap(errors.New("line is too long"))
		}
	}
}

// refused returns the error of an answer that is not the wanted one.
func (r *response) refused(body []byte) *RefusedError {
	e := &RefusedError{Code: r.code}
	if json.Unmarshal(body, &e.Problem) != nil || e.Problem.Error == "" {
		e.Problem.Error = fmt.Sprintf("%s: status %d: %.200q", r.client.socket, r.code, body)
	}
	return e
}

// wrap returns an error of the connection in terms of this package.
func (r *response) wrap(err error) error {
	kind := error(nil)
	switch {
	case r.ctx.Err() != nil && errors.Is(r.ctx.Err(), context.Canceled):
		return r.ctx.Err()
	case isTimeout(err):
		kind = ErrNoAnswer
	case err == io.EOF, err == io.ErrUnexpectedEOF, errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		kind = ErrLost
	default:
		return fmt.Errorf("%s: %w", r.client.socket, err)
	}
	return fmt.Errorf("%s: %w", r.client.socket, kind)
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
