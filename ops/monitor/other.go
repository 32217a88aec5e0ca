//go:build !unix

package monitor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// A Monitor keeps the services of a directory running. Its methods are safe for
// concurrent use, and only Run blocks.
type Monitor struct{}

// New returns an error that matches errors.ErrUnsupported.
func New(Config) (*Monitor, error) {
	return nil, fmt.Errorf("monitor: %s has no signals: %w", runtime.GOOS, errors.ErrUnsupported)
}

func (m *Monitor) Run(context.Context) error { return errors.ErrUnsupported }
func (m *Monitor) Rescan() <-chan struct{}   { return nil }
func (m *Monitor) Shutdown()                 {}
func (m *Monitor) Kill()                     {}
func (m *Monitor) Services() []Status        { return nil }
func (m *Monitor) Do(string, byte) error     { return errors.ErrUnsupported }
func (m *Monitor) Started() bool             { return false }
func (m *Monitor) Changed() <-chan struct{}  { return nil }
func (m *Monitor) isStopping() bool          { return true }
func (m *Monitor) dir() string               { return "" }

func (m *Monitor) haveDown([]string) map[string]bool { return nil }
