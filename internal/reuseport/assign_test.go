package reuseport

import (
	"fmt"
	"slices"
	"testing"
)

func TestAssign(t *testing.T) {
	for _, test := range []struct {
		name                 string
		own, ready, adopters []int
		live                 []int
		moves                []Move
	}{
		{"nothing", nil, nil, nil, nil, nil},
		{"no worker yet", []int{0, 0}, nil, nil, nil, nil},
		{"the first worker adopts all", []int{0, 1, 0}, []int{1}, []int{0, 0, 0}, []int{1}, []Move{{0, 0, 1}, {2, 0, 1}}},
		{"the second has its own and its share of the others", []int{0, 1, 2, 0, 0, 0}, []int{1, 2}, []int{1, 0, 1, 1, 1, 1},
			[]int{1, 2}, []Move{{2, 1, 0}, {4, 1, 2}, {5, 1, 2}}},
		{"each serves its own", []int{1, 2}, []int{1, 2}, []int{0, 0}, []int{0, 1}, nil},
		{"a worker dies", []int{1, 0, 3}, []int{1, 3}, []int{0, 0, 0}, []int{0, 2}, []Move{{1, 0, 1}}},
		{"nothing changes", []int{1, 0, 3}, []int{1, 3}, []int{0, 1, 0}, []int{0, 2}, nil},
		{"the adopter dies", []int{0, 0, 3}, []int{3}, []int{0, 1, 0}, []int{2}, []Move{{0, 0, 3}, {1, 1, 3}}},
		{"the slot's next worker is ready", []int{4, 0, 3}, []int{3, 4}, []int{3, 3, 0}, []int{0, 2}, []Move{{0, 3, 0}}},
		{"the last worker dies", []int{0, 0}, nil, []int{0, 4}, nil, nil},
		{"a new worker after the last died", []int{5, 0}, []int{5}, []int{0, 4}, []int{0}, []Move{{1, 4, 5}}},
		{"shrunk to half: one each", []int{1, 2, 3, 4, 0, 0, 0, 0}, []int{1, 2, 3, 4}, nil, []int{0, 1, 2, 3},
			[]Move{{4, 0, 1}, {5, 0, 2}, {6, 0, 3}, {7, 0, 4}}},
		{"fewer sockets than workers", []int{1, 2, 3, 0, 0}, []int{1, 2, 3}, nil, []int{0, 1, 2}, []Move{{3, 0, 1}, {4, 0, 2}}},
		{"a worker without a socket of its own", []int{1, 0}, []int{1, 7}, nil, []int{0}, []Move{{1, 0, 1}}},
		{"no worker with a socket of its own", []int{0, 0}, []int{7, 8}, nil, nil, []Move{{0, 0, 7}, {1, 0, 8}}},
		{"one for each before a second", []int{0, 0, 0, 0}, []int{7, 8, 9}, nil, nil, []Move{{0, 0, 7}, {1, 0, 8}, {2, 0, 9}, {3, 0, 7}}},
		{"the group grew", []int{1, 2, 0}, []int{1, 2}, []int{0, 0}, []int{0, 1}, []Move{{2, 0, 1}}},
	} {
		live, moves := Assign(test.own, test.ready, test.adopters)
		if !slices.Equal(live, test.live) || !slices.Equal(moves, test.moves) {
			t.Errorf("%s: %v, %v, want %v, %v", test.name, live, moves, test.live, test.moves)
		}
	}
}

// apply returns the adopters after moves, and fails if a move is inconsistent.
func apply(t *testing.T, own, adopters []int, moves []Move) []int {
	t.Helper()
	adopters = append(slices.Clone(adopters), make([]int, len(own)-len(adopters))...)
	for _, m := range moves {
		if adopters[m.Index] != m.From || m.From == m.To {
			t.Fatalf("move %+v of a socket with adopter %d", m, adopters[m.Index])
		}
		adopters[m.Index] = m.To
	}
	return adopters
}

// assignment is one call of Assign, with the adopters before and after it.
type assignment struct {
	own, ready, before, after []int
	live                      []int
	moves                     []Move
}

// check fails unless the rules in the doc comment of Assign hold.
func (a assignment) check(t *testing.T) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("own %v, ready %v, adopters %v: %s", a.own, a.ready, a.after, fmt.Sprintf(format, args...))
	}
	var wantLive []int
	for i, o := range a.own {
		if o != 0 {
			wantLive = append(wantLive, i)
		}
		if o != 0 && a.after[i] != 0 {
			fail("socket %d has a worker of its own and an adopter", i)
		}
		if o == 0 && len(a.ready) > 0 && !slices.Contains(a.ready, a.after[i]) {
			fail("no worker serves socket %d", i)
		}
	}
	if !slices.Equal(a.live, wantLive) {
		fail("live %v, want %v", a.live, wantLive)
	}
	if len(a.ready) == 0 {
		return
	}
	adoptable := count(a.own, 0)
	share := (adoptable + len(a.ready) - 1) / len(a.ready)
	// The sockets that must move are those without a ready adopter, and those
	// above the share of their adopter.
	mustMove := adoptable
	for _, r := range a.ready {
		mustMove -= min(a.adoptedBefore(r), share)
		if n := count(a.after, r); n > share {
			fail("worker %d has adopted %d sockets, its share is %d", r, n, share)
		}
	}
	if moved := a.moved(); moved != mustMove {
		fail("%d sockets move, want %d: %v", moved, mustMove, a.moves)
	}
}

// moved returns how many sockets get another adopter.
func (a assignment) moved() (n int) {
	for _, m := range a.moves {
		if m.To != 0 {
			n++
		}
	}
	return n
}

// adoptedBefore returns how many sockets that need an adopter had worker r.
func (a assignment) adoptedBefore(r int) (n int) {
	for i, adopter := range a.before {
		if a.own[i] == 0 && adopter == r {
			n++
		}
	}
	return n
}

// FuzzAssign checks that the rules hold after each change of a pool, and that
// calling Assign again changes nothing. A byte of the script starts or ends the
// worker of a slot, or grows the group.
func FuzzAssign(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 1, 1, 255, 4, 0, 2})
	f.Add([]byte{7, 6, 5, 254, 5, 255, 8, 9, 8, 254, 254, 1})
	f.Add([]byte{100, 101, 0, 100, 1, 2, 3, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		own := make([]int, 4)
		without := make(map[byte]int) // workers without a socket: the group could not grow
		var ready, adopters []int
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
			live, moves := Assign(own, ready, adopters)
			before := adopters
			adopters = apply(t, own, adopters, moves)
			assignment{own, ready, before, adopters, live, moves}.check(t)
			if again, moves := Assign(own, ready, adopters); len(moves) > 0 || !slices.Equal(live, again) {
				t.Fatalf("a second call returns %v, %v", again, moves)
			}
		}
	})
}

func BenchmarkAssignUnchanged(b *testing.B) {
	for _, n := range []int{8, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { assignUnchanged(b, n) })
	}
}

// assignUnchanged has n slots, every tenth of which has no worker.
func assignUnchanged(b *testing.B, n int) {
	own, ready := make([]int, n), make([]int, 0, n)
	for i := range own {
		if i%10 != 0 {
			own[i] = i + 1
			ready = append(ready, i+1)
		}
	}
	adopters := make([]int, n)
	_, moves := Assign(own, ready, adopters)
	for _, m := range moves {
		adopters[m.Index] = m.To
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, moves := Assign(own, ready, adopters); moves != nil {
			b.Fatal(moves)
		}
	}
}
