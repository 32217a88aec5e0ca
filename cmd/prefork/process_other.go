//go:build !linux

package main

import (
	"context"
	"os"
	"syscall"
	"time"
)

// A process is a process. Its pid may be used again.
type process struct{ pid int }

func openProcess(pid int) (*process, error) {
	if hasExited(pid) {
		return nil, os.ErrProcessDone
	}
	return &process{pid}, nil
}

func (p *process) close() {}

func (p *process) signal(sig syscall.Signal) error {
	found, err := os.FindProcess(p.pid)
	if err != nil {
		return err
	}
	return found.Signal(sig)
}

// wait waits until the process has exited. The system reports that of a child
// alone, so it looks ten times a second.
func (p *process) wait(ctx context.Context) error {
	for !hasExited(p.pid) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

func waitExit(ctx context.Context, pid int) error { return (&process{pid}).wait(ctx) }
