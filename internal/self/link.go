package self

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/internal/wire"
)

// Sockets receives the sockets that the manager sends to a running worker.
type Sockets interface {
	Adopt(group, slot, fd int, standby bool)
	Drop(group, slot int)
	Unblock() (open bool)
	Unpoll() (restore func())
}

// Follow starts to follow the manager of a worker, or the predecessor of a
// successor. It is called once, right after Read.
func (p *Process) Follow(sockets Sockets) {
	p.sockets = sockets
	switch p.Role {
	case marker.Worker:
		p.ignoreSignals()
		go p.followManager(sockets)
	case marker.Successor:
		p.ignoreSignals()
		go p.followPredecessor()
	}
}

// ignoreSignals keeps the signals that the marker names from ending this process.
// Their channel is never read, so they have no effect unless the program handles
// them. signal.Ignore would not do: the children of this process would inherit
// it. A signal that this process was started with ignored stays so.
func (p *Process) ignoreSignals() {
	sigs := slices.DeleteFunc(p.Marker.Ignored(), signal.Ignored)
	if len(sigs) == 0 {
		return // Notify without signals means all
	}
	p.ignored = make(chan os.Signal, 1)
	signal.Notify(p.ignored, sigs...)
}

// TrapsSignals ends ignoreSignals in a successor in which the Manager of this name,
// which takes over, now traps the signals of its own table.
func (p *Process) TrapsSignals(name string) {
	if p.Role == marker.Successor && p.ignored != nil && name == p.Marker.Name {
		signal.Stop(p.ignored)
	}
}

// NoteTrap notes that a Manager in this process traps a signal, until the
// returned function is called.
func (p *Process) NoteTrap(sig os.Signal) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trapped = append(p.trapped, sig)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if i := slices.Index(p.trapped, sig); i >= 0 {
			p.trapped = slices.Delete(p.trapped, i, i+1)
		}
	}
}

// Trapped returns the signals that the Managers in this process trap, in the
// order of their numbers.
func (p *Process) Trapped() (sigs []syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sig := range p.trapped {
		sigs = append(sigs, sig.(syscall.Signal))
	}
	slices.Sort(sigs)
	return slices.Compact(sigs)
}

// Send sends a message to the manager. It fails only if the manager has exited,
// which followManager notices.
func (p *Process) Send(msg wire.Message) { p.control.Write(wire.Append(nil, msg)) }

var errManagerGone = errors.New("prefork: the manager is gone")

// followManager reads messages until the end of the socket, by which the kernel
// reports the death of the manager: without polling, and also if the parent's
// pid tells nothing, as in a container whose process 1 the manager is. Its
// goroutine also keeps a worker that waits for nothing else (select {}) from
// dying of "all goroutines are asleep".
func (p *Process) followManager(sockets Sockets) {
	conn, err := p.control.SyscallConn()
	buf, files := make([]byte, 0, wire.MaxSize), []int{}
	for err == nil {
		n, came := 0, []int(nil)
		n, came, err = fd.ReadControl(conn, buf[len(buf):cap(buf)])
		buf, files = p.handle(buf[:len(buf)+n], append(files, came...), sockets)
	}
	if p.contextUsed.Load() {
		gone := time.Now()
		p.managerGone.Store(&gone)
		p.stop(errManagerGone)
		p.signalGroup(p.Marker.Stop)
		p.signalGroup(sig.Continue)
		time.Sleep(p.Marker.Orphan)
	}
	p.signalGroup(syscall.SIGKILL)
	syscall.Exit(1)
}

// signalGroup sends a signal to the process group of this worker, if the manager
// would do so. 0 sends nothing.
func (p *Process) signalGroup(sig syscall.Signal) {
	if p.Marker.Group && sig != 0 {
		proc.SignalOwnGroup(sig)
	}
}

// EndGroup is called before a worker exits. If its manager is gone, no other
// process ends the leftover processes of its group, so it first gives them the
// time that they have, and then kills them, together with this one.
func (p *Process) EndGroup() {
	gone := p.managerGone.Load()
	if gone == nil || !p.Marker.Group {
		return
	}
	patience := p.Marker.Orphan
	if p.Marker.StopTime >= 0 {
		patience = min(patience, p.Marker.StopTime)
	}
	time.Sleep(patience - time.Since(*gone))
	p.signalGroup(syscall.SIGKILL)
}

// handle handles the messages in buf, with the descriptors that came with them,
// and returns the remainder of both. Unknown bytes come from a defect of the
// manager and are dropped: the most important event is the end of the socket.
func (p *Process) handle(buf []byte, files []int, sockets Sockets) ([]byte, []int) {
	unread := buf
	for {
		msg, n, err := wire.Decode(unread)
		if err != nil {
			if err != wire.ErrShort {
				unread = nil
			}
			return append(buf[:0], unread...), files
		}
		unread = unread[n:]
		switch msg := msg.(type) {
		case wire.Stop:
			if msg.Interrupt {
				p.interrupt.Do(func() { close(p.Interrupted) })
			}
			p.stop(p.errStopped())
		case wire.Adopt:
			if len(files) > 0 {
				// A standby is sent its own sockets, and no others.
				sockets.Adopt(msg.Socket, msg.Slot, files[0], p.Slot() == marker.NoSlot)
				files = files[1:]
			}
		case wire.Drop:
			sockets.Drop(msg.Socket, msg.Slot)
		case wire.Promote:
			p.promote(msg)
		case wire.TakeOver:
			p.closeSlotTakenOver()
		case wire.Pause:
			p.Pause.Set(msg.N)
		case wire.Resume:
			p.Pause.Set(0)
		case wire.LogLevel:
			p.LogLevel.Set(slog.Level(msg.Level))
		}
	}
}

