package proc

import (
	"io"
	"slices"
	"sync"
	"syscall"
)

// A Fake is a Table without processes, for tests: a test makes its processes speak and end. It keeps to the contract of
// Table and Process as the real ones do. Its methods may be called by any goroutine; it starts none itself, so that
// notify is called by the goroutine that makes something happen.
type Fake struct {
	// OnStart is called for each process started, OnSignal for each signal to a process that has not ended, and
	// OnGroupSignal for each to a group of which others than its leader are left; all before Start, Signal or SignalGroup
	// returns, with no lock held. Any may be nil. SIGKILL ends a process after OnSignal, and its group after OnGroupSignal.
	OnStart       func(*FakeProcess)
	OnSignal      func(*FakeProcess, syscall.Signal)
	OnGroupSignal func(*FakeProcess, syscall.Signal)

	notify func(Note)

	mu       sync.Mutex // guards what follows, and the unexported fields of all processes
	closed   bool
	failures []error
	procs    []*FakeProcess
}

// NewFake returns a Fake that calls notify for what its processes have to say.
func NewFake(notify func(Note)) *Fake { return &Fake{notify: notify} }

func (f *Fake) Name() string { return "fake" }

// FailNext makes the next n calls of Start return err.
func (f *Fake) FailNext(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, slices.Repeat([]error{err}, n)...)
}

// Started returns the processes started until now, those that have ended as well, in the order of their starts.
func (f *Fake) Started() []*FakeProcess {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.procs)
}

func (f *Fake) Start(id uint64, spec Spec) (Process, error) {
	p, err := f.start(id, spec)
	if err != nil {
		return nil, err
	}
	if f.OnStart != nil {
		f.OnStart(p)
	}
	return p, nil
}

func (f *Fake) start(id uint64, spec Spec) (*FakeProcess, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed()
	}
	if len(f.failures) > 0 {
		err := f.failures[0]
		f.failures = f.failures[1:]
		return nil, err
	}
	p := &FakeProcess{ID: id, Spec: spec, f: f, armed: true, hungUp: spec.Control == 0}
	f.procs = append(f.procs, p)
	return p, nil
}

func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// A FakeProcess is a process of a Fake: Say, Hangup, Fork, Abandon, Falter and Exit are what a test does in its place, the rest is
// Process. It leads a process group.
type FakeProcess struct {
	ID   uint64
	Spec Spec

	f       *Fake
	others  bool // there are others in its group
	looks   int  // calls of Rest
	signals []syscall.Signal
	group   []syscall.Signal
	unread  []byte // what it said and the owner has not read
	written []byte // what the owner wrote
	files   []int  // the descriptors beside it
	armed   bool   // a Readable note may be sent
	hungUp  bool
	ended   bool
	reaped  bool
	status  Status

	foretold, falters bool
}

// Say makes the process write data to its control socket. It is lost once the process has hung up.
func (p *FakeProcess) Say(data []byte) {
	p.change(func() {
		if !p.hungUp {
			p.unread = append(p.unread, data...)
		}
	})
}

// Hangup makes the process close its control socket.
func (p *FakeProcess) Hangup() {
	p.change(func() { p.hungUp = true })
}

// Exit makes the process end; that closes its control socket. If it has ended already, nothing happens.
func (p *FakeProcess) Exit(status Status) {
	p.change(func() {
		if !p.ended {
			p.ended, p.hungUp, p.status = true, true, status
		}
	})
}

// Falter makes the process be about to end, if that was to be foretold.
func (p *FakeProcess) Falter() {
	p.f.mu.Lock()
	foretold := p.foretold
	p.falters = true
	p.f.mu.Unlock()
	if foretold {
		p.f.notify(Note{p.ID, Ending})
	}
}

// Foretell has Falter send a note.
func (p *FakeProcess) Foretell() {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.foretold = true
}

func (p *FakeProcess) Ending() bool {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return p.falters
}

// Fork has the process start others in its group, which live until Abandon, or a SIGKILL to the group.
func (p *FakeProcess) Fork() {
	p.change(func() { p.others = true })
}

// Abandon ends all in the group but the process itself. No note comes of that.
func (p *FakeProcess) Abandon() {
	p.change(func() { p.others = false })
}

