package sockets

import (
	"fmt"
	"net"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/marker"
)

// TestQueues compares what Queues returns with connections that nothing accepts.
func TestQueues(t *testing.T) {
	set, path := newSet(t, Config{}), absent(t)
	var addresses []string
	add := func(o Options, listen func(Options, string, string) (net.Listener, error), network, address string) {
		ln, err := listen(o, network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		addresses = append(addresses, ln.Addr().String())
	}
	add(Options{Backlog: 9}, set.ListenWith, "tcp", "127.0.0.1:0")
	add(Options{Backlog: 8}, set.ListenWith, "unix", path)
	add(Options{Backlog: 7}, set.ListenWith, "unix", fmt.Sprintf("@prefork-queue-%d", os.Getpid()))
	add(Options{Backlog: 6}, set.ListenPerWorkerWith, "tcp4", "127.0.0.1:0")
	listen(t, set.ListenPacket, "udp", "127.0.0.1:0")
	listen(t, set.ListenPacketPerWorker, "udp", "127.0.0.1:0")

	check := func(want ...[4]int) {
		t.Helper()
		var got [][4]int
		for _, q := range set.Queues() {
			got = append(got, [4]int{slices.Index(set.Info(), q.Info), q.Slot, q.Waiting, q.Backlog})
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v (socket, slot, waiting, backlog)", got, want)
		}
	}
	dial := func(i, n int) {
		for range n {
			network := set.Info()[i].Network
			c, err := net.Dial(network, addresses[i])
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
	}
	flows := [][4]int{{4, marker.Shared, -1, -1}, {5, 0, -1, -1}, {5, 1, -1, -1}}
	check(append([][4]int{{0, marker.Shared, 0, 9}, {1, marker.Shared, 0, 8}, {2, marker.Shared, 0, 7}, {3, 0, 0, 6}, {3, 1, 0, 6}}, flows...)...)
	dial(0, 3)
	dial(1, 2)
	dial(2, 1)
	dial(3, 5)
	first := set.Queues()[3].Waiting // the kernel chooses the slots
	check(append([][4]int{{0, marker.Shared, 3, 9}, {1, marker.Shared, 2, 8}, {2, marker.Shared, 1, 7}, {3, 0, first, 6}, {3, 1, 5 - first, 6}}, flows...)...)
	set.StopListening()
	check()
}

// Without sock_diag, and for a socket that does not listen, a queue is unknown.
func TestQueueUnknown(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "udp", "unixgram"} {
		if _, _, ok := acceptQueue(network, -1); ok {
			t.Errorf("%s: a queue of no descriptor", network)
		}
	}
	for network, family := range map[string]int{"tcp": unix.AF_INET, "unix": unix.AF_UNIX} {
		descriptor, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(descriptor)
		if _, _, ok := acceptQueue(network, descriptor); ok {
			t.Errorf("%s: a queue of a socket that does not listen", network)
		}
	}
}

// FuzzParseDiag: whatever answers, there is no panic.
func FuzzParseDiag(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 16))
	good := []byte{44, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 10, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 4, 0, 3, 0, 0, 0, 9, 0, 0, 0}
	f.Add(good)
	if waiting, backlog, ok := parseDiag(good); !ok || waiting != 3 || backlog != 9 {
		f.Errorf("%d of %d, %v", waiting, backlog, ok)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		if waiting, backlog, ok := parseDiag(answer); ok && (waiting < 0 || backlog < 0) {
			t.Errorf("%d of %d", waiting, backlog)
		}
	})
}
