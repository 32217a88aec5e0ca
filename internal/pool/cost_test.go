//go:build unix

package pool

import (
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// full is a pool of n slots with a ready worker in each, the worker of slot i being ids[i].
func full(n int) (p *Pool, ids []int) {
	p = New(Config{
		Max: n, ErrRespawn: sec, StopTimeout: 30 * sec, Stop: syscall.SIGTERM,
		Jitter: func() float64 { return 0.5 },
	})
	ids = make([]int, n)
	st := p.Handle(0, Event{Kind: Begin})
	for st.Ask {
		ids[st.Spawn] = st.Ordinal
		st = p.Handle(0, Event{Kind: Spawned, Ready: true})
	}
	return p, ids
}

// respawn reaps the worker of a slot and spawns the next one.
func respawn(p *Pool, ids []int, now Time, slot int) {
	st := p.Handle(now, Event{Kind: Exited, ID: ids[slot], Clean: true})
	id := st.Ordinal
	p.Handle(now, Event{Kind: Spawned})
	p.Handle(now, Event{Kind: Reached, ID: id})
	ids[slot] = id
}

func TestEventsThatSpawnNothingAllocateNothing(t *testing.T) {
	p, ids := full(100)
	now := Time(0)
	p.Handle(now, Event{Kind: Signal, Sig: syscall.SIGHUP}) // room for the effects
	crashed := ids[7]
	tests := []struct {
		name string
		ev   Event
	}{
		{"Tick", Event{Kind: Tick}},
		{"Reached", Event{Kind: Reached, ID: ids[3]}},
		{"Lost", Event{Kind: Lost, ID: ids[3]}},
		{"Signal", Event{Kind: Signal, Sig: syscall.SIGHUP}},
		{"Signal to stop", Event{Kind: Signal, Sig: syscall.SIGTERM}},
		{"SpawnFailed", Event{Kind: SpawnFailed}},
		{"Exited, of one gone", Event{Kind: Exited, ID: crashed}},
		{"Begin", Event{Kind: Begin}},
		{"Halt", Event{Kind: Halt}},
		{"KillAll", Event{Kind: KillAll}},
	}
	p.Handle(now, Event{Kind: Exited, ID: crashed})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			allocs := testing.AllocsPerRun(100, func() {
				now += ms
				p.Handle(now, tt.ev)
			})
			want(t, "allocations", allocs, 0)
		})
	}
}

func TestARespawnAllocatesTheWorkerAlone(t *testing.T) {
	p, ids := full(100)
	now, slot := Time(0), 0
	allocs := testing.AllocsPerRun(10_000, func() {
		now += 10 * sec
		slot = (slot + 37) % len(ids)
		respawn(p, ids, now, slot)
	})
	if allocs > 1 {
		t.Errorf("allocations: got %v, want at most 1", allocs)
	}
}

var benchSizes = []int{10, 100, 1000, 10_000}

// BenchmarkRespawn is the cost of a worker's life: it is reaped, its slot is spawned again, the next one reaches Start.
// The slots come in random order, as workers die.
func BenchmarkRespawn(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p, ids := full(n)
			order := rand.New(rand.NewPCG(1, 2)).Perm(n)
			now, i := Time(0), 0
			b.ReportAllocs()
			for b.Loop() {
				now += 10 * sec
				respawn(p, ids, now, order[i])
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}

// BenchmarkCrash is the cost of a crash and of the spawn of the slot whose delay is over next, where half of the slots
// wait: what it costs to keep them in order.
func BenchmarkCrash(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			random := rand.New(rand.NewPCG(1, 2))
			p, ids := full(n)
			p.cfg.ErrRespawn, p.cfg.Jitter = time.Hour, random.Float64 // so that every life is young
			serving := random.Perm(n)
			now, i := Time(0), 0
			crash := func() (st Step) {
				st = p.Handle(now, Event{Kind: Exited, ID: ids[serving[i]]})
				if i++; i == len(serving) {
					i = 0
				}
				return st
			}
			for range n / 2 {
				crash()
			}
			serving, i = serving[n/2:], 0
			b.ReportAllocs()
			for b.Loop() {
				st, vacated := crash(), &serving[(i+len(serving)-1)%len(serving)]
				if !st.Ask {
					now = st.Wake
					st = p.Handle(now, Event{Kind: Tick})
				}
				*vacated, ids[st.Spawn] = st.Spawn, st.Ordinal
				p.Handle(now, Event{Kind: Spawned, Ready: true})
			}
		})
	}
}

func BenchmarkTick(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			p, _ := full(n)
			now := Time(0)
			b.ReportAllocs()
			for b.Loop() {
				now++
				p.Handle(now, Event{Kind: Tick})
			}
		})
	}
}