// GroupSignals returns what was sent to the group of the process, also after its end, while anybody was in it.
func (p *FakeProcess) GroupSignals() []syscall.Signal {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return slices.Clone(p.group)
}

// Looks returns how often Rest was called.
func (p *FakeProcess) Looks() int {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return p.looks
}

// Signals returns what was sent to the process, alone or with its group, before it ended.
func (p *FakeProcess) Signals() []syscall.Signal {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return slices.Clone(p.signals)
}

// Unread returns how many bytes the owner has not read yet.
func (p *FakeProcess) Unread() int {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return len(p.unread)
}

// Written returns what the owner has written to the control socket.
func (p *FakeProcess) Written() []byte {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return slices.Clone(p.written)
}

// Files returns the descriptors that the owner has written with WriteFile, as bare numbers: they may be closed by now.
func (p *FakeProcess) Files() []int {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return slices.Clone(p.files)
}

// Pid returns a number that no kernel gives to a process, so that a signal sent past the Table hits nobody.
func (p *FakeProcess) Pid() int { return 1<<30 + int(p.ID) }

func (p *FakeProcess) Signal(sig syscall.Signal) error {
	p.f.mu.Lock()
	ended := p.ended
	if !ended {
		p.signals = append(p.signals, sig)
	}
	p.f.mu.Unlock()
	if ended {
		return nil
	}
	if p.f.OnSignal != nil {
		p.f.OnSignal(p, sig)
	}
	if sig == syscall.SIGKILL {
		p.Exit(Status{Signal: sig})
	}
	return nil
}

func (p *FakeProcess) SignalGroup(sig syscall.Signal) error {
	if !p.Spec.Group {
		return p.Signal(sig)
	}
	p.f.mu.Lock()
	others := p.others
	if !p.reaped || others {
		p.group = append(p.group, sig)
	}
	p.f.mu.Unlock()
	err := p.Signal(sig)
	if !others {
		return err
	}
	if p.f.OnGroupSignal != nil {
		p.f.OnGroupSignal(p, sig)
	}
	if sig == syscall.SIGKILL {
		p.Abandon()
	}
	return err
}

func (p *FakeProcess) Rest() bool {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if !p.Spec.Group {
		return false
	}
	p.looks++
	return p.reaped && p.others
}

func (p *FakeProcess) Reap() (Status, *syscall.Rusage, bool) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	switch {
	case p.reaped:
		return Status{Unknown: true}, nil, true
	case !p.ended:
		return Status{}, nil, false
	}
	p.reaped, p.unread = true, nil
	if p.status.Unknown {
		return p.status, nil, true
	}
	return p.status, new(syscall.Rusage), true
}

func (p *FakeProcess) Read(b []byte) (int, error) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	switch {
	case len(p.unread) > 0:
		n := copy(b, p.unread)
		p.unread = p.unread[n:]
		return n, nil
	case p.hungUp:
		p.armed = false
		return 0, io.EOF
	}
	p.armed = true
	return 0, ErrWouldBlock
}

func (p *FakeProcess) Write(b []byte) (int, error) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.hungUp {
		return 0, syscall.EPIPE
	}
	p.written = append(p.written, b...)
	return len(b), nil
}

func (p *FakeProcess) WriteFile(b []byte, fd int) error {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.hungUp {
		return syscall.EPIPE
	}
	p.written, p.files = append(p.written, b...), append(p.files, fd)
	return nil
}

// change applies what happens to the process and sends the notes that follow from it, the lock released.
func (p *FakeProcess) change(happen func()) {
	p.f.mu.Lock()
	hadEnded := p.ended
	happen()
	var notes []Note
	if p.armed && p.Spec.Control != 0 && (len(p.unread) > 0 || p.hungUp) && !p.reaped {
		p.armed = false
		notes = append(notes, Note{p.ID, Readable})
	}
	if p.ended && !hadEnded {
		notes = append(notes, Note{p.ID, Exited})
	}
	if p.f.closed {
		notes = nil
	}
	p.f.mu.Unlock()
	for _, n := range notes {
		p.f.notify(n)
	}
}
