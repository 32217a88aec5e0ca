//go:build unix

package manager_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/proc"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// SetMaxWorkers and SignalAllChildren in a hook count before the next spawn: a
// program whose hook ends the work after one worker runs one.
func TestHookCountsBeforeNextSpawn(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(*prefork.Config, **rig)
		want int // workers
	}{
		"OnChildReap": {func(cfg *prefork.Config, r **rig) {
			cfg.OnChildReap = func(m *prefork.Manager, _ prefork.Exit) { m.SetMaxWorkers(0) }
		}, 1},
		"Observe": {func(cfg *prefork.Config, r **rig) {
			cfg.Observe = func(ev prefork.Event) {
				if _, ok := ev.(prefork.ExitEvent); ok {
					(*r).SetMaxWorkers(0)
				}
			}
		}, 1},
		"Follow": {func(cfg *prefork.Config, r **rig) {
			cfg.BeforeSpawn = func(m *prefork.Manager, s *prefork.Spawn) {
				if s.Ordinal == 1 {
					m.Follow(func(rec prefork.Record) {
						if _, ok := rec.Event.(prefork.ExitEvent); ok {
							m.SetMaxWorkers(0)
						}
					})
				}
			}
		}, 1},
		"BeforeSpawn": {func(cfg *prefork.Config, r **rig) {
			cfg.BeforeSpawn = func(m *prefork.Manager, s *prefork.Spawn) {
				if s.Ordinal == 2 {
					m.SetMaxWorkers(0)
				}
			}
		}, 1},
		"BeforeSpawn of the first": {func(cfg *prefork.Config, r **rig) {
			cfg.BeforeSpawn = func(m *prefork.Manager, s *prefork.Spawn) { m.SetMaxWorkers(0) }
		}, 0},
		"AfterSpawn": {func(cfg *prefork.Config, r **rig) {
			cfg.MaxWorkers = 2
			cfg.AfterSpawn = func(m *prefork.Manager, _ int) { m.SetMaxWorkers(1) }
			cfg.OnChildReap = func(m *prefork.Manager, _ prefork.Exit) { m.SetMaxWorkers(0) }
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *rig
				cfg := prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1}
				test.set(&cfg, &r)
				r = newRig(t, cfg, func(p *proctest.Process) {
					reachStart(p)
					time.AfterFunc(2*time.Second, func() { p.Exit(proc.Status{}) })
				}, nil)
				done := r.startLoop()
				time.Sleep(time.Minute)
				r.Shutdown()
				<-done
				if n := len(r.fake.Started()); n != test.want {
					t.Errorf("%d workers were started, want %d", n, test.want)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, prefork.Config{MaxWorkers: 1, ErrRespawnInterval: -1, OnChildReap: func(m *prefork.Manager, _ prefork.Exit) {
			m.SignalAllChildren(usr1)
		}}, nil, nil)
		done := r.startLoop()
		time.Sleep(time.Minute)
		r.process(1).Exit(proc.Status{})
		time.Sleep(time.Minute)
		r.wantSignals(2) // it was spawned after the call
		r.Shutdown()
		<-done
	})
}
