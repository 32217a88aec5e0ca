package reuseport

import (
	"fmt"
	"slices"
	"testing"
)

func TestKeepers(t *testing.T) {
	for _, test := range []struct {
		name                string
		own, ready, keepers []int
		live                []int
		moves               []Move
	}{
		{"nothing", nil, nil, nil, nil, nil},
		{"no worker yet", []int{0, 0}, nil, nil, nil, nil},
		{"the first worker keeps all", []int{0, 1, 0}, []int{1}, []int{0, 0, 0}, []int{1}, []Move{{0, 0, 1}, {2, 0, 1}}},
		{"the second takes its own and its share of the rest", []int{0, 1, 2, 0, 0, 0}, []int{1, 2}, []int{1, 0, 1, 1, 1, 1},
			[]int{1, 2}, []Move{{2, 1, 0}, {4, 1, 2}, {5, 1, 2}}},
		{"each serves its own", []int{1, 2}, []int{1, 2}, []int{0, 0}, []int{0, 1}, nil},
		{"a worker dies", []int{1, 0, 3}, []int{1, 3}, []int{0, 0, 0}, []int{0, 2}, []Move{{1, 0, 1}}},
		{"nothing changes", []int{1, 0, 3}, []int{1, 3}, []int{0, 1, 0}, []int{0, 2}, nil},
		{"the keeper dies", []int{0, 0, 3}, []int{3}, []int{0, 1, 0}, []int{2}, []Move{{0, 0, 3}, {1, 1, 3}}},
		{"the slot's next worker is ready", []int{4, 0, 3}, []int{3, 4}, []int{3, 3, 0}, []int{0, 2}, []Move{{0, 3, 0}}},
		{"the last one dies", []int{0, 0}, nil, []int{0, 4}, nil, nil},
		{"and another comes", []int{5, 0}, []int{5}, []int{0, 4}, []int{0}, []Move{{1, 4, 5}}},
		{"shrunk to half: one each", []int{1, 2, 3, 4, 0, 0, 0, 0}, []int{1, 2, 3, 4}, nil, []int{0, 1, 2, 3},
			[]Move{{4, 0, 1}, {5, 0, 2}, {6, 0, 3}, {7, 0, 4}}},
		{"fewer than workers", []int{1, 2, 3, 0, 0}, []int{1, 2, 3}, nil, []int{0, 1, 2}, []Move{{3, 0, 1}, {4, 0, 2}}},
		{"a worker without a socket of its own", []int{1, 0}, []int{1, 7}, nil, []int{0}, []Move{{1, 0, 1}}},
		{"all workers without one", []int{0, 0}, []int{7, 8}, nil, nil, []Move{{0, 0, 7}, {1, 0, 8}}},
		{"the group grew", []int{1, 2, 0}, []int{1, 2}, []int{0, 0}, []int{0, 1}, []Move{{2, 0, 1}}},
	} {
		live, moves := Keepers(test.own, test.ready, test.keepers)
		if !slices.Equal(live, test.live) || !slices.Equal(moves, test.moves) {
			t.Errorf("%s: %v, %v, want %v, %v", test.name, live, moves, test.live, test.moves)
		}
	}
}

// apply does what moves say, and fails where they do not fit.
func apply(t *testing.T, own, keepers []int, moves []Move) []int {
	t.Helper()
	keepers = append(slices.Clone(keepers), make([]int, len(own)-len(keepers))...)
	for _, m := range moves {
		if keepers[m.Index] != m.From || m.From == m.To {
			t.Fatalf("move %+v of a socket that %d keeps", m, keepers[m.Index])
		}
		keepers[m.Index] = m.To
	}
	return keepers
}

// checkRule fails unless the keepers are what the doc comment of Keepers says. before are those of before the moves.
func checkRule(t *testing.T, own, ready, before, keepers []int, live []int, moves []Move) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("own %v, ready %v, keepers %v: %s", own, ready, keepers, fmt.Sprintf(format, args...))
	}
	var wantLive []int
	unattended, stay := 0, make(map[int]int)
	for i, o := range own {
		if o != 0 {
			wantLive = append(wantLive, i)
			if keepers[i] != 0 {
				fail("socket %d has a worker of its own and a keeper", i)
			}
			continue
		}
		unattended++
		if len(ready) > 0 && !slices.Contains(ready, keepers[i]) {
			fail("socket %d is served by nobody", i)
		}
		if i < len(before) && slices.Contains(ready, before[i]) {
			stay[before[i]]++
		}
	}
	if !slices.Equal(live, wantLive) {
		fail("live %v, want %v", live, wantLive)
	}
	if len(ready) == 0 {
		return
	}
	// What must move: sockets without a ready keeper, and what a keeper has above its share.
	share := (unattended + len(ready) - 1) / len(ready)
	must := unattended
	for _, r := range ready {
		must -= min(stay[r], share)
		kept := 0
		for _, k := range keepers {
			if k == r {
				kept++
			}
		}
		if kept > share {
			fail("worker %d keeps %d, its share is %d", r, kept, share)
		}
	}
	adopted := 0
	for _, m := range moves {
		if m.To != 0 {
			adopted++
		}
	}
	if adopted != must {
		fail("%d sockets move, %d must: %v", adopted, must, moves)
	}
}

// Whatever happens to a pool, the rule holds after each step, and a second look changes nothing. A byte of the script
// starts or ends the worker of a slot, or grows the group.
func FuzzKeepers(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 1, 1, 255, 4, 0, 2})
	f.Add([]byte{7, 6, 5, 254, 5, 255, 8, 9, 8, 254, 254, 1})
	f.Add([]byte{100, 101, 0, 100, 1, 2, 3, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		own, without := make([]int, 4), make(map[byte]int) // without a socket of its own: the group could not grow
		var ready, keepers []int
		last := 0
		toggle := func(ordinal *int) {
			if *ordinal != 0 {
				ready = slices.DeleteFunc(ready, func(r int) bool { return r == *ordinal })
				*ordinal = 0
				return
			}
			last++
			ready = append(ready, last)
			*ordinal = last
		}
		for _, step := range script[:min(len(script), 300)] {
			switch {
			case step == 255 && len(own) < 64:
				own = append(own, 0)
			case step == 254: // all die at once
				clear(own)
				clear(without)
				ready = nil
			case step >= 100:
				ordinal := without[step]
				toggle(&ordinal)
				without[step] = ordinal
			default:
				toggle(&own[int(step)%len(own)])
			}
			live, moves := Keepers(own, ready, keepers)
			before := keepers
			keepers = apply(t, own, keepers, moves)
			checkRule(t, own, ready, before, keepers, live, moves)
			if again, moves := Keepers(own, ready, keepers); len(moves) > 0 || !slices.Equal(live, again) {
				t.Fatalf("a second look: %v, %v", again, moves)
			}
		}
	})
}

func BenchmarkKeepersUnchanged(b *testing.B) {
	for _, n := range []int{8, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			own, ready := make([]int, n), make([]int, 0, n)
			for i := range own {
				if i%10 != 0 {
					own[i] = i + 1
					ready = append(ready, i+1)
				}
			}
			keepers := make([]int, n)
			_, moves := Keepers(own, ready, keepers)
			for _, m := range moves {
				keepers[m.Index] = m.To
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, moves := Keepers(own, ready, keepers); moves != nil {
					b.Fatal(moves)
				}
			}
		})
	}
}
