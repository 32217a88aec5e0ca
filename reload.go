package prefork

import (
	"context"
	"errors"

	"github.com/prefork-go/prefork/internal/inherit"
)

// accept says whether a signal ends the generation that runs, and whether anything is sent for it.
func (m *Manager) accept(a arrival) (ends, sends bool) {
	switch {
	case a.sig == m.cfg.ShutdownSignal:
		return true, true
	case m.cfg.TrapSignals[a.sig].Upgrade:
		m.changed(SignalEvent{Received: a.sig})
		m.upgrade(context.Background()) // its events say how it came out
		return !m.inRun, false
	case !m.replaces(a.sig):
		if m.inRun {
			m.forward(a)
		}
		return !m.inRun, true
	}
	exe, err := m.fetch()
	if err == nil && m.inRun {
		err = m.reload()
	}
	if err != nil {
		if exe != nil && exe != m.fetched {
			exe.Close()
		}
		m.changed(ReloadFailedEvent{Err: err})
		return !m.inRun, false
	}
	m.fetched = exe
	return true, true
}

// fetch is the file that the next generation is to be started from. It is looked at before anybody is told to stop.
func (m *Manager) fetch() (*inherit.Binary, error) {
	if !m.cfg.ReloadBinary {
		return nil, nil
	}
	exe, err := m.openOnDisk()
	if err == nil && exe.Same(m.fetched) {
		exe.Close()
		return m.fetched, nil
	}
	return exe, err
}

// openOnDisk opens what is now the program's file.
func (m *Manager) openOnDisk() (*inherit.Binary, error) {
	if m.onDisk == "" {
		return nil, errors.New("where the program's file is found cannot be told: start it by a path")
	}
	return inherit.OpenBinary(m.onDisk)
}

func (m *Manager) reload() error {
	if m.cfg.Reload == nil {
		return nil
	}
	m.flushLog()
	data, err := m.cfg.Reload()
	if err == nil {
		m.Pass(data)
	}
	return err
}
