//go:build unix

package run

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A daemon reads its own log. A message must not wait for that: the loop of the
// manager would wait for itself.
func TestMessagesOfADaemonDoNotWait(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	d := &daemon{}
	d.log.Store(int32(fds[1]))
	message := []byte(strings.Repeat("x", 999) + "\n")
	for range 1000 { // more than a pipe holds
		if n, err := d.Write(message); n != len(message) || err != nil {
			t.Fatal(n, err)
		}
	}
	lost := d.lost.Load()
	if lost == 0 {
		t.Fatal("a pipe has room for a million bytes")
	}
	read := func() (text string) {
		buf := make([]byte, 1<<16)
		for {
			n, err := unix.Read(fds[0], buf)
			if err != nil {
				return text
			}
			text += string(buf[:n])
		}
	}
	if taken := strings.Count(read(), "\n"); taken+int(lost) != 1000 {
		t.Errorf("%d messages in the log, %d lost, of 1000", taken, lost)
	}
	d.Write([]byte("again\n"))
	if got := read(); !strings.HasSuffix(got, " messages were lost, because the log took none\nagain\n") || d.lost.Load() != 0 {
		t.Errorf("%q, %d lost", got, d.lost.Load())
	}
}
