package proctest

import (
	"io"
	"slices"
	"syscall"

	"github.com/prefork-go/prefork/internal/proc"
)

// A Process is a pretended process of a Table. It leads a process group. Send,
// CloseControl, Fork, ExitForked, BeginExit and Exit make it act; the other
// methods implement proc.Process or report the owner's calls.
type Process struct {
	ID   uint64
	Spec proc.Spec

	table         *Table
	forked        bool // its group has other members
	leftovers     bool
	leftoverReaps int
	signals       []syscall.Signal
	groupSignals  []syscall.Signal
	unread        []byte // sent and not yet read by the owner
	written       []byte // written by the owner
	files         []int  // descriptors written by the owner
	armed         bool   // a Readable note may be sent
	disconnected  bool
	exited        bool
	reaped        bool
	status        proc.Status
	exitWatched   bool
	exiting       bool
}

// Send makes the process write data to its control socket. The data is lost
// after CloseControl or Exit.
func (p *Process) Send(data []byte) {
	p.change(func() {
		if !p.disconnected {
			p.unread = append(p.unread, data...)
		}
	})
}

// CloseControl makes the process close its control socket.
func (p *Process) CloseControl() {
	p.change(func() { p.disconnected = true })
}

// Exit makes the process exit, which closes its control socket. It is a no-op
// if the process has exited.
func (p *Process) Exit(status proc.Status) {
	p.change(func() {
		if !p.exited {
			p.exited, p.disconnected, p.status = true, true, status
		}
	})
}

// BeginExit makes Exiting report true, and sends an Exiting note if the owner
// has called WatchExit.
func (p *Process) BeginExit() {
	p.table.mu.Lock()
	watched := p.exitWatched
	p.exiting = true
	p.table.mu.Unlock()
	if watched {
		p.table.notify(proc.Note{ID: p.ID, Kind: proc.Exiting})
	}
}

// WatchExit implements proc.Process.
func (p *Process) WatchExit() {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.exitWatched = true
}

// UnwatchExit implements proc.Process.
func (p *Process) UnwatchExit() {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.exitWatched = false
}

// Exiting implements proc.Process.
func (p *Process) Exiting() bool {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return p.exiting
}

// Fork adds other processes to the group. They live until ExitForked, or until
// the group receives SIGKILL.
func (p *Process) Fork() {
	p.change(func() { p.forked = true })
}

// ExitForked ends the other processes of the group. It causes no note, so the
// owner detects it only by ReapLeftovers.
func (p *Process) ExitForked() {
	p.change(func() { p.forked = false })
}

// Signals returns the signals sent to the process, alone or with its group,
// before it exited.
func (p *Process) Signals() []syscall.Signal {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return slices.Clone(p.signals)
}

// GroupSignals returns the signals sent to the group while it had a member,
// even after the process itself exited.
func (p *Process) GroupSignals() []syscall.Signal {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return slices.Clone(p.groupSignals)
}

// LeftoverReaps returns how often ReapLeftovers was called for a process with
// Spec.Group.
func (p *Process) LeftoverReaps() int {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return p.leftoverReaps
}

// Unread returns the number of bytes that the owner has not read yet.
func (p *Process) Unread() int {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return len(p.unread)
}

// Written returns the data that the owner has written to the control socket.
func (p *Process) Written() []byte {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return slices.Clone(p.written)
}

// Files returns the numbers of the descriptors that the owner has written with
// WriteFile. The owner may have closed them since.
func (p *Process) Files() []int {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return slices.Clone(p.files)
}

// Pid returns a number that no kernel gives to a process, so that a signal sent
// to it without the Table reaches no process.
func (p *Process) Pid() int { return 1<<30 + int(p.ID) }

// Signal implements proc.Process.
func (p *Process) Signal(sig syscall.Signal) error {
	p.table.mu.Lock()
	exited := p.exited
	if !exited {
		p.signals = append(p.signals, sig)
	}
	p.table.mu.Unlock()
	if exited {
		return nil
	}
	if p.table.OnSignal != nil {
		p.table.OnSignal(p, sig)
	}
	if sig == syscall.SIGKILL {
		p.Exit(proc.Status{Signal: sig})
	}
	return nil
}

// SignalGroup implements proc.Process.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	if !p.Spec.Group {
		return p.Signal(sig)
	}
	p.table.mu.Lock()
	forked := p.forked
	if !p.reaped || forked {
		p.groupSignals = append(p.groupSignals, sig)
	}
	p.table.mu.Unlock()
	err := p.Signal(sig)
	if !forked {
		return err
	}
	if p.table.OnGroupSignal != nil {
		p.table.OnGroupSignal(p, sig)
	}
	if sig == syscall.SIGKILL {
		p.change(func() { p.forked, p.leftovers = false, false })
	}
	return err
}

// HasLeftovers implements proc.Process.
func (p *Process) HasLeftovers() bool {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return p.leftovers
}

// ReapLeftovers implements proc.Process.
func (p *Process) ReapLeftovers() {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	if p.Spec.Group {
		p.leftoverReaps++
		p.leftovers = p.reaped && p.forked
	}
}

// Reap implements proc.Process.
func (p *Process) Reap() (proc.Status, *syscall.Rusage, bool) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	switch {
	case p.reaped:
		return proc.Status{Unknown: true}, nil, true
	case !p.exited:
		return proc.Status{}, nil, false
	}
	p.reaped, p.unread = true, nil
	p.leftovers = p.Spec.Group && p.forked
	if p.status.Unknown {
		return p.status, nil, true
	}
	return p.status, new(syscall.Rusage), true
}

// Read implements proc.Process.
func (p *Process) Read(b []byte) (int, error) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	switch {
	case len(p.unread) > 0:
		n := copy(b, p.unread)
		p.unread = p.unread[n:]
		return n, nil
	case p.disconnected:
		p.armed = false
		return 0, io.EOF
	}
	p.armed = true
	return 0, proc.ErrWouldBlock
}

// Write implements proc.Process.
func (p *Process) Write(b []byte) (int, error) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	if p.disconnected {
		return 0, syscall.EPIPE
	}
	p.written = append(p.written, b...)
	return len(b), nil
}

// WriteFile implements proc.Process.
func (p *Process) WriteFile(b []byte, fd int) error {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	if p.disconnected {
		return syscall.EPIPE
	}
	p.written, p.files = append(p.written, b...), append(p.files, fd)
	return nil
}

// change applies an action of the process and sends the notes that it causes,
// after it has released the lock.
func (p *Process) change(act func()) {
	p.table.mu.Lock()
	hadExited := p.exited
	act()
	var notes []proc.Note
	if p.armed && p.Spec.Control != 0 && (len(p.unread) > 0 || p.disconnected) && !p.reaped {
		p.armed = false
		notes = append(notes, proc.Note{ID: p.ID, Kind: proc.Readable})
	}
	if p.exited && !hadExited {
		notes = append(notes, proc.Note{ID: p.ID, Kind: proc.Exited})
	}
	if p.table.closed {
		notes = nil
	}
	p.table.mu.Unlock()
	for _, n := range notes {
		p.table.notify(n)
	}
}
