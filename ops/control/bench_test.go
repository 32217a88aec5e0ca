//go:build unix

package control

import (
	"fmt"
	"testing"

	"github.com/prefork-go/prefork"
)

// BenchmarkStatus measures GET /v1/status over the socket, with the server in the
// same process. It should take at most 2 ms with 100 workers, and 10 ms with 1,000.
func BenchmarkStatus(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newTestServer(b, Config{})
			snap := exampleSnapshot()
			for i := range n {
				snap.Workers = append(snap.Workers, prefork.WorkerInfo{Ordinal: 100 + i, Slot: i, PID: 5000 + i, State: prefork.StateReady, Since: moment, Started: moment})
			}
			s.fakes[0].snap = snap
			for b.Loop() {
				s.forget()
				if code, body := ask(b, s.sock.address, "GET /v1/status HTTP/1.1\r\n\r\n"); code != 200 || len(body) < 100*n {
					b.Fatal(code, body)
				}
			}
		})
	}
}
