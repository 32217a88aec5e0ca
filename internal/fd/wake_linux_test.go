package fd

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An accept that began on a blocking socket returns once the socket is
// non-blocking and the threads are woken.
func TestWakeThreads(t *testing.T) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrUnix{}); err != nil { // an abstract name
		t.Fatal(err)
	}
	if err := unix.Listen(s, 1); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := unix.Accept4(s, unix.SOCK_CLOEXEC)
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	WakeThreads() // restarts the call, which blocks again
	select {
	case err := <-done:
		t.Fatalf("accept on a blocking socket: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := SetBlocking(s, false); err != nil {
		t.Fatal(err)
	}
	WakeThreads()
	select {
	case err := <-done:
		if !errors.Is(err, unix.EAGAIN) {
			t.Errorf("accept: %v, want EAGAIN", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("accept still blocks")
	}
}
