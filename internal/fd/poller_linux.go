package fd

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pollerEvents are the events for which the Go runtime registers descriptors.
const pollerEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// Unpoll keeps sockets from waking this process, until restore is called. The
// kernel wakes each process that has a socket in an epoll, also if it never uses
// it: for each connection and datagram, and for each datagram that is sent. Calls
// that have to wait then do so until restore, their deadline or Close. A closed
// socket is skipped.
//
// The runtime has no call for that, so the registration in its epoll is changed.
// Changing it cannot fail for want of memory, as adding it again could. If it is
// not found, as without /proc, the sockets stay as they are.
func Unpoll(sockets []syscall.RawConn) (restore func()) {
	found := make(map[int][]registration)
	for _, r := range registrations() {
		if r.events&^(unix.EPOLLERR|unix.EPOLLHUP) == pollerEvents { // the kernel adds these two
			found[r.descriptor] = append(found[r.descriptor], r)
		}
	}
	change := func(events uint32) {
		for _, s := range sockets {
			s.Control(func(raw uintptr) {
				if r := found[int(raw)]; len(r) == 1 { // of several, which is the runtime's?
					unix.EpollCtl(r[0].epoll, unix.EPOLL_CTL_MOD, int(raw), r[0].event(events))
				}
			})
		}
	}
	change(unix.EPOLLET)
	return func() { change(pollerEvents) }
}

// registration is one descriptor in one epoll.
type registration struct {
	epoll, descriptor int
	events            uint32
	data              uint64
}

// event returns the argument of epoll_ctl, which names the same data.
func (r registration) event(events uint32) *unix.EpollEvent {
	var data [8]byte
	binary.NativeEndian.PutUint64(data[:], r.data)
	return &unix.EpollEvent{
		Events: events,
		Fd:     int32(binary.NativeEndian.Uint32(data[:4])),
		Pad:    int32(binary.NativeEndian.Uint32(data[4:])),
	}
}

// registrations returns those of all epolls of this process.
func registrations() (all []registration) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if link, err := os.Readlink("/proc/self/fd/" + name); err != nil || link != "anon_inode:[eventpoll]" {
			continue
		}
		var r registration
		if r.epoll, err = strconv.Atoi(name); err != nil {
			continue
		}
		text, _ := os.ReadFile("/proc/self/fdinfo/" + name)
		for line := range strings.Lines(string(text)) {
			if n, _ := fmt.Sscanf(line, "tfd: %d events: %x data: %x", &r.descriptor, &r.events, &r.data); n == 3 {
				all = append(all, r)
			}
		}
	}
	return all
}
