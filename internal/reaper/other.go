//go:build !linux

package reaper

import (
	"errors"
	"syscall"
)

// Supported tells whether this system can have reapers.
const Supported = false

// Run is not for this system.
func Run(string, []string, []string, func(pid, fd int) string) {}

// A Link is a manager's socket to its reaper.
type Link struct{}

// Join fails.
func Join(int, int) (*Link, error) { return nil, errors.ErrUnsupported }

func (*Link) PID() int                       { return 0 }
func (*Link) FD() int                        { return -1 }
func (*Link) Wait()                          {}
func (*Link) Successor(int)                  {}
func (*Link) Ended(int, int, syscall.Signal) {}
