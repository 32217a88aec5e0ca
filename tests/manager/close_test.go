//go:build unix

package manager_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// Close refuses while anything of the Manager is left or under way, and says what.
func TestCloseRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  prefork.Config
		act  func(*testing.T, *rig) // in the hook, or after Start
		want string
	}{
		"workers":  {prefork.Config{MaxWorkers: 2}, nil, "2 processes are left"},
		"standbys": {prefork.Config{MaxWorkers: 1, Standby: 2}, nil, "3 processes are left"},
		"exited, not reaped": {prefork.Config{MaxWorkers: 1}, func(t *testing.T, r *rig) {
			r.process(1).Exit(proc.Status{})
			synctest.Wait()
		}, "1 processes are left"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, test.cfg, nil, nil)
				time.AfterFunc(time.Second, func() { r.Deliver(hup) })
				r.Start()
				if test.act != nil {
					test.act(t, r)
				}
				if err := r.Close(); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("Close = %v, want %q", err, test.want)
				}
				r.shutDown() // it works as before
				if err := r.Close(); err != nil {
					t.Errorf("Close after the shutdown: %v", err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var hook error
		r := newRig(t, prefork.Config{MaxWorkers: 1, AfterSpawn: func(m *prefork.Manager, _ int) { hook = m.Close() }}, nil, nil)
		done := r.startRun(context.Background())
		time.Sleep(time.Second)
		synctest.Wait()
		if err := r.Close(); err == nil || hook == nil || !strings.Contains(err.Error(), "blocking call") {
			t.Errorf("Close = %v during Run, %v in a hook", err, hook)
		}
		r.Shutdown()
		<-done
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, StopGroup: true, StopTimeout: time.Hour}, nil, nil)
		time.AfterFunc(time.Second, func() { r.Deliver(term) })
		r.fake.OnStart = func(p *proctest.Process) { p.Fork(); reachStart(p) }
		r.Start()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r.WaitAllChildren(ctx)
		if err := r.Close(); err == nil {
			t.Error("Close with leftover processes")
		}
		r.process(1).ExitForked()
		r.WaitAllChildren(context.Background())
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Close gives back the name, the sockets with their files, and the traps; what is
// called after it says so or does nothing.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	released := 0
	for range 3 {
		r := &rig{t: t, name: t.Name()}
		m, err := r.newManager(prefork.Config{Name: r.name, TrapSignals: hupAndTerm}, options{onStart: reachStart, onSignal: endOnTerm})
		if err != nil {
			t.Fatal(err)
		}
		r.released = &released
		ln, err := m.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Errorf("the second Close: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file of the socket is there: %v", err)
		}
		if _, err := net.Dial("unix", path); err == nil {
			t.Error("the socket is open")
		}
		if err := ln.Close(); err == nil {
			t.Error("the listener is open")
		}
		if ln, err := m.Listen("unix", path); err == nil || ln != nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("Listen after Close = %v, %v", ln, err)
		}
		m.Deliver(hup)
		m.Shutdown()
		m.Hold(0)
		m.SetMaxWorkers(3)
		if _, err := m.Reload(context.Background(), prefork.Forward{}); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("Reload after Close: %v", err)
		}
		if text := panics(func() { m.Start() }); !strings.Contains(text, "after Close") {
			t.Errorf("Start after Close panics with %q", text)
		}
		if s := m.Snapshot(); s.Name != r.name || s.Loop.Call != "" {
			t.Errorf("Snapshot after Close: %+v", s)
		}
		if left := len(r.handlers) - released; left != 0 { // TERM, HUP, INT, PIPE
			t.Errorf("%d of %d traps remain", left, len(r.handlers))
		}
		released = 0
	}
}

// Of several calls at once, one closes.
func TestCloseAtOnce(t *testing.T) {
	for range 200 {
		r := &rig{t: t, name: t.Name()}
		m, err := r.newManager(prefork.Config{Name: r.name, TrapSignals: hupAndTerm}, options{onStart: reachStart, onSignal: endOnTerm})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { m.Close() }) // an error while another closes
		}
		wg.Wait()
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
