package sockets

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/wire"
)

// perWorkerSet returns a Set with one shared socket and two groups of two slots.
func perWorkerSet(t *testing.T) *Set {
	t.Helper()
	set := newSet(t, Config{})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	listen(t, set.Listen, "tcp", "127.0.0.1:0")
	listen(t, set.ListenPerWorker, "tcp4", "127.0.0.1:0")
	return set
}

func TestHandPerWorker(t *testing.T) {
	set := perWorkerSet(t)
	if err := set.Grow(2); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		all  []marker.Socket
		want []int
	}{
		{"slot 0", set.Hand(0), []int{0, marker.Shared, 0}},
		{"slot 2", set.Hand(2), []int{2, marker.Shared, 2}},
		{"a slot without sockets", set.Hand(3), []int{marker.Shared}},
		{"standby", set.Hand(marker.NoSlot), []int{marker.Awaited, marker.Shared, marker.Awaited}},
		{"successor", set.HandAll(), []int{0, 1, 2, marker.Shared, 0, 1, 2}},
	} {
		if got := slots(test.all); !slices.Equal(got, test.want) {
			t.Errorf("%s: slots %v, want %v", test.name, got, test.want)
		}
	}
	if of := set.OfSlot(2); len(of) != 2 || of[0] != set.Hand(2)[0].FD || of[1] != set.Hand(2)[2].FD {
		t.Errorf("slot 2 has %v, and is handed %v", of, set.Hand(2))
	}
	if set.Groups() != 2 || !set.Info()[0].PerWorker || set.Info()[1].PerWorker {
		t.Errorf("%d groups, %v", set.Groups(), set.Info())
	}
}

// Grow adds the missing sockets up to a slot, and Limit is what there is.
func TestGrowAndLimit(t *testing.T) {
	set := perWorkerSet(t)
	for _, step := range []struct{ grow, limit int }{{-1, 2}, {0, 2}, {1, 2}, {4, 5}, {2, 5}} {
		if err := set.Grow(step.grow); err != nil {
			t.Fatal(err)
		}
		if got := set.Limit(100); got != step.limit || set.Limit(1) != 1 {
			t.Errorf("after Grow(%d): limit %d, want %d", step.grow, got, step.limit)
		}
	}
	addr := set.Info()[0].Address
	for _, s := range set.HandAll()[:5] {
		if got := addressOf(t, s.FD); got != addr {
			t.Errorf("slot %d listens on %s, want %s", s.Slot, got, addr)
		}
	}
}

// accepting returns ready workers of slots, with consecutive IDs, that accept on the
// first two groups.
func accepting(id int, slots ...int) (all []Worker) {
	for i, slot := range slots {
		all = append(all, Worker{ID: id + i, Slot: slot, Accepting: []int{0, 1}})
	}
	return all
}

// Slots without a ready worker get one that serves their queue. A move that was not
// carried out is returned again. A worker that does not accept counts as none.
func TestSteer(t *testing.T) {
	set := newSet(t, Config{})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	fds := set.OfSlot(0)
	fds = append(fds, set.OfSlot(1)...)
	carryOut := func(moves []Move) {
		for _, m := range moves {
			set.Moved(m)
		}
	}
	steps := []struct {
		name  string
		ready []Worker
		want  []Move
		done  bool
	}{
		{"no worker", nil, nil, true},
		{"none accepts", []Worker{{ID: 10}, {ID: 11, Slot: 1, Accepting: []int{1}}}, nil, true},
		{"one of two", accepting(10, 0), []Move{{Slot: 1, FD: fds[1], To: 10}}, false},
		{"again", accepting(10, 0), []Move{{Slot: 1, FD: fds[1], To: 10}}, true},
		{"once more", accepting(10, 0), nil, true},
		{"the other does not accept yet", append(accepting(10, 0), Worker{ID: 11, Slot: 1}), nil, true},
		{"both", accepting(10, 0, 1), []Move{{Slot: 1, FD: fds[1], From: 10}}, true},
		{"one has closed its listener", append(accepting(11, 1), Worker{ID: 10, Accepting: []int{1}}), []Move{{Slot: 0, FD: fds[0], To: 11}}, true},
		{"another group is not this one", append(accepting(11, 1), Worker{ID: 12, Accepting: []int{0}}), []Move{{Slot: 0, FD: fds[0], From: 11}}, true},
		{"a slot beyond the group", accepting(13, 9), []Move{{Slot: 0, FD: fds[0], To: 13}, {Slot: 1, FD: fds[1], To: 13}}, true},
	}
	for _, step := range steps {
		moves, again := set.Steer(0, step.ready)
		if again != Never {
			t.Errorf("%s: again at %v", step.name, again)
		}
		if !slices.Equal(moves, step.want) {
			t.Errorf("%s: %v, want %v", step.name, moves, step.want)
		}
		if step.done {
			carryOut(moves)
		}
	}
}

