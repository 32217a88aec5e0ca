//go:build unix

package self

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/pause"
	"github.com/prefork-go/prefork/internal/reaper"
	"github.com/prefork-go/prefork/internal/wire"
)

// socketpair returns both ends of a control socket.
func socketpair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range fds {
		unix.CloseOnExec(n)
		if err := unix.SetNonblock(n, true); err != nil {
			t.Fatal(err)
		}
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "manager")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// newWorker returns a process that is a worker, and the manager's end of its control
// socket.
func newWorker(t *testing.T, slot int) (*Process, *os.File) {
	t.Helper()
	p := &Process{Role: marker.Worker, Marker: marker.Marker{Slot: slot, Stop: syscall.SIGTERM}, promoted: make(chan string, 1), Interrupted: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.Pause = pause.New(0, func(n int) { p.Send(wire.Paused{N: n}) })
	var manager *os.File
	p.control, manager = socketpair(t)
	return p, manager
}

// receive reads n messages from the process.
func receive(t *testing.T, manager *os.File, n int) (all []wire.Message) {
	t.Helper()
	manager.SetReadDeadline(time.Now().Add(10 * time.Second))
	var buf []byte
	for len(all) < n {
		msg, size, err := wire.Decode(buf)
		if err == nil {
			all, buf = append(all, msg), buf[size:]
			continue
		}
		more := make([]byte, wire.MaxSize)
		got, err := manager.Read(more)
		if err != nil {
			t.Fatalf("after %v: %v", all, err)
		}
		buf = append(buf, more[:got]...)
	}
	return all
}

// recorded are the sockets that a worker was sent.
type recorded struct{ calls []string }

func (r *recorded) Adopt(group, slot, fd int, standby bool) {
	r.calls = append(r.calls, fmt.Sprintf("adopt %d/%d fd %d standby %t", group, slot, fd, standby))
}

func (r *recorded) Unblock() bool  { return false }
func (r *recorded) Unpoll() func() { return func() {} }

func (r *recorded) Drop(group, slot int) {
	r.calls = append(r.calls, fmt.Sprintf("drop %d/%d", group, slot))
}

// Messages may be split anywhere. Each Adopt owns the first descriptor that no
// earlier one used.
func TestHandle(t *testing.T) {
	var data []byte
	for _, msg := range []wire.Message{
		wire.Adopt{Socket: 1, Slot: 4}, wire.Pause{N: 3}, wire.LogLevel{Level: -4}, wire.Adopt{Socket: 0, Slot: 4}, wire.Promote{Slot: 4, Plan: ""},
		wire.Adopt{Socket: 2, Slot: 9}, wire.Drop{Socket: 2, Slot: 9}, wire.Adopt{Socket: 5, Slot: 5},
	} {
		data = wire.Append(data, msg)
	}
	want := []string{
		"adopt 1/4 fd 100 standby true", "adopt 0/4 fd 101 standby true", "adopt 2/9 fd -1 standby false", "drop 2/9",
	}
	for step := 1; step <= len(data); step++ {
		p, _ := newWorker(t, marker.NoSlot)
		r := &recorded{}
		buf, files := make([]byte, 0, wire.MaxSize), []int{100, 101, -1} // none for the last Adopt
		for part := range slices.Chunk(data, step) {
			buf, files = p.handle(append(buf, part...), files, r)
		}
		if !slices.Equal(r.calls, want) || len(buf) > 0 || len(files) > 0 {
			t.Fatalf("%d bytes at a time: %q, want %q; left %q and %v", step, r.calls, want, buf, files)
		}
		if p.Slot() != 4 || !isClosed(p.Pause.Channel(true)) {
			t.Errorf("slot %d, paused %t", p.Slot(), isClosed(p.Pause.Channel(true)))
		}
		if got := p.LogLevel.Level(); got != slog.LevelDebug {
			t.Errorf("the level is %v", got)
		}
		p.handle(wire.Append(nil, wire.Resume{}), nil, r)
		if isClosed(p.Pause.Channel(true)) {
			t.Error("paused after Resume")
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Bytes that are no message are dropped, and what follows is handled.
func TestHandleUnknown(t *testing.T) {
	p, _ := newWorker(t, 0)
	r := &recorded{}
	buf, _ := p.handle([]byte("?and more"), nil, r)
	if len(buf) > 0 {
		t.Errorf("left %q", buf)
	}
	p.handle(wire.Append(buf, wire.Stop{}), nil, r)
	if p.ctx.Err() == nil || !strings.Contains(context.Cause(p.ctx).Error(), "SIGTERM") {
		t.Errorf("after Stop: %v", context.Cause(p.ctx))
	}
}

// Only an interrupt closes Interrupted, also if it follows another stop.
func TestInterrupted(t *testing.T) {
	p, _ := newWorker(t, 0)
	p.handle(wire.Append(nil, wire.Stop{}), nil, nil)
	if p.ctx.Err() == nil || isClosed(p.Interrupted) {
		t.Errorf("after Stop: stopped %t, interrupted %t", p.ctx.Err() != nil, isClosed(p.Interrupted))
	}
	for range 2 {
		p.handle(wire.Append(nil, wire.Stop{Interrupt: true}), nil, nil)
		if !isClosed(p.Interrupted) {
			t.Error("not interrupted after an interrupt")
		}
	}
}

// A standby waits until it has a slot. A second Promote is ignored.
func TestAwaitSlot(t *testing.T) {
	p, manager := newWorker(t, marker.NoSlot)
	p.sockets = &recorded{}
	done := make(chan struct{})
	go func() { p.AwaitSlot(); close(done) }()
	if got := receive(t, manager, 1); got[0] != (wire.Parked{}) {
		t.Errorf("sent %v", got)
	}
	if isClosed(done) {
		t.Error("continues without a slot")
	}
	p.promote(wire.Promote{Slot: 3})
	<-done
	p.promote(wire.Promote{Slot: 7})
	p.AwaitSlot() // returns at once
	if p.Slot() != 3 {
		t.Errorf("slot %d", p.Slot())
	}
}

// The process reads messages with descriptors from its control socket until its
// manager is gone.
func TestFollowManager(t *testing.T) {
	p, manager := newWorker(t, marker.NoSlot)
	// At the end of the socket the process exits: later than this test.
	p.Marker.Orphan = time.Hour
	p.contextUsed.Store(true)
	adopted := make(chan int, 1)
	p.Follow(sockets{adopted})
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := manager.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := fd.Raw(f)
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Control(func(socket uintptr) {
		if err := unix.Sendmsg(int(socket), wire.Append(nil, wire.Adopt{Socket: 1, Slot: 2}), unix.UnixRights(int(raw)), nil, 0); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(<-adopted)
	manager.Write(wire.Append(nil, wire.Stop{}))
	<-p.ctx.Done()
}

type sockets struct{ adopted chan int }

func (s sockets) Adopt(_, _, fd int, _ bool) { s.adopted <- fd }
func (sockets) Drop(int, int)                {}
func (sockets) Unblock() bool                { return false }
func (sockets) Unpoll() func()               { return func() {} }

// A successor takes over when its predecessor hands over, or is gone.
func TestFollowPredecessor(t *testing.T) {
	for name, end := range map[string]func(*os.File){
		"handover": func(f *os.File) { f.Write(wire.Append(nil, wire.TakeOver{})) },
		"in parts": func(f *os.File) {
			data := wire.Append(nil, wire.TakeOver{})
			f.Write(data[:1])
			time.Sleep(10 * time.Millisecond)
			f.Write(data[1:])
		},
		"exit":             func(f *os.File) { f.Close() },
		"unknown and exit": func(f *os.File) { f.Write([]byte("???")); f.Close() },
		"unknown, handover": func(f *os.File) {
			f.Write([]byte("?"))
			time.Sleep(50 * time.Millisecond)
			f.Write(wire.Append(nil, wire.TakeOver{}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Process{Role: marker.Successor, tookOver: make(chan struct{}), oldGone: make(chan struct{})}
			var predecessor *os.File
			p.control, predecessor = socketpair(t)
			p.Follow(nil)
			p.Send(wire.Ready{})
			if got := receive(t, predecessor, 1); got[0] != (wire.Ready{}) {
				t.Errorf("sent %v", got)
			}
			if isClosed(p.TookOver()) {
				t.Error("took over before the handover")
			}
			end(predecessor)
			select {
			case <-p.TookOver():
			case <-time.After(10 * time.Second):
				t.Error("has not taken over")
			}
			predecessor.Close()
			select {
			case <-p.PredecessorGone():
			case <-time.After(10 * time.Second):
				t.Error("the predecessor is not gone")
			}
		})
	}
	if !isClosed(new(Process).TookOver()) || !isClosed(new(Process).PredecessorGone()) {
		t.Error("a process that is no successor has not taken over")
	}
}

// Each Manager needs a name of its own; that of a failed New is free again.
func TestRegister(t *testing.T) {
	p := &Process{}
	for _, step := range []struct {
		name string
		ok   bool
	}{{"", true}, {"", false}, {"a", true}, {"a", false}} {
		if ok := p.Register(step.name); ok != step.ok {
			t.Errorf("Register(%q) = %t", step.name, ok)
		}
	}
	p.Unregister("a")
	p.Unregister("unknown")
	if p.Managers() != 1 || !p.Register("a") || p.Managers() != 2 {
		t.Errorf("%d Managers", p.Managers())
	}
}

// The files for a successor, by name: the last of each name, unless it was closed or
// withdrawn.
func TestPassFile(t *testing.T) {
	open := func(name string) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first, second, closed, withdrawn := open("1"), open("2"), open("3"), open("4")
	p := &Process{}
	p.PassFile("lock", first)
	p.PassFile("closed", closed)
	p.PassFile("withdrawn", withdrawn)
	p.PassFile("lock", second)
	p.PassFile("withdrawn", nil)
	closed.Close()
	files, keep := p.FilesForSuccessor()
	defer keep()
	raw, err := fd.Raw(second)
	if err != nil {
		t.Fatal(err)
	}
	if want := []marker.File{{FD: int(raw), Name: "lock"}}; !slices.Equal(files, want) {
		t.Errorf("%v, want %v", files, want)
	}
	worker := &Process{Role: marker.Worker}
	worker.PassFile("lock", first)
	if files, _ := worker.FilesForSuccessor(); files != nil {
		t.Errorf("a worker passes %v", files)
	}
}

// A passed file belongs to the program that asks for it, once. The others are closed.
func TestPassedFile(t *testing.T) {
	var files []marker.File
	for _, name := range []string{"lock", "log"} {
		n, err := fd.NewBlob([]byte(name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, marker.File{FD: n, Name: name})
	}
	p := &Process{Role: marker.Successor, Marker: marker.Marker{Files: files}}
	unclaimed := files[1].FD
	f := p.PassedFile("lock")
	if f == nil || f.Name() != "lock" {
		t.Fatal("the file is not there")
	}
	defer f.Close()
	if p.PassedFile("lock") != nil || p.PassedFile("unknown") != nil {
		t.Error("a file was returned twice, or without having been passed")
	}
	p.CloseUnclaimedFiles()
	p.CloseUnclaimedFiles()
	if _, err := fd.ReadBlob(unclaimed); err == nil {
		t.Error("a file that the program has not asked for is open")
	}
	if p.PassedFile("log") != nil {
		t.Error("a closed file was returned")
	}
	buf := make([]byte, 10)
	if n, err := f.ReadAt(buf, 0); !bytes.Equal(buf[:n], []byte("lock")) {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

// A worker with a damaged marker is a worker.
func TestIsWorker(t *testing.T) {
	for role, want := range map[marker.Role]bool{marker.Ordinary: false, marker.Worker: true, marker.Successor: false, marker.Damaged: true} {
		if got := (&Process{Role: role}).IsWorker(); got != want {
			t.Errorf("role %v: %t", role, got)
		}
	}
}

// A process that has a reaper, or cannot have one, is not executed again.
func TestBecomeReaper(t *testing.T) {
	if err := (&Process{Role: marker.Successor}).BecomeReaper("/nonexistent", false); err != ErrNoReaper {
		t.Errorf("a successor: %v", err)
	}
	if err := (&Process{Reaper: new(reaper.Link)}).BecomeReaper("/nonexistent", true); err != ErrNoGuard {
		t.Errorf("below a reaper that does not kill: %v", err)
	}
	if err := (&Process{Reaper: new(reaper.Link), Role: marker.Successor}).BecomeReaper("/nonexistent", true); err != ErrNoReaper {
		t.Errorf("a successor below a reaper that does not kill: %v", err)
	}
	for _, kill := range []bool{false, true} {
		if err := (&Process{Reaper: new(reaper.Link), Guard: 1}).BecomeReaper("/nonexistent", kill); err != nil {
			t.Errorf("below a reaper that kills: %v", err)
		}
	}
	if err := new(Process).BecomeReaper("/nonexistent", false); err == nil || !strings.Contains(err.Error(), "/nonexistent") && !strings.Contains(err.Error(), "unsupported") {
		t.Errorf("a file that does not exist: %v", err)
	}
}
