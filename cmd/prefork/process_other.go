//go:build !linux

package main

import (
	"context"
	"errors"
	"syscall"
)

// A process is never had: the system does not report the one that listens on a
// socket.
type process struct{ pid, uid int }

func openPeer(string) (*process, error) {
	return nil, errors.New("the system does not report the process of the manager")
}

func (p *process) close()                      {}
func (p *process) signal(syscall.Signal) error { return errors.ErrUnsupported }
func (p *process) wait(context.Context) error  { return errors.ErrUnsupported }
