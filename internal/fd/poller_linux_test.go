package fd

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func rawOf(t *testing.T, s any) syscall.RawConn {
	t.Helper()
	conn, err := s.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// interest returns the events for which the socket is in an epoll, without those
// that the kernel adds.
func interest(t *testing.T, s syscall.RawConn) (events uint32) {
	t.Helper()
	err := s.Control(func(raw uintptr) {
		for _, r := range registrations() {
			if r.descriptor == int(raw) {
				events = r.events &^ (unix.EPOLLERR | unix.EPOLLHUP)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// An Accept that waits while its listener is out of the poller gets, after
// restore, the connection that came before it.
func TestUnpoll(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sockets := []syscall.RawConn{rawOf(t, gone), rawOf(t, ln)}
	gone.Close()
	restore := Unpoll(sockets)
	if got := interest(t, rawOf(t, ln)); got != unix.EPOLLET {
		t.Errorf("events %#x after Unpoll", got)
	}
	if got := interest(t, rawOf(t, other)); got != pollerEvents {
		t.Errorf("events %#x of another socket", got)
	}
	accepted := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			conn.Close()
		}
		accepted <- err
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	restore()
	if err := <-accepted; err != nil {
		t.Error(err)
	}
	if got := interest(t, rawOf(t, ln)); got != pollerEvents {
		t.Errorf("events %#x after restore", got)
	}
}

// Deadlines and Close end calls on such a socket.
func TestUnpollDeadline(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	Unpoll([]syscall.RawConn{rawOf(t, conn)})
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := conn.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("read: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// A registration that may be that of a program stays.
func TestUnpollAmbiguous(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	conn := rawOf(t, ln)
	conn.Control(func(raw uintptr) {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, int(raw), &unix.EpollEvent{Events: pollerEvents, Fd: int32(raw)})
	})
	if err != nil {
		t.Fatal(err)
	}
	Unpoll([]syscall.RawConn{conn})
	if got := interest(t, conn); got != pollerEvents {
		t.Errorf("events %#x", got)
	}
}
