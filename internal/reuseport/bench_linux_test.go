package reuseport

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkAccept compares a listener of package net, a Listener with its own
// socket only, and one that has adopted another socket. They take turns of a
// few hundred connections, so that noise of the machine affects all three.
//
// "queued" measures Accept alone, with a connection always queued. "one by one"
// measures a client that connects, is accepted, and connects again.
func BenchmarkAccept(b *testing.B) {
	for _, test := range []struct {
		name string
		turn func(g *group, l net.Listener, to unix.Sockaddr) time.Duration
	}{{"queued", acceptQueued}, {"one by one", acceptOneByOne}} {
		b.Run(test.name, func(b *testing.B) { compareAccept(b, test.turn) })
	}
}

func compareAccept(b *testing.B, turn func(g *group, l net.Listener, to unix.Sockaddr) time.Duration) {
	g := newGroup(b, 3)
	names := []string{"plain", "own", "adopted"}
	listeners := []net.Listener{g.plain(0), g.listener(1), g.listener(2)}
	if err := listeners[2].(*Listener).Adopt(0, g.dup(0)); err != nil {
		b.Fatal(err)
	}
	addr := listeners[0].Addr().(*net.TCPAddr)
	to := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	var took [3]time.Duration
	turns := 0
	for b.Loop() {
		for i, l := range listeners {
			g.steer(i)
			if d, ok := l.(*Listener); ok {
				d.SetDeadline(time.Time{})
			}
			took[i] += turn(g, l, to)
		}
		turns++
	}
	for i, name := range names {
		each := took[i].Seconds() / float64(turns*perTurn)
		b.ReportMetric(1/each, name+"/s")
		if i > 0 {
			b.ReportMetric(took[0].Seconds()/took[i].Seconds(), name+":plain")
		}
	}
	listeners[0].Close()
}

const perTurn = 300

// plain returns a listener of package net on socket i.
func (g *group) plain(i int) net.Listener {
	f := os.NewFile(uintptr(g.dup(i)), "socket")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		g.t.Fatal(err)
	}
	return l
}

func acceptQueued(g *group, l net.Listener, to unix.Sockaddr) time.Duration {
	var clients, conns []func()
	for range perTurn {
		clients = append(clients, g.bareConnect(to))
	}
	begin := time.Now()
	for range perTurn {
		c, err := l.Accept()
		if err != nil {
			g.t.Fatal(err)
		}
		conns = append(conns, func() { c.Close() })
	}
	took := time.Since(begin)
	for _, end := range append(clients, conns...) {
		end()
	}
	return took
}

func acceptOneByOne(g *group, l net.Listener, to unix.Sockaddr) time.Duration {
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for range perTurn {
			c, err := l.Accept()
			if err != nil {
				g.t.Error(err)
				return
			}
			accepted <- struct{}{}
			c.Close()
		}
	}()
	begin := time.Now()
	for range perTurn {
		end := g.bareConnect(to)
		<-accepted
		end()
	}
	took := time.Since(begin)
	<-accepted
	return took
}

// bareConnect connects with less overhead than package net.
func (g *group) bareConnect(to unix.Sockaddr) (end func()) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return func() {
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
	}
}
