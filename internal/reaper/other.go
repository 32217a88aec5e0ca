//go:build !linux

package reaper

import (
	"errors"
	"syscall"
)

// Supported reports whether this system supports reapers.
const Supported = false

// Run does nothing on this system.
func Run(Config) {}

// A Link is a manager's end of the socket to its reaper. No Link exists on this
// system.
type Link struct{}

// Join returns errors.ErrUnsupported.
func Join(int, int) (*Link, error) { return nil, errors.ErrUnsupported }

func (*Link) PID() int                            { return 0 }
func (*Link) FD() int                             { return -1 }
func (*Link) Wait()                               {}
func (*Link) ReportSuccessor(int)                 {}
func (*Link) ReportExit(int, int, syscall.Signal) {}
