package self

import (
	"os"
	"runtime"
	"slices"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
)

// passedFile is a file for a successor.
type passedFile struct {
	name string
	file *os.File
}

// PassFile adds a file for a successor; a nil file withdraws the name.
// In a worker it is a no-op.
func (p *Process) PassFile(name string, f *os.File) {
	if p.Role == marker.Worker {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passedFiles = slices.DeleteFunc(p.passedFiles, func(b passedFile) bool { return b.name == name })
	if f != nil {
		p.passedFiles = append(p.passedFiles, passedFile{name, f})
	}
}

// PassedFile returns the file that the predecessor passed under a name, once.
func (p *Process) PassedFile(name string) *os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, f := range p.Marker.Files {
		if f.Name == name {
			p.Marker.Files = slices.Delete(p.Marker.Files, i, i+1)
			return os.NewFile(uintptr(f.FD), name)
		}
	}
	return nil
}

// TakeDescriptors notes the descriptors with which this process was started, and
// keeps them from the processes that it starts. The first New of a manager calls
// it: before that a program may pass them to processes of its own.
func (p *Process) TakeDescriptors() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started == nil {
		p.started = append([]fd.Started{}, fd.TakeStarted()...)
	}
}

// Started returns the descriptors with which this process was started.
func (p *Process) Started() []fd.Started {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}

// FilesForSuccessor returns the files for a successor. The caller must call keep
// after it has started the process.
func (p *Process) FilesForSuccessor() (files []marker.File, keep func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.passedFiles)
	for _, b := range all {
		if descriptor, err := fd.Raw(b.file); err == nil { // else the program has closed it
			files = append(files, marker.File{FD: int(descriptor), Name: b.name})
		}
	}
	return files, func() { runtime.KeepAlive(all) }
}

// CloseUnclaimedFiles closes the files that the program has not asked for.
func (p *Process) CloseUnclaimedFiles() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.Marker.Files {
		fd.Close(f.FD)
	}
	p.Marker.Files = nil
}