// The moves name the group.
func TestSteerGroups(t *testing.T) {
	set := perWorkerSet(t)
	moves, _ := set.Steer(0, accepting(1, 0))
	if len(moves) != 2 || moves[0].Group != 0 || moves[1].Group != 1 || moves[0].FD == moves[1].FD {
		t.Fatalf("%v", moves)
	}
	set.Moved(moves[1])
	if again, _ := set.Steer(0, accepting(1, 0)); len(again) != 1 || again[0] != moves[0] {
		t.Errorf("after the second move: %v", again)
	}
}

// One manager of an upgrade steers: first the predecessor, then the successor.
func TestPassive(t *testing.T) {
	set := newSet(t, Config{Passive: true, Successor: true})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	ready := accepting(1, 0)
	if moves, _ := set.Steer(0, ready); moves != nil || !set.Passive() {
		t.Errorf("before the takeover: %v", moves)
	}
	set.TakeOver()
	if moves, _ := set.Steer(0, ready); len(moves) != 1 || set.Passive() {
		t.Errorf("after the takeover: %v", moves)
	}
	set.ReleaseFiles()
	if moves, _ := set.Steer(0, accepting(2, 0)); moves != nil || !set.Passive() {
		t.Errorf("after the handover: %v", moves)
	}
}

// A successor takes the sockets of all slots, in their order, and makes none.
func TestInheritGroup(t *testing.T) {
	before := perWorkerSet(t)
	var given []marker.Socket
	for _, s := range before.HandAll() {
		copied, err := fd.Duplicate(uintptr(s.FD))
		if err != nil {
			t.Fatal(err)
		}
		s.FD = copied
		given = append(given, s)
	}
	set := newSet(t, Config{Successor: true, Passive: true, Inherited: NewInherited(given, nil), MaxWorkers: func() int { return 7 }})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	if set.Limit(100) != 2 {
		t.Errorf("%d slots", set.Limit(100))
	}
	for slot := range 2 {
		if got := set.OfSlot(slot)[0]; !isSame(got, before.OfSlot(slot)[0]) {
			t.Errorf("slot %d has another socket", slot)
		}
	}
	if set.Info()[0].Address != before.Info()[0].Address {
		t.Errorf("address %s, want %s", set.Info()[0].Address, before.Info()[0].Address)
	}
}

// If sockets for each worker are not available, there is one, and one warning.
func TestFallBack(t *testing.T) {
	var log bytes.Buffer
	set := newSet(t, Config{Command: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	if got := slots(set.Hand(0)); !slices.Equal(got, []int{marker.FellBack}) || strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("slots %v, log %q", got, log.String())
	}
	if _, err := newSet(t, Config{}).ListenPerWorker("tcp", "192.0.2.1:1"); err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an address that is not this machine's: %v", err)
	}
}