// stop ends the Context. First it makes sure that the program can end an Accept.
func (p *Process) stop(cause error) {
	p.unblock.Do(func() {
		if p.sockets != nil && p.sockets.Unblock() {
			fd.WakeThreads()
			go p.keepUnblocked()
		}
	})
	p.cancel(cause)
}

// The first and the longest pause between two calls of Unblock.
const (
	unblockPause    = 10 * time.Millisecond
	maxUnblockPause = time.Second
)

// keepUnblocked runs while this worker stops and has sockets that others share:
// another worker that starts may make them blocking again.
func (p *Process) keepUnblocked() {
	for pause := unblockPause; ; pause = min(2*pause, maxUnblockPause) {
		time.Sleep(pause)
		open := p.sockets.Unblock()
		fd.WakeThreads() // also if the program has closed its listener: Close waits for the Accept
		if !open {
			return
		}
	}
}

// errStopped is the cause of a Context that ended by the stop signal.
func (p *Process) errStopped() error {
	return fmt.Errorf("prefork: stopped by %s", sig.Name(p.Marker.Stop))
}

// Context returns the context of a worker. Until its first call the stop signal
// keeps its default effect.
func (p *Process) Context() context.Context {
	p.notify.Do(func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, p.Marker.Stop)
		p.cell.UseContext()
		p.contextUsed.Store(true) // after Notify: followManager may send that signal
		go func() {
			<-c
			p.stop(p.errStopped())
		}()
	})
	return p.ctx
}

// AwaitSlot returns at once in a worker that has a slot. A standby waits until
// the manager gives it one; if the manager stops it first, the process exits.
func (p *Process) AwaitSlot() {
	if p.Slot() != marker.NoSlot {
		return
	}
	defer p.sockets.Unpoll()()
	p.Send(wire.Parked{})
	select {
	case plan := <-p.promoted:
		p.apply(plan)
	case <-p.ctx.Done():
		syscall.Exit(0)
	}
}

// promote gives a standby its slot.
func (p *Process) promote(msg wire.Promote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Marker.Slot == marker.NoSlot {
		p.Marker.Slot = msg.Slot
		p.promoted <- msg.Plan
	}
}

// SlotTakenOver returns a channel that is closed when this worker is the only one
// of its slot. The first call asks the manager.
func (p *Process) SlotTakenOver() <-chan struct{} {
	p.awaitTakeOver.Do(func() { p.Send(wire.AwaitTakeOver{}) })
	return p.slotTakenOver
}

func (p *Process) closeSlotTakenOver() {
	select {
	case <-p.slotTakenOver: // a manager sends it once
	default:
		close(p.slotTakenOver)
	}
}

// Passed reads the bytes that the manager passed to this worker's generation;
// nil if it passed none.
func (p *Process) Passed() ([]byte, error) {
	if p.Marker.Passed == 0 {
		return nil, nil
	}
	return fd.ReadBlob(p.Marker.Passed)
}

// TookOver returns a channel that is closed when a successor has taken over, or
// its predecessor is gone. In a process that is not a successor it is closed.
func (p *Process) TookOver() <-chan struct{} {
	if p.tookOver != nil {
		return p.tookOver
	}
	return closedChannel()
}

// PredecessorGone returns a channel that is closed when the predecessor of this
// process has exited, which it does after its last worker. In a process that is
// not a successor it is closed.
func (p *Process) PredecessorGone() <-chan struct{} {
	if p.oldGone != nil {
		return p.oldGone
	}
	return closedChannel()
}

func closedChannel() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// followPredecessor waits until the predecessor is gone.
func (p *Process) followPredecessor() {
	defer close(p.oldGone)
	defer p.control.Close()
	p.awaitHandOver()
	for buf := make([]byte, wire.MaxSize); ; {
		if _, err := p.control.Read(buf); err != nil {
			return
		}
	}
}

// awaitHandOver waits until everything belongs to this process: because its
// predecessor has handed over, or is gone.
func (p *Process) awaitHandOver() {
	defer close(p.tookOver)
	buf := make([]byte, 0, wire.MaxSize)
	for {
		n, err := p.control.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
		if msg, _, err := wire.Decode(buf); err != wire.ErrShort {
			if _, ok := msg.(wire.TakeOver); ok {
				return
			}
			buf = buf[:0] // a defect of the predecessor, whose exit ends the loop
		}
	}
}
