//go:build unix

package main

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

func TestMain(m *testing.M) { preforktest.Main(m, map[string]func(){"udp": main}) }

// Clients that send each datagram once get an answer to every one, through reloads.
func TestReloadsUnderLoad(t *testing.T) {
	p := preforktest.Start(t, "udp", "-listen", "127.0.0.1:0")
	address := p.Expect(`^answering on (\S+)$`)[1]
	p.ExpectN(3, `worker ready`)
	var clients sync.WaitGroup
	var stop atomic.Bool
	var latest, answered atomic.Int64 // the newest generation that has answered, and all answers
	for range 4 {
		clients.Go(func() {
			conn, err := net.Dial("udp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			buf := make([]byte, 100)
			for n := 0; !stop.Load(); n++ {
				question := strings.Repeat("?", n%100)
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := conn.Write([]byte(question)); err != nil {
					t.Error(err)
					return
				}
				size, err := conn.Read(buf)
				if err != nil {
					t.Errorf("request %d was not answered: %v", n, err)
					return
				}
				var slot, generation, read int64
				if _, err := fmt.Sscanf(string(buf[:size]), "worker %d of generation %d read %d bytes\n", &slot, &generation, &read); err != nil || read != int64(len(question)) {
					t.Errorf("request %d of %d bytes was answered %q", n, len(question), buf[:size])
					return
				}
				if now := latest.Load(); generation > now {
					latest.CompareAndSwap(now, generation)
				}
				answered.Add(1)
			}
		})
	}
	for generation := int64(1); generation <= 6; generation++ {
		before := answered.Load()
		preforktest.WaitFor(t, fmt.Sprint("answers of generation ", generation), func() bool {
			return t.Failed() || latest.Load() >= generation && answered.Load() >= before+500
		})
		if generation < 6 {
			p.Signal(syscall.SIGHUP)
		}
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d datagrams answered through 5 reloads", answered.Load())
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("it ended with %v", state)
	}
}
