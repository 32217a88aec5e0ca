package sockets

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/wire"
)

// packetSet returns a Set with a group of listeners and one of datagram sockets,
// with two slots each.
func packetSet(t *testing.T) (set *Set, conn net.PacketConn) {
	t.Helper()
	set = newSet(t, Config{})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	return set, listen(t, set.ListenPacketPerWorker, "udp", "127.0.0.1:0")
}

// The connection in the manager has the address, and nothing else.
func TestPacketPerWorkerInTheManager(t *testing.T) {
	set, conn := packetSet(t)
	if got := slots(set.Hand(1)); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("slot 1 is handed %v", got)
	}
	if info := set.Info()[1]; !info.PerWorker || info.Address != conn.LocalAddr().String() || set.Groups() != 2 {
		t.Errorf("%v, and %v, %d groups", info, conn.LocalAddr(), set.Groups())
	}
	if _, _, err := conn.ReadFrom(make([]byte, 1)); !errors.Is(err, errPacket) {
		t.Errorf("ReadFrom: %v", err)
	}
	if _, err := conn.WriteTo([]byte("x"), conn.LocalAddr()); !errors.Is(err, errPacket) {
		t.Errorf("WriteTo: %v", err)
	}
	if err := set.Grow(3); err != nil || len(set.OfSlot(3)) != 2 || addressOfPacket(t, set.OfSlot(3)[1]) != conn.LocalAddr().String() {
		t.Errorf("slot 3 has %v, %v", set.OfSlot(3), err)
	}
}

func addressOfPacket(t *testing.T, descriptor int) string {
	t.Helper()
	conn, err := udpConn(copied(t, descriptor))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

// Flows go to slots whose worker has the socket. No worker reads from the socket
// of another slot.
func TestSteerPackets(t *testing.T) {
	set, _ := packetSet(t)
	g := set.groups()[1]
	for _, step := range []struct {
		name  string
		ready []Worker
		live  []int
	}{
		{"none", nil, nil},
		{"one of two", accepting(1, 0), []int{0}},
		{"both", accepting(1, 0, 1), []int{0, 1}},
		{"one has not asked for it", []Worker{{ID: 1, Slot: 0}, {ID: 2, Slot: 1, Accepting: []int{1}}}, []int{1}},
		{"only the first group", []Worker{{ID: 1, Slot: 0, Accepting: []int{0}}}, nil},
	} {
		moves, again := set.Steer(0, step.ready)
		if i := slices.IndexFunc(moves, func(m Move) bool { return m.Group == 1 }); i >= 0 || again != Never {
			t.Errorf("%s: %v, again at %v", step.name, moves, again)
		}
		if !slices.Equal(g.live, step.live) {
			t.Errorf("%s: live %v, want %v", step.name, g.live, step.live)
		}
	}
}

// wantDatagram sends a datagram to a slot of the second group, and expects it on a
// worker's connection.
func wantDatagram(t *testing.T, set *Set, slot int, conn net.PacketConn) {
	t.Helper()
	set.Steer(0, accepting(1, slot))
	client, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte("hello"))
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 10)
	if n, from, err := conn.ReadFrom(buf); err != nil || string(buf[:n]) != "hello" || from.String() != client.LocalAddr().String() {
		t.Errorf("%q from %v, %v", buf[:n], from, err)
	}
}

// A worker has the socket of its slot, by either call, and reports that it has it
// and that it has closed it.
func TestPacketPerWorkerInAWorker(t *testing.T) {
	set, _ := packetSet(t)
	for slot := range 2 {
		in, sent := newWorker(t, set, slot)
		call := in.ListenPacketPerWorker
		if slot == 1 {
			call = in.ListenPacket // the manager has kept the sockets of its predecessor
		}
		conn := listen(t, call, "udp", "127.0.0.1:0")
		wantSent(t, sent, wire.Accepting{Socket: 1})
		wantDatagram(t, set, slot, conn)
		if !in.Unblock() {
			t.Error("Unblock does not know the socket")
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		wantSent(t, sent, wire.ListenerClosed{Socket: 1})
		if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
		wantSent(t, sent)
		if _, err := call("udp", "127.0.0.1:0"); !errors.Is(err, ErrNotInherited) {
			t.Errorf("second call: %v", err)
		}
	}
}

// A standby's socket arrives with its slot, before or after the call. Before, it
// has the address.
func TestStandbyOwnPacket(t *testing.T) {
	for _, early := range []bool{false, true} {
		set, held := packetSet(t)
		in, sent := newWorker(t, set, marker.NoSlot)
		if early {
			in.Adopt(1, 1, copied(t, set.OfSlot(1)[1]), true)
		}
		conn := listen(t, in.ListenPacketPerWorker, "udp", "127.0.0.1:0")
		if conn.LocalAddr().String() != held.LocalAddr().String() {
			t.Errorf("address %v, want %v", conn.LocalAddr(), held.LocalAddr())
		}
		if !early {
			if _, _, err := conn.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("ReadFrom without a slot: %v", err)
			}
			in.Adopt(1, 1, copied(t, set.OfSlot(1)[1]), true)
		}
		wantSent(t, sent, wire.Accepting{Socket: 1})
		wantDatagram(t, set, 1, conn)
	}
}

