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

func TestMain(m *testing.M) { preforktest.Main(m, nil) }

func init() { preforktest.Register("udp", main) }

// A load is the state that the clients share.
type load struct {
	stop     atomic.Bool
	answered atomic.Int64
	latest   atomic.Int64 // the newest generation that has answered
}

// client sends datagrams until stop, and waits for the answer to each.
func (l *load) client(address string) error {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	for n := 0; !l.stop.Load(); n++ {
		generation, err := roundTrip(conn, strings.Repeat("?", n%100))
		if err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		if latest := l.latest.Load(); generation > latest {
			l.latest.CompareAndSwap(latest, generation)
		}
		l.answered.Add(1)
	}
	return nil
}

// roundTrip sends a datagram and returns the generation of the worker that
// answers it.
func roundTrip(conn net.Conn, question string) (generation int64, err error) {
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte(question)); err != nil {
		return 0, err
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil {
		return 0, fmt.Errorf("no answer: %w", err)
	}
	var slot, read int64
	const format = "worker %d of generation %d read %d bytes\n"
	if _, err := fmt.Sscanf(string(buf[:n]), format, &slot, &generation, &read); err != nil ||
		read != int64(len(question)) {
		return 0, fmt.Errorf("answer to %d bytes: %q", len(question), buf[:n])
	}
	return generation, nil
}

// Clients that send each datagram once get all answers during reloads.
func TestReloadsUnderLoad(t *testing.T) {
	p := preforktest.Start(t, "udp", "-listen", "127.0.0.1:0")
	address := p.Expect(`^answering on (\S+)$`)[1]
	p.ExpectN(3, `worker ready`)
	var clients sync.WaitGroup
	var l load
	for range 4 {
		clients.Go(func() {
			if err := l.client(address); err != nil {
				t.Error(err)
			}
		})
	}
	for generation := int64(1); generation <= 6; generation++ {
		before := l.answered.Load()
		preforktest.WaitFor(t, fmt.Sprint("answers of generation ", generation), func() bool {
			return t.Failed() || l.latest.Load() >= generation && l.answered.Load() >= before+500
		})
		if generation < 6 {
			p.Signal(syscall.SIGHUP)
		}
	}
	l.stop.Store(true)
	clients.Wait()
	t.Logf("%d datagrams answered during 5 reloads", l.answered.Load())
	p.Signal(syscall.SIGTERM)
	if state := p.Wait(); !state.Success() {
		t.Errorf("manager: %v", state)
	}
}
