//go:build unix

package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// conn is one connection of a client. http.Transport would not do: it repeats requests that fail on a reused connection.
type conn struct {
	nc       net.Conn
	br       *bufio.Reader
	requests int // answered on it
}

func newConn(nc net.Conn) *conn { return &conn{nc: nc, br: bufio.NewReader(nc)} }

func (c *conn) close() {
	if c != nil {
		c.nc.Close()
	}
}

// roundTrip sends one request in one write and reads the response to its last byte.
func (c *conn) roundTrip(cfg *Config, keep bool, deadline time.Time) (*http.Response, []byte, error) {
	c.nc.SetDeadline(deadline)
	if _, err := io.WriteString(c.nc, message(cfg, keep)); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	c.requests++
	return resp, body, nil
}

// message is the whole request as it goes over the wire.
func message(cfg *Config, keep bool) string {
	connection := ""
	if !keep {
		connection = "Connection: close\r\n"
	}
	if cfg.Body == "" {
		return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: load\r\n%s\r\n", cfg.Path, connection)
	}
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: load\r\n%sContent-Length: %d\r\n\r\n%s", cfg.Path, connection, len(cfg.Body), cfg.Body)
}

// ended reports whether the server has closed or reset the connection, as far as this side knows by now.
// It looks into the socket and takes nothing. Bytes that nobody asked for are left for the next response to fail on.
func (c *conn) ended() bool {
	if c.br.Buffered() > 0 {
		return false
	}
	sc, ok := c.nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	// After a pause the deadline of the last request may have passed, and raw.Read would refuse.
	c.nc.SetReadDeadline(time.Time{})
	var n int
	var perr error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		for {
			n, _, perr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			if perr != syscall.EINTR {
				return true // Go's sockets do not block: EAGAIN is an answer too.
			}
		}
	})
	if err != nil || perr == syscall.EAGAIN {
		return err != nil
	}
	return n <= 0 // end of file or an error such as ECONNRESET
}
