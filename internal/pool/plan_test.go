//go:build unix

package pool

import "testing"

// requested returns a pool of one slot for which Plan has requested a spawn.
func requested(t *testing.T) (*Pool, Step) {
	t.Helper()
	p := New(usual(1))
	p.Apply(0, Event{Kind: Begin})
	st := p.Plan(0)
	want(t, "step", st, Step{SpawnDue: true, Gen: 1, Ordinal: 1, Wake: Never})
	return p, st
}

func TestPlanIsRepeatable(t *testing.T) {
	p, st := requested(t)
	want(t, "second plan", p.Plan(0), st)
	p.Apply(0, Event{Kind: Spawned})
	want(t, "plan after the spawn", p.Plan(0), Step{Ordinal: 2, Wake: Never})
}

// Only the next event answers a spawn request. After any other event the
// request has lapsed, even if the slot is still empty.
func TestSpawnRequestLapses(t *testing.T) {
	p, _ := requested(t)
	p.Apply(0, Event{Kind: Tick})
	panics := func() (panics bool) {
		defer func() { panics = recover() != nil }()
		p.Apply(0, Event{Kind: Spawned})
		return false
	}
	want(t, "Spawned panics", panics(), true)
	want(t, "workers", p.Len(), 0)
	want(t, "spawn due in the next plan", p.Plan(0).SpawnDue, true)
}

// Time may pass between Apply and Plan. A slot that becomes due in between goes
// to a parked standby with the next event, and not to a spawn.
func TestPlanLeavesDueSlotsToStandbys(t *testing.T) {
	cfg := usual(2)
	cfg.Standby, cfg.SpawnInterval = 1, sec
	s := begun(t, cfg)
	s.until(2100 * ms)
	s.readyAll()
	want(t, "parked standbys", s.count(StateStandby), 1)
	s.do(Event{Kind: Resize, N: 3})
	want(t, "Wake", s.wake, 3*sec)
	s.p.Apply(2900*ms, Event{Kind: Tick})
	st := s.p.Plan(3100 * ms)
	want(t, "spawn due", st.SpawnDue, false)
	want(t, "Wake", st.Wake, 3*sec)
	effects := s.p.Apply(3100*ms, Event{Kind: Tick})
	want(t, "effect", effects[0], Effect{Kind: Change, ID: 3, Slot: 2, From: StateStandby, To: StateStarting})
}
