package prefork

import (
	"os"
	"runtime"
	"slices"

	"github.com/prefork-go/prefork/internal/inherit"
)

// Files beside sockets that go from a manager to its heir: a lock, as a rule, which must not be let go of in between. They
// belong to the process and not to a Manager, since they are opened before there is one.

// Bequeath has the heir of an upgrade (see Manager.Upgrade) inherit f, which Inherited returns there under the same name.
// f stays the caller's. Once it is closed, or Bequeath was called with nil for that name, it is not handed on any more.
// An heir that is to hand on what it has inherited calls Bequeath itself. In a worker it does nothing. Any goroutine.
func Bequeath(name string, f *os.File) {
	if self.role == inherit.Worker {
		return
	}
	self.mu.Lock()
	defer self.mu.Unlock()
	self.bequests = slices.DeleteFunc(self.bequests, func(b bequest) bool { return b.name == name })
	if f != nil {
		self.bequests = append(self.bequests, bequest{name, f})
	}
}

// Inherited is the file that the manager before this one has bequeathed under a name. It is nil where there is none, in a process that
// is no heir, and for the second call with the same name: the file is the caller's. What nobody has asked for is closed
// when the heir has taken over. Any goroutine, also before New; in a worker it is nil.
//
// The file is one with that of the manager before, as if it had been duplicated: they share its offset, its modes, and a lock by
// flock.
func Inherited(name string) *os.File {
	self.mu.Lock()
	defer self.mu.Unlock()
	for i, f := range self.marker.Files {
		if f.Name == name {
			self.marker.Files = slices.Delete(self.marker.Files, i, i+1)
			return os.NewFile(uintptr(f.FD), name)
		}
	}
	return nil
}

// TookOver returns a channel that is closed in an heir when it has taken over, or the manager before it is gone. In a
// manager that is no heir it is closed from the beginning. Any goroutine, also before New.
func TookOver() <-chan struct{} {
	if self.tookOver != nil {
		return self.tookOver
	}
	c := make(chan struct{})
	close(c)
	return c
}

// Succeeded tells whether an heir has taken over from this process, so that what it has bequeathed is the heir's. Any goroutine.
func Succeeded() bool { return self.succeeded.Load() }

// bequest is a file to be handed on.
type bequest struct {
	name string
	file *os.File
}

// bequeathed are the files for an heir; keep is to be called when it was started.
func (p *process) bequeathed() (files []inherit.File, keep func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bequests := slices.Clone(p.bequests)
	for _, b := range bequests {
		if fd, err := rawFD(b.file); err == nil { // else it was closed
			files = append(files, inherit.File{FD: int(fd), Name: b.name})
		}
	}
	return files, func() { runtime.KeepAlive(bequests) }
}

// disinherit closes what nobody has asked for.
func (p *process) disinherit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.marker.Files {
		inherit.Close(f.FD)
	}
	p.marker.Files = nil
}
