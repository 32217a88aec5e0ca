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

// Connections in the accept queue of a stopping worker are served by its
// replacement. When the program stops, the worker itself serves them. This also
// holds for the worker's own socket, from which no other worker accepts.
func TestQueues(t *testing.T) {
	needProc(t)
	s := startServer(t, modes)

	workers := s.workerPIDs()
	queues, thaw := s.fillQueues(workers)
	s.roll()
	s.checkServed(queues, "by the replacements, while the old workers are frozen")
	thaw()

	workers = s.workerPIDs()
	queues, thaw = s.fillQueues(workers)
	old := s.generation
	s.signal(syscall.SIGUSR2)
	s.awaitManager()
	s.checkServed(queues, "by the successor's workers, while the old ones are frozen")
	thaw()
	s.ExpectN(2*number, fmt.Sprintf(`worker ready slot=\d gen=1 |worker gone slot=\d gen=%d `, old))

	workers = s.workerPIDs()
	queues, thaw = s.fillQueues(workers)
	s.signal(syscall.SIGTERM)
	s.ExpectN(number, `worker stopping`)
	thaw()
	s.checkServed(queues, "by the stopping workers")
	s.WaitGone()
}

// fillQueues freezes the workers and opens connections with a request each,
// which stay in the accept queues. The function thaw continues the workers.
func (s *server) fillQueues(workers []int) (queues map[mode][]net.Conn, thaw func()) {
	s.t.Helper()
	var thaws []func()
	for _, pid := range workers {
		thaws = append(thaws, preforktest.Freeze(s.t, pid))
	}
	queues = make(map[mode][]net.Conn)
	for _, m := range s.modes {
		for range 20 {
			c, err := net.Dial(m.network, s.addresses[m])
			if err != nil {
				s.t.Fatal(err)
			}
			s.t.Cleanup(func() { c.Close() })
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
			queues[m] = append(queues[m], c)
		}
	}
	return queues, func() {
		for _, thaw := range thaws {
			thaw()
		}
	}
}

// checkServed checks that every connection in the queues gets a response.
func (s *server) checkServed(queues map[mode][]net.Conn, how string) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for m, conns := range queues {
		for i, c := range conns {
			c.SetDeadline(deadline)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				s.t.Errorf("%v: connection %d of %d not served %s: %v", m, i+1, len(conns), how, err)
				continue
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != m.body() {
				s.t.Errorf("%v: connection %d of %d served %q %s, %v", m, i+1, len(conns), body, how, err)
			}
			resp.Body.Close()
			c.Close()
		}
	}
}
