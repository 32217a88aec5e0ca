package launch

import (
	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/scoreboard"
)

// Passed is the bytes for one or more generations of workers. The nil Passed
// stands for none.
type Passed struct {
	data []byte
	fd   int // 0 until the first worker needs it
}

// NewPassed copies data.
func NewPassed(data []byte) *Passed {
	return &Passed{data: append(make([]byte, 0, len(data)), data...)}
}

// FD returns the descriptor from which workers read the bytes; 0 for none.
func (p *Passed) FD() (int, error) {
	if p == nil {
		return 0, nil
	}
	if p.fd == 0 {
		descriptor, err := fd.NewBlob(p.data)
		if err != nil {
			return 0, err
		}
		p.fd = descriptor
	}
	return p.fd, nil
}

// Close closes the descriptor.
func (p *Passed) Close() {
	if p != nil && p.fd > 0 {
		fd.Close(p.fd)
		p.fd = 0
	}
}

// NewCell makes the memory in which a worker publishes its status. The caller
// must close the descriptor after it has started the worker.
func NewCell() (cell *scoreboard.Cell, descriptor int, err error) {
	if err = fd.CheckSize(scoreboard.Size); err != nil {
		return nil, -1, err
	}
	if descriptor, err = fd.AnonymousFile(); err != nil {
		return nil, -1, err
	}
	if cell, err = scoreboard.New(descriptor); err != nil {
		fd.Close(descriptor)
	}
	return cell, descriptor, err
}
