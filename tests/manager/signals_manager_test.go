//go:build unix

package manager_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// checkManager delivers the signal of each column to a Manager in the state of
// the row. The pretended workers ignore every signal until the effect is known.
func checkManager(t *testing.T, row, columns []string) {
	for i, column := range columns[1:] {
		t.Run(column, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := parseSignals(t, strings.Join(columns[1:5], ", "))
				sig := os.Signal(syscall.SIGINT)
				if column != "Ctrl-C" {
					name, _, _ := strings.Cut(column, " → ")
					sig = called(t, name)
				}
				m := newPageManager(t, table, row[0])
				comparePage(t, row[0], row[1+i], m.effect(sig))
				m.end()
			})
		})
	}
}

// pageManager is a Manager in a state of the page.
type pageManager struct {
	*rig
	t        *testing.T
	calls    int       // calls that have not returned
	returned chan bool // of blocking calls
	next     func()    // if no call is in progress: the one after the signal
	waits    bool      // the call is WaitAllChildren
}

func newPageManager(t *testing.T, table prefork.Signals, state string) *pageManager {
	m := &pageManager{t: t, returned: make(chan bool, 2)}
	reload := error(nil)
	cfg := prefork.Config{MaxWorkers: 2, TrapSignals: table, StopTimeout: -1, Reload: func() ([]byte, error) { return nil, reload }}
	m.rig = newRig(t, cfg, nil, func(p *proctest.Process, sig syscall.Signal) {
		if sig == kill {
			p.Exit(proc.Status{Signal: kill})
		}
	})
	start := func() { m.Start() }
	wait := func() { m.WaitAllChildren(context.Background()) }
	switch state {
	case "before the first Start":
		m.next = start
		return m
	case "in Start, StartFunc":
		m.call(start)
		return m
	case "in Run", "in Run, and Reload fails":
		m.call(func() { m.Run(context.Background(), noWork) })
		if state != "in Run" {
			reload = errors.New("a typo")
		}
		return m
	}
	m.call(start)
	m.arrive(syscall.SIGUSR2)
	if !m.hasReturned() {
		t.Fatal("USR2 does not end Start")
	}
	switch state {
	case "between two Starts":
		m.next = start
	case "before WaitAllChildren":
		m.next, m.waits = wait, true
	case "in WaitAllChildren", "stopping, after TERM", "stopping, after Ctrl-C":
		m.call(wait)
		m.waits = true
		if how, stopping := strings.CutPrefix(state, "stopping, after "); stopping {
			m.arrive(map[string]os.Signal{"TERM": term, "Ctrl-C": syscall.SIGINT}[how])
		}
	default:
		t.Fatalf("no such state: %q", state)
	}
	return m
}

// call runs a blocking call in a goroutine, and lets a minute of the bubble
// pass.
func (m *pageManager) call(f func()) {
	m.calls++
	go func() {
		f()
		m.returned <- true
	}()
	synctest.Wait()
	time.Sleep(time.Minute)
}

// hasReturned reports whether a call has returned since the last time that it
// was asked.
func (m *pageManager) hasReturned() bool {
	synctest.Wait()
	select {
	case <-m.returned:
		m.calls--
		return true
	default:
		return false
	}
}

func (m *pageManager) arrive(sig os.Signal) {
	m.Deliver(sig)
	synctest.Wait()
}

// sent returns the signals that the first worker has received.
func (m *pageManager) sent() (all []syscall.Signal) {
	if len(m.fake.Started()) > 0 {
		all = signalsOf(m.process(1))
	}
	return all
}

func (m *pageManager) exitAll() {
	for _, p := range m.fake.Started() {
		p.Exit(proc.Status{})
	}
}

// effect delivers the signal and returns its effect in the words of the page.
func (m *pageManager) effect(sig os.Signal) (text string) {
	before, generation := len(m.sent()), m.Generation()
	m.arrive(sig)
	if m.next != nil {
		if len(m.sent()) > before || m.hasReturned() {
			m.t.Fatal("the signal was not kept")
		}
		text = "kept; "
		m.call(m.next)
	}
	switch all := m.sent(); {
	case len(m.fake.Started()) == 0:
		text += "spawns none"
	case len(all) == before:
		text += "sends nothing"
	default:
		for _, s := range all[before:] {
			text += "sends " + short(s)
		}
	}
	ended := m.hasReturned()
	m.exitAll()
	time.Sleep(time.Minute)
	switch {
	case ended && !m.waits:
		return text + ", returns"
	case m.waits && (ended || m.hasReturned()): // KILL ends the workers, and so the call
		return text + ", waits"
	case m.hasReturned():
		return text + ", ends"
	case m.Generation() > generation:
		return text + ", next generation"
	}
	if m.NumWorkers() != 2 || m.Generation() != generation {
		m.t.Errorf("it continues with %d workers in generation %d after %d", m.NumWorkers(), m.Generation(), generation)
	}
	return text + ", continues"
}

// end ends the calls in progress, for which the bubble would wait.
func (m *pageManager) end() {
	for range 3 {
		if m.hasReturned() || m.calls == 0 {
			break
		}
		m.arrive(term)
		m.exitAll()
	}
	m.hasReturned()
	if m.NumWorkers() > 0 {
		m.WaitAllChildren(context.Background())
	}
}
