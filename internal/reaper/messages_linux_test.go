package reaper

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestEmptyPacket checks that an empty packet does not hide the messages behind
// it. A read returns 0 for an empty packet and for the end of the socket. The
// reaper reads its socket before it reaps: if it missed the report of a
// successor, it would exit with the status of the manager that handed over.
func TestEmptyPacket(t *testing.T) {
	for name, tt := range map[string]struct {
		packets []string
		close   bool // the managers close their end afterwards
		open    bool
		target  int
	}{
		"nothing":               {nil, false, true, 10},
		"a message":             {[]string{"successor 11"}, false, true, 11},
		"empty":                 {[]string{""}, false, true, 10},
		"empty and a message":   {[]string{"", "successor 11"}, false, true, 11},
		"several empty":         {[]string{"", "", "successor 11", "", "successor 12", ""}, false, true, 12},
		"closed":                {nil, true, false, 10},
		"empty, closed":         {[]string{"", ""}, true, false, 10},
		"empty, message, close": {[]string{"", "", "successor 11", ""}, true, false, 11},
	} {
		t.Run(name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fds[0])
			for _, packet := range tt.packets {
				if err := unix.Sendto(fds[1], []byte(packet), 0, nil); err != nil {
					t.Fatal(err)
				}
			}
			if tt.close {
				unix.Close(fds[1])
			} else {
				defer unix.Close(fds[1])
			}
			r := &reaper{sock: fds[0], chain: chain{{pid: 10, handle: -1}}}
			defer func() { // of other processes, if there are any with these pids
				for _, m := range r.chain {
					unix.Close(m.handle)
				}
			}()
			if open := r.readMessages(); open != tt.open {
				t.Errorf("open: %v", open)
			}
			if m := r.chain.target(); m == nil || m.pid != tt.target {
				t.Errorf("target is %v, want manager %d", m, tt.target)
			}
		})
	}
}
