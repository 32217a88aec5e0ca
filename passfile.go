package prefork

import (
	"os"
	"runtime"
	"slices"

	"github.com/prefork-go/prefork/internal/inherit"
)

// Files beside sockets that go from a manager to its successor: a lock, as a rule, which must not be let go of in between. They
// belong to the process and not to a Manager, since they are opened before there is one.

// PassFile has the successor of an upgrade (see Manager.Upgrade) inherit f, which PassedFile returns there under the same name.
// f stays the caller's. Once it is closed, or PassFile was called with nil for that name, it is not handed on any more.
// A successor that is to hand on what it has inherited calls PassFile itself. In a worker it does nothing. Any goroutine.
func PassFile(name string, f *os.File) {
	if self.role == inherit.Worker {
		return
	}
	self.mu.Lock()
	defer self.mu.Unlock()
	self.passedFiles = slices.DeleteFunc(self.passedFiles, func(b passedFile) bool { return b.name == name })
	if f != nil {
		self.passedFiles = append(self.passedFiles, passedFile{name, f})
	}
}

// PassedFile is the file that the manager before this one has passed under a name. It is nil where there is none, in a process that
// is no successor, and for the second call with the same name: the file is the caller's. What nobody has asked for is closed
// when the successor has taken over. Any goroutine, also before New; in a worker it is nil.
//
// The file is one with that of the manager before, as if it had been duplicated: they share its offset, its modes, and a lock by
// flock.
func PassedFile(name string) *os.File {
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

// TookOver returns a channel that is closed in a successor when it has taken over, or the manager before it is gone. In a
// manager that is no successor it is closed from the beginning. Any goroutine, also before New.
func TookOver() <-chan struct{} {
	if self.tookOver != nil {
		return self.tookOver
	}
	c := make(chan struct{})
	close(c)
	return c
}

// HandedOver tells whether a successor has taken over from this process, so that what it has passed on is the successor's. Any goroutine.
func HandedOver() bool { return self.succeeded.Load() }

// passedFile is a file to be handed on.
type passedFile struct {
	name string
	file *os.File
}

// filesForSuccessor are the files for a successor; keep is to be called when it was started.
func (p *process) filesForSuccessor() (files []inherit.File, keep func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	passedFiles := slices.Clone(p.passedFiles)
	for _, b := range passedFiles {
		if fd, err := rawFD(b.file); err == nil { // else it was closed
			files = append(files, inherit.File{FD: int(fd), Name: b.name})
		}
	}
	return files, func() { runtime.KeepAlive(passedFiles) }
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
