//go:build unix

package preforkhttp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// stream is a handler whose response ends when the channel is closed.
func stream(bye <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello")
		w.(http.Flusher).Flush()
		<-bye
		fmt.Fprintln(w, "bye")
	})
}

// openStream requests a stream and reads its first line.
func (s *server) openStream() *bufio.Reader {
	s.t.Helper()
	c := s.dial()
	c.send("GET /")
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	body := bufio.NewReader(resp.Body)
	if line, err := body.ReadString('\n'); line != "hello\n" {
		s.t.Fatal(line, err)
	}
	return body
}

// The functions of RegisterOnShutdown run when the drain begins, and not again
// when it ends. Closing a channel twice would panic.
func TestRegisterOnShutdown(t *testing.T) {
	bye, second := make(chan struct{}), make(chan struct{})
	srv := &http.Server{Handler: stream(bye)}
	srv.RegisterOnShutdown(func() { close(bye) })
	srv.RegisterOnShutdown(func() { close(second) })
	s := start(t, nil, time.Millisecond, srv)
	body := s.openStream()
	s.running()
	s.cancel()
	if rest, err := io.ReadAll(body); string(rest) != "bye\n" || err != nil {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
	s.drained()
	<-second
	time.Sleep(20 * time.Millisecond) // for the second call
}

// They also run if the program calls Shutdown itself.
func TestRegisterOnShutdownByProgram(t *testing.T) {
	bye := make(chan struct{})
	srv := &http.Server{Handler: stream(bye)}
	srv.RegisterOnShutdown(func() { close(bye) })
	s := start(t, nil, 0, srv)
	body := s.openStream()
	go srv.Shutdown(context.Background())
	if rest, err := io.ReadAll(body); string(rest) != "bye\n" || err != nil {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
	s.drained()
}

// OnDrain is called once, while the responses that it ends are in flight, and
// beside the functions of RegisterOnShutdown. It may block. A program that only
// registers functions during the drain has them called at its end.
func TestOnDrain(t *testing.T) {
	bye, late, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	defer close(release)
	var registered, calls atomic.Int32
	srv := &http.Server{Handler: stream(bye)}
	srv.RegisterOnShutdown(func() { registered.Add(1) })
	ctx, cancel := context.WithCancel(t.Context())
	ln := bind(t, "tcp").listener(t)
	s := &server{t: t, addr: ln.Addr(), cancel: cancel, done: make(chan error, 1)}
	onDrain := func() {
		calls.Add(1)
		srv.RegisterOnShutdown(func() { close(late) })
		close(bye)
		<-release
	}
	go func() {
		s.done <- serveWithLimits(ctx, nil, limits{idle: time.Millisecond}, onDrain, ln, srv, srv.Serve)
	}()
	body := s.openStream()
	s.running()
	cancel()
	if rest, err := io.ReadAll(body); string(rest) != "bye\n" || err != nil {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
	s.drained()
	<-late
	if calls.Load() != 1 || registered.Load() != 1 {
		t.Errorf("OnDrain called %d times, the registered function %d times; want 1, 1", calls.Load(), registered.Load())
	}
}
