package control

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

// closeConns closes connections: all, or those whose clients have their answers. It
// ends the wait for requests, which serve then refuses.
func (s *server) closeConns(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, state := range s.conns {
		switch {
		case all || state == answered:
			conn.Close()
		case state == unread:
			conn.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// connState is the state of a connection.
type connState uint8

const (
	unread   connState = iota // its request has not arrived
	awaiting                  // its client waits for the answer
	answered
)

func (s *server) note(conn net.Conn, state connState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = state
}

// ends returns the problem of a request that arrives while the server ends; nil if
// it does not end.
func (s *server) ends() error {
	if !s.isClosing() {
		return nil
	}
	if p := s.handedOver(); p != nil {
		return p
	}
	return problemf(503, client.Ending)
}

// accept starts to serve a connection, or to refuse it.
func (s *server) accept(conn *net.UnixConn) {
	who := peerOf(conn)
	may := s.perm.of(who)
	serve := func() { s.serve(conn, who, may) }
	var refusal *problem
	if may == accessNone {
		refusal = s.perm.refusal(who, may)
	}
	lane := s.served
	if refusal == nil {
		select {
		case lane <- struct{}{}:
		default:
			refusal = problemf(503, "there are %d connections already: try again", maxConns)
		}
	}
	if refusal != nil {
		lane = s.refused
		select {
		case lane <- struct{}{}:
			serve = func() { s.refuse(conn, refusal) }
		default:
			conn.SetWriteDeadline(time.Now().Add(drainTime)) // its buffer is empty
			answerProblem(conn, refusal)
			conn.Close()
			return
		}
	}
	s.note(conn, unread)
	s.handlers.Go(func() {
		defer func() {
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
			<-lane
		}()
		serve()
	})
}

func peerOf(conn *net.UnixConn) (p peer) {
	p = peer{uid: ^uint32(0), known: true}
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { p = peerCreds(int(fd)) })
	}
	return p
}

// refuse answers a connection without reading its request.
func (s *server) refuse(conn net.Conn, why *problem) {
	answerProblem(timedWriter{conn}, why)
	s.drain(conn)
}

// drain reads the rest of a request. If it were left unread, some clients would get
// an error instead of the answer.
func (s *server) drain(conn net.Conn) {
	s.note(conn, answered)
	if c, ok := conn.(*net.UnixConn); ok {
		c.CloseWrite()
	}
	conn.SetReadDeadline(time.Now().Add(drainTime))
	io.CopyN(io.Discard, conn, drainLimit)
}

// timedWriter gives each write its time.
type timedWriter struct{ net.Conn }

func (w timedWriter) Write(data []byte) (int, error) {
	w.SetWriteDeadline(time.Now().Add(ioTimeout))
	return w.Conn.Write(data)
}

// serve reads the request of a connection and answers it.
func (s *server) serve(conn *net.UnixConn, who peer, may access) {
	defer func() {
		if v := recover(); v != nil { // a defect here must not end the manager
			s.log.Error("control: panic", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	w := timedWriter{conn}
	conn.SetReadDeadline(time.Now().Add(ioTimeout))
	if s.ends() != nil { // since closeConns, most likely
		conn.SetReadDeadline(time.Now().Add(drainTime))
	}
	req, err := readRequest(conn, func() error {
		_, err := io.WriteString(w, "HTTP/1.1 100 Continue\r\n\r\n")
		return err
	})
	var p *problem
	s.note(conn, awaiting)
	if ends := s.ends(); err != nil && ends != nil {
		err = ends
	}
	if err == nil {
		err = s.dispatch(&exchange{server: s, request: req, conn: conn, w: w, peer: who, access: may})
	}
	if errors.As(err, &p) {
		answerProblem(w, p)
		s.drain(conn)
	}
}

// untilGone returns a context that ends when the client has closed the
// connection, or after d if that is not zero.
func (x *exchange) untilGone(d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		d = forever
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	x.conn.SetReadDeadline(time.Time{})
	go func() { // until the connection is closed
		var buf [512]byte
		for {
			n, err := x.conn.Read(buf[:])
			if n > 0 {
				continue
			}
			if err == io.EOF && !peerHungUp(x.conn) {
				return // it has ended its sending alone
			}
			cancel()
			return
		}
	}()
	return ctx, cancel
}

func peerHungUp(conn *net.UnixConn) (gone bool) {
	raw, err := conn.SyscallConn()
	if err != nil || raw.Control(func(fd uintptr) { gone = hungUp(int(fd)) }) != nil {
		return true
	}
	return gone
}
