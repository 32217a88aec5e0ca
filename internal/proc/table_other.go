//go:build !unix

package proc

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

// New returns a Table whose Start fails with errors.ErrUnsupported: this system
// lacks the features that a Manager needs.
func New(func(Note)) Table { return unsupported{} }

// SignalOwnGroup is a no-op: there are no process groups.
func SignalOwnGroup(syscall.Signal) {}

type unsupported struct{}

func (unsupported) Start(uint64, Spec) (Process, error) {
	return nil, fmt.Errorf("start a worker on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func (unsupported) Close() error { return nil }

func (unsupported) Name() string { return "unsupported" }
