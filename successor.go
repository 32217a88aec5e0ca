package prefork

import (
	"os"
	"path/filepath"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/wire"
)

// The other side of an upgrade: what the successor does until the manager before it has gone.

// watchPredecessor waits until everything is this process's own: because the manager before it says so, or because it is gone.
func (p *process) watchPredecessor() {
	defer close(p.tookOver)
	defer p.control.Close()
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
			buf = buf[:0] // a fault of the other's; its end will tell
		}
	}
}

// succeed makes a successor of a Manager: it tells the one before it when its workers are ready, and then becomes what that was.
func (m *Manager) succeed() {
	m.succeeds, m.inherits, m.steers = true, true, false
	go func() {
		<-self.tookOver
		m.inbox.put(func(*inbox) {})
	}()
}

// inherit makes everything this Manager's own, once the one before it has let go. Where that died early, the program is
// let ask for its sockets first, as it has when it comes to its first generation.
func (m *Manager) inherit() {
	if !m.inherits || m.generation == 0 {
		return
	}
	select {
	case <-self.tookOver:
		m.inherits = false
		m.ownFiles()
	default:
	}
}

// tellReady tells the manager before this one that all workers are ready that there should be.
func (m *Manager) tellReady() {
	if m.succeeds && m.generation > 0 && m.pool.Full() {
		m.succeeds = false
		self.control.Write(wire.Append(nil, wire.Reached{})) // fails only where that is gone, and then this is in its place
	}
}

// tellFailed tells it that this program does not work.
func (m *Manager) tellFailed(why string) {
	if m.succeeds {
		m.succeeds = false
		self.control.Write(wire.Append(nil, wire.Failed{Why: why}))
	}
}

// ownFiles makes the files of the inherited unix sockets this Manager's to remove. What it did not listen on is closed.
func (m *Manager) ownFiles() {
	for _, s := range m.allSockets() {
		if s.ownedBefore == "" {
			continue
		}
		file, err := statSocket(s.ownedBefore)
		if err != nil {
			m.log.Error("the file of a socket is not there any more; nobody can connect to it", "path", s.ownedBefore, "err", err)
			continue
		}
		m.mu.Lock()
		s.file, s.ownedBefore = file, ""
		m.mu.Unlock()
	}
	m.mu.Lock()
	m.steers = true
	m.mu.Unlock()
	self.disinherit()
	for _, s := range self.unclaimed() {
		inherit.Close(s.FD)
		path := s.Address
		if !filepath.IsAbs(path) {
			path = filepath.Join(m.dir, path) // the program may have changed its directory
		}
		if info, err := os.Lstat(path); s.Own && err == nil && info.Mode()&os.ModeSocket != 0 {
			os.Remove(path)
		}
	}
}

// unclaimed takes the sockets that no call of Listen has asked for.
func (p *process) unclaimed() (left []inherit.Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.marker.Sockets {
		if s := &p.marker.Sockets[i]; s.FD >= 0 {
			left = append(left, *s)
			s.FD = -1
		}
	}
	return left
}

// managers is how many Managers this program has.
func (p *process) managers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.names)
}