// A standby closes the connection before it has a slot.
func TestStandbyClosesPacket(t *testing.T) {
	set, _ := packetSet(t)
	in, sent := newWorker(t, set, marker.NoSlot)
	conn := listen(t, in.ListenPacketPerWorker, "udp", "127.0.0.1:0")
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	wantSent(t, sent, wire.Accepting{Socket: 1}, wire.ListenerClosed{Socket: 1})
	own := copied(t, set.OfSlot(1)[1])
	in.Adopt(1, 1, own, true)
	if isOpen(own) {
		t.Error("the socket of a closed connection is open")
	}
	if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

// A successor takes the sockets of all slots, by either call; a socket that the
// predecessor shares stays one.
func TestInheritPacketGroup(t *testing.T) {
	before, _ := packetSet(t)
	listen(t, before.ListenPacket, "udp4", "127.0.0.1:0")
	inherited := func() *Inherited {
		given := before.HandAll()
		for i := range given {
			given[i].FD = copied(t, given[i].FD)
		}
		in := NewInherited(given, nil)
		t.Cleanup(func() {
			for _, s := range in.takeUnclaimed() {
				fd.Close(s.FD)
			}
		})
		return in
	}
	for _, shared := range []bool{false, true} {
		var log bytes.Buffer
		set := newSet(t, Config{Successor: true, Inherited: inherited(), Log: slog.New(slog.NewTextHandler(&log, nil))})
		call, other := set.ListenPacketPerWorker, "one socket for all workers instead of one for each"
		if shared {
			call, other = set.ListenPacket, "a socket for each worker instead of one for all"
		}
		listen(t, call, "udp", "127.0.0.1:0")
		for slot := range 2 {
			if set.Limit(9) != 2 || !isSame(set.OfSlot(slot)[0], before.OfSlot(slot)[1]) {
				t.Fatalf("slot %d has another socket", slot)
			}
		}
		if strings.Contains(log.String(), other) != shared {
			t.Errorf("log %q", log.String())
		}
		listen(t, call, "udp4", "127.0.0.1:0")
		if got := slots(set.Hand(0)); len(got) != 2 || got[1] >= 0 || strings.Contains(log.String(), "one socket for all") == shared {
			t.Errorf("handed %v, log %q", got, log.String())
		}
	}
}

// A Command gets one of the sockets.
func TestCommandInheritsPacketGroup(t *testing.T) {
	before, _ := packetSet(t)
	given := before.HandAll()
	for i := range given {
		given[i].FD = copied(t, given[i].FD)
	}
	set := newSet(t, Config{Successor: true, Command: true, Inherited: NewInherited(given, nil)})
	listen(t, set.Listen, "tcp", "127.0.0.1:0")
	listen(t, set.ListenPacket, "udp", "127.0.0.1:0")
	if set.Groups() != 0 || isOpen(given[1].FD) || isOpen(given[3].FD) {
		t.Errorf("%d groups; the others' sockets are open: %t, %t", set.Groups(), isOpen(given[1].FD), isOpen(given[3].FD))
	}
}

// If sockets for each worker are not available, there is one.
func TestPacketFallBack(t *testing.T) {
	var log bytes.Buffer
	set := newSet(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	file := func() *os.File {
		conn := listen(t, net.ListenPacket, "udp", "127.0.0.1:0")
		f, err := conn.(*net.UDPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}()
	defer file.Close()
	conn, err := set.ListenPacketPerWorkerWith(Options{File: file}, "udp", "x")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := slots(set.Hand(0)); !slices.Equal(got, []int{marker.FellBack}) || strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("slots %v, log %q", got, log.String())
	}
	in, sent := newWorker(t, set, 0)
	if got := listen(t, in.ListenPacketPerWorker, "udp", "x"); got.LocalAddr().String() != conn.LocalAddr().String() {
		t.Errorf("a worker has %v", got.LocalAddr())
	}
	wantSent(t, sent)
	if _, err := set.ListenPacketPerWorkerWith(Options{Backlog: 1}, "udp", "127.0.0.1:0"); err == nil {
		t.Error("no error for Backlog")
	}
}
