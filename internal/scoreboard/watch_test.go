package scoreboard

import (
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	const sec = time.Second
	type look struct {
		at    time.Duration
		s     Status
		quiet time.Duration
	}
	none, idle := Status{C: None}, Status{C: Idle, Changes: 1}
	busy, again := Status{C: 'R', Changes: 1}, Status{C: 'R', Changes: 2}
	beaten := Status{C: 'R', Changes: 1, Beats: 1}
	served := Status{C: 'R', Changes: 1, Beats: 1, Served: 1}
	same := Status{C: 'R', Changes: 2, Beats: 1, Served: 1}
	damaged := Status{C: '?', Damaged: true}
	for name, looks := range map[string][]look{
		"never busy":              {{0, none, 0}, {9 * sec, none, 0}, {20 * sec, idle, 0}, {40 * sec, idle, 0}},
		"first seen late":         {{50 * sec, busy, 0}, {51 * sec, busy, sec}, {53 * sec, busy, 3 * sec}},
		"each of them is a beat":  {{0, busy, 0}, {sec, beaten, 0}, {3 * sec, served, 0}, {6 * sec, same, 0}, {10 * sec, same, 4 * sec}},
		"busy after a long rest":  {{0, idle, 0}, {90 * sec, again, 0}, {91 * sec, again, sec}},
		"busy again":              {{0, busy, 0}, {9 * sec, again, 0}, {10 * sec, again, sec}},
		"damaged does not move":   {{0, busy, 0}, {sec, damaged, 0}, {3 * sec, damaged, 2 * sec}},
		"looked at twice at once": {{sec, busy, 0}, {sec, busy, 0}},
	} {
		var w Watch
		for i, l := range looks {
			if quiet := w.Look(l.s, l.at); quiet != l.quiet {
				t.Errorf("%s: look %d: quiet for %v, want %v", name, i, quiet, l.quiet)
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
		{bellLow, None, true},
		{bellHigh, None, false},
		{'R', 'R', false},
		{oneChange, None, false},
		{statusSet | 'R', 'R', true},
		{statusSet | 'R' | oneChange*3, 'R', true},
		{statusSet | 'R' | bellHigh, 'R', true},
		{statusSet | 'R' | bellLow, 'R', false},
		{statusSet | Idle | bellLow, Idle, true},
		{statusSet | Idle | bellHigh, Idle, false},
		{statusSet | Idle | bells, Idle, false},
		{statusSet | 'R' | bells, 'R', false},
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
