package scoreboard

import (
	"testing"
	"time"
)

func TestStall(t *testing.T) {
	const sec = time.Second
	type observation struct {
		at      time.Duration
		status  Status
		stalled time.Duration
	}
	none, idle := Status{C: None}, Status{C: Idle, Changes: 1}
	busy, again := Status{C: 'R', Changes: 1}, Status{C: 'R', Changes: 2}
	heartbeat := Status{C: 'R', Changes: 1, Heartbeats: 1}
	served := Status{C: 'R', Changes: 1, Heartbeats: 1, Served: 1}
	same := Status{C: 'R', Changes: 2, Heartbeats: 1, Served: 1}
	damaged := Status{C: '?', Damaged: true}
	for name, observations := range map[string][]observation{
		"never busy":              {{0, none, 0}, {9 * sec, none, 0}, {20 * sec, idle, 0}, {40 * sec, idle, 0}},
		"first seen late":         {{50 * sec, busy, 0}, {51 * sec, busy, sec}, {53 * sec, busy, 3 * sec}},
		"each counts as progress": {{0, busy, 0}, {sec, heartbeat, 0}, {3 * sec, served, 0}, {6 * sec, same, 0}, {10 * sec, same, 4 * sec}},
		"busy after a long idle":  {{0, idle, 0}, {90 * sec, again, 0}, {91 * sec, again, sec}},
		"busy again":              {{0, busy, 0}, {9 * sec, again, 0}, {10 * sec, again, sec}},
		"damaged has no progress": {{0, busy, 0}, {sec, damaged, 0}, {3 * sec, damaged, 2 * sec}},
		"observed twice at once":  {{sec, busy, 0}, {sec, busy, 0}},
	} {
		var stall Stall
		for i, o := range observations {
			if stalled := stall.Observe(o.status, o.at); stalled != o.stalled {
				t.Errorf("%s: observation %d: stalled for %v, want %v", name, i, stalled, o.stalled)
			}
		}
	}
}

func TestStatusOf(t *testing.T) {
	for _, x := range []struct {
		state uint64
		c     byte
		ok    bool
	}{
		{0, None, true},
		{notifyBusy, None, true},
		{notifyIdle, None, false},
		{'R', 'R', false},
		{oneChange, None, false},
		{statusSet | 'R', 'R', true},
		{statusSet | 'R' | oneChange*3, 'R', true},
		{statusSet | 'R' | notifyIdle, 'R', true},
		{statusSet | 'R' | notifyBusy, 'R', false},
		{statusSet | Idle | notifyBusy, Idle, true},
		{statusSet | Idle | notifyIdle, Idle, false},
		{statusSet | Idle | notifyBits, Idle, false},
		{statusSet | 'R' | notifyBits, 'R', false},
		{statusSet | 'R' | 1<<11, '?', false},
		{statusSet | 'R' | 1<<15, '?', false},
		{^uint64(0), '?', false},
	} {
		c, ok := statusOf(x.state)
		if ok != x.ok || ok && c != x.c {
			t.Errorf("%#x: %q, %t; want %q, %t", x.state, c, ok, x.c, x.ok)
		}
	}
}
