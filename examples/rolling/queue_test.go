//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

// TestQueues: what waits to be accepted when a worker is told to stop is served, by its replacement or, at the end of the
// program, by itself. That holds for a socket of its own, too, from which nobody else accepts.
func TestQueues(t *testing.T) {
	supported(t)
	s := startServer(t, modes)

	workers := s.workerPIDs()
	queue, thaw := s.fill(workers)
	s.roll()
	s.served(queue, "by the replacements, while the old workers stand still")
	thaw()

	workers = s.workerPIDs()
	queue, thaw = s.fill(workers)
	old := s.generation
	s.signal(syscall.SIGUSR2)
	s.begins()
	s.served(queue, "by the successor's workers, while the old ones stand still")
	thaw()
	s.ExpectN(2*number, fmt.Sprintf(`worker ready slot=\d gen=1 |worker gone slot=\d gen=%d `, old))

	workers = s.workerPIDs()
	queue, thaw = s.fill(workers)
	s.signal(syscall.SIGTERM)
	s.ExpectN(number, `worker stopping`)
	thaw()
	s.served(queue, "at the end of the program")
	s.WaitGone()
}

// fill stops workers and opens connections with a request each, which none of them can accept; thaw has the workers go on.
func (s *server) fill(workers []int) (queue map[mode][]net.Conn, thaw func()) {
	s.t.Helper()
	var thaws []func()
	for _, pid := range workers {
		thaws = append(thaws, preforktest.Freeze(s.t, pid))
	}
	queue = make(map[mode][]net.Conn)
	for _, m := range s.modes {
		for range 20 {
			c, err := net.Dial(m.network, s.addresses[m])
			if err != nil {
				s.t.Fatal(err)
			}
			s.t.Cleanup(func() { c.Close() })
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
			queue[m] = append(queue[m], c)
		}
	}
	return queue, func() {
		for _, thaw := range thaws {
			thaw()
		}
	}
}

// served checks that every connection of a queue is answered.
func (s *server) served(queue map[mode][]net.Conn, how string) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for m, conns := range queue {
		for i, c := range conns {
			c.SetDeadline(deadline)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				s.t.Errorf("%v: connection %d of %d is not served %s: %v", m, i+1, len(conns), how, err)
				continue
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != m.answer() {
				s.t.Errorf("%v: connection %d of %d is served %q %s, %v", m, i+1, len(conns), body, how, err)
			}
			resp.Body.Close()
			c.Close()
		}
	}
}
