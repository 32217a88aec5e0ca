//go:build unix

package loadgen

import (
	"bufio"
	"fmt"
	"net"
	"syscall"
	"time"
)

// conn is a client's connection. http.Transport is not suitable, because it
// repeats requests that fail on a reused connection.
type conn struct {
	nc       net.Conn
	raw      syscall.RawConn // nil if nc has none
	br       *bufio.Reader
	buf      []byte // for bodies
	requests int    // number of responses
	closed   bool   // set by peek
}

func newConn(nc net.Conn) *conn {
	c := &conn{nc: nc, br: bufio.NewReader(nc)}
	if sc, ok := nc.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	return c
}

func (c *conn) close() {
	if c != nil {
		c.nc.Close()
	}
}

// roundTrip sends a request in one write and reads the whole response.
func (c *conn) roundTrip(request []byte, deadline time.Time) (response, Stage, error) {
	c.nc.SetDeadline(deadline)
	if _, err := c.nc.Write(request); err != nil {
		return response{}, Write, err
	}
	resp, stage, err := readResponse(c.br, c.buf)
	if err != nil {
		return response{}, stage, err
	}
	if cap(resp.body) > cap(c.buf) {
		c.buf = resp.body
	}
	c.requests++
	return resp, "", nil
}

// message returns the bytes of a request.
func message(cfg *Config, keep bool) []byte {
	connection := ""
	if !keep {
		connection = "Connection: close\r\n"
	}
	if cfg.Body == "" {
		return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: load\r\n%s\r\n", cfg.Path, connection)
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: load\r\n%sContent-Length: %d\r\n\r\n%s", cfg.Path, connection, len(cfg.Body), cfg.Body)
}

// ended reports whether this side knows that the server has closed or reset the
// connection. It peeks at the socket without consuming anything. Unexpected
// bytes are left there, so that the next response fails.
func (c *conn) ended() bool {
	if c.br.Buffered() > 0 || c.raw == nil {
		return false
	}
	// raw.Read would fail if the deadline of the last request has passed.
	if c.raw.Control(c.peek) != nil {
		return true
	}
	return c.closed
}

func (c *conn) peek(fd uintptr) {
	var b [1]byte
	for {
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK) // the socket is non-blocking
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.closed = false
		default:
			c.closed = n <= 0 // EOF, or an error such as ECONNRESET
		}
		return
	}
}
