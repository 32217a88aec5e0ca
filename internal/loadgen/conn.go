//go:build unix

package loadgen

import (
	"bufio"
	"fmt"
	"net"
	"syscall"
	"time"
)

// conn is one connection of a client. http.Transport would not do: it repeats requests that fail on a reused connection.
type conn struct {
	nc       net.Conn
	raw      syscall.RawConn // nil where there is none
	br       *bufio.Reader
	buf      []byte // for bodies
	requests int    // answered on it
	gone     bool   // what peek found
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

// roundTrip sends one request in one write and reads the response to its last byte.
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

// message is the whole request as it goes over the wire.
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

// ended reports whether the server has closed or reset the connection, as far as this side knows by now.
// It looks into the socket and takes nothing. Bytes that nobody asked for are left for the next response to fail on.
func (c *conn) ended() bool {
	if c.br.Buffered() > 0 || c.raw == nil {
		return false
	}
	// Not raw.Read: it refuses where the deadline of the last request has passed in a pause.
	if c.raw.Control(c.peek) != nil {
		return true
	}
	return c.gone
}

func (c *conn) peek(fd uintptr) {
	var b [1]byte
	for {
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK) // Go's sockets do not block
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.gone = false
		default:
			c.gone = n <= 0 // end of file or an error such as ECONNRESET
		}
		return
	}
}