// A failed ListenPerWorker leaves no descriptor open.
func TestListenPerWorkerLeaksNothing(t *testing.T) {
	set := newSet(t, Config{MaxWorkers: func() int { return 4 }})
	before := openFiles(t)
	for range 3 {
		if _, err := set.ListenPerWorker("tcp", "192.0.2.1:1"); err == nil {
			t.Fatal("listens on an address that is not this machine's")
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// newWorker returns the sockets of a worker of a slot, and the messages that it
// sends.
func newWorker(t *testing.T, set *Set, slot int) (in *Inherited, sent *[]wire.Message) {
	t.Helper()
	given := set.Hand(slot)
	for i := range given {
		given[i].FD = copied(t, given[i].FD)
	}
	sent = new([]wire.Message)
	return NewInherited(given, func(m wire.Message) { *sent = append(*sent, m) }), sent
}

// wantSent checks and forgets the messages that a worker has sent.
func wantSent(t *testing.T, sent *[]wire.Message, want ...wire.Message) {
	t.Helper()
	if !slices.Equal(*sent, want) {
		t.Errorf("sent %#v, want %#v", *sent, want)
	}
	*sent = nil
}

// A worker accepts from the sockets of other slots, and reports when it begins to
// accept and when it has closed its listener.
func TestAdopt(t *testing.T) {
	set := newSet(t, Config{MaxWorkers: func() int { return 3 }})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	in, sent := newWorker(t, set, 0)
	ln := listen(t, in.ListenPerWorker, "tcp", "127.0.0.1:0")
	dropped := copied(t, set.OfSlot(2)[0])
	in.Adopt(0, 1, copied(t, set.OfSlot(1)[0]), false)
	in.Adopt(0, 2, dropped, false)
	in.Drop(0, 2)
	in.Drop(0, 2)
	in.Drop(3, 1) // no such group
	wantSent(t, sent)
	for _, slot := range []int{0, 1} {
		if err := set.steerTo(slot); err != nil {
			t.Skip(err)
		}
		connect(t, ln)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	wantSent(t, sent, wire.Accepting{}, wire.ListenerClosed{})
	if err := ln.Close(); err == nil {
		t.Error("second Close succeeds")
	}
	wantSent(t, sent)
}

// A worker that polls the listener, and accepts only if it is readable, accepts.
func TestPollingIsAccepting(t *testing.T) {
	set := newSet(t, Config{})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	in, sent := newWorker(t, set, 0)
	ln := listen(t, in.ListenPerWorker, "tcp", "127.0.0.1:0")
	for range 2 {
		if _, err := ln.(syscall.Conn).SyscallConn(); err != nil {
			t.Error(err)
		}
	}
	wantSent(t, sent, wire.Accepting{})
}

// A worker reports each socket that it cannot adopt, and not one that it has
// already: the manager sends it again after a Drop to another worker failed. No
// descriptor is left open.
func TestAdoptFails(t *testing.T) {
	set := newSet(t, Config{})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	in, sent := newWorker(t, set, 0)
	early := copied(t, set.OfSlot(1)[0])
	in.Adopt(0, 1, early, false) // no manager does that before the worker accepts
	if isOpen(early) {
		t.Error("a socket that came before ListenPerWorker is open")
	}
	ln := listen(t, in.ListenPerWorker, "tcp", "127.0.0.1:0")
	wantSent(t, sent)
	in.Adopt(0, 1, -1, false)
	wantSent(t, sent, wire.AdoptFailed{Slot: 1})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	in.Adopt(0, 7, copied(t, int(r.Fd())), false)
	wantSent(t, sent, wire.AdoptFailed{Slot: 7})
	for range 2 {
		in.Adopt(0, 1, copied(t, set.OfSlot(1)[0]), false)
	}
	wantSent(t, sent)
	ln.Close()
	*sent = nil
	late := copied(t, set.OfSlot(1)[0])
	in.Adopt(0, 1, late, false)
	if isOpen(late) {
		t.Error("a socket that came after Close is open")
	}
	wantSent(t, sent)
}

// An Accept that fails for want of descriptors is reported, and not each of many.
func TestAcceptFails(t *testing.T) {
	set := newSet(t, Config{})
	listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
	in, sent := newWorker(t, set, 0)
	ln := listen(t, in.ListenPerWorker, "tcp", "127.0.0.1:0").(*ownListener)
	now := time.Now()
	for _, at := range []time.Duration{0, 1, failurePause - 1, failurePause, failurePause + 1, 3 * failurePause} {
		ln.reportFailed(now.Add(at))
	}
	wantSent(t, sent, wire.AcceptFailed{}, wire.AcceptFailed{}, wire.AcceptFailed{})
	for err, want := range map[error]bool{
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.ENOBUFS: true, syscall.ENOMEM: true,
		net.ErrClosed: false, syscall.EINVAL: false, os.ErrDeadlineExceeded: false,
	} {
		if got := isShortage(&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}); got != want {
			t.Errorf("%v: %t, want %t", err, got, want)
		}
	}
}

// steerTo directs new connections of the first group to one slot.
func (set *Set) steerTo(slot int) error {
	g := set.groups()[0]
	g.steered = false
	set.Steer(0, accepting(1, slot))
	if !g.steered || !slices.Equal(g.live, []int{slot}) {
		return errors.New("not steered")
	}
	return nil
}

// A standby's own socket arrives with its slot, before or after ListenPerWorker.
func TestStandbyOwnSocket(t *testing.T) {
	for _, early := range []bool{false, true} {
		set := newSet(t, Config{})
		listen(t, set.ListenPerWorker, "tcp", "127.0.0.1:0")
		awaited := set.Hand(marker.NoSlot)[0]
		var err error
		if awaited.FD, err = fd.Duplicate(uintptr(awaited.FD)); err != nil {
			t.Fatal(err)
		}
		own, err := fd.Duplicate(uintptr(set.OfSlot(1)[0]))
		if err != nil {
			t.Fatal(err)
		}
		in := NewInherited([]marker.Socket{awaited}, func(wire.Message) {})
		if early {
			in.Adopt(0, 1, own, true)
		}
		ln := listen(t, in.ListenPerWorker, "tcp", "127.0.0.1:0")
		if !early {
			in.Adopt(0, 1, own, true)
		}
		if err := set.steerTo(1); err != nil {
			t.Skip(err)
		}
		connect(t, ln)
	}
}

// connect makes a connection, which ln must accept.
func connect(t *testing.T, ln net.Listener) {
	t.Helper()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
}
