//go:build unix

package pool

import (
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// full returns a pool of n slots with a ready worker in each. The worker of
// slot i is ids[i].
func full(n int) (p *Pool, ids []int) {
	p = New(Config{
		Max: n, ErrRespawn: sec, StopTimeout: 30 * sec, Stop: syscall.SIGTERM,
		Jitter: func() float64 { return 0.5 },
	})
	ids = make([]int, n)
	p.Apply(0, Event{Kind: Begin})
	for st := p.Plan(0); st.SpawnDue; st = p.Plan(0) {
		ids[st.Slot] = st.Ordinal
		p.Apply(0, Event{Kind: Spawned, Ready: true})
	}
	return p, ids
}

// respawn reaps the worker of a slot and spawns the next one.
func respawn(p *Pool, ids []int, now Time, slot int) {
	p.Apply(now, Event{Kind: Exited, ID: ids[slot], Clean: true})
	id := p.Plan(now).Ordinal
	p.Apply(now, Event{Kind: Spawned})
	p.Apply(now, Event{Kind: Ready, ID: id})
	ids[slot] = id
}

func TestEventsWithoutSpawnDoNotAllocate(t *testing.T) {
	p, ids := full(100)
	now := Time(0)
	p.Apply(now, Event{Kind: Signal, Sig: syscall.SIGHUP}) // room for the effects
	crashed := ids[7]
	tests := []struct {
		name string
		ev   Event
	}{
		{"Tick", Event{Kind: Tick}},
		{"Ready", Event{Kind: Ready, ID: ids[3]}},
		{"Disconnected", Event{Kind: Disconnected, ID: ids[3]}},
		{"Signal", Event{Kind: Signal, Sig: syscall.SIGHUP}},
		{"Signal to stop", Event{Kind: Signal, Sig: syscall.SIGTERM}},
		{"SpawnFailed", Event{Kind: SpawnFailed}},
		{"Exited of a worker that is gone", Event{Kind: Exited, ID: crashed}},
		{"Begin", Event{Kind: Begin}},
		{"Halt", Event{Kind: Halt}},
		{"KillAll", Event{Kind: KillAll}},
	}
	p.Apply(now, Event{Kind: Exited, ID: crashed})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			allocs := testing.AllocsPerRun(100, func() {
				now += ms
				p.Apply(now, tt.ev)
				p.Plan(now)
			})
			want(t, "allocations", allocs, 0)
		})
	}
}

func TestRespawnAllocatesOnlyTheWorker(t *testing.T) {
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

// BenchmarkRespawn measures the life of a worker: it is reaped, its slot is
// spawned again, and the next worker is ready. Slots come in random order.
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

// BenchmarkCrash measures a crash and the spawn of the slot that is due next,
// while half of the slots are delayed: the cost of keeping these in order.
func BenchmarkCrash(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) { benchCrash(b, n) })
	}
}

func benchCrash(b *testing.B, n int) {
	random := rand.New(rand.NewPCG(1, 2))
	p, ids := full(n)
	p.cfg.ErrRespawn, p.cfg.Jitter = time.Hour, random.Float64 // so that every life is young
	serving := random.Perm(n)
	now, i := Time(0), 0
	crash := func() {
		p.Apply(now, Event{Kind: Exited, ID: ids[serving[i]]})
		if i++; i == len(serving) {
			i = 0
		}
	}
	for range n / 2 {
		crash()
	}
	serving, i = serving[n/2:], 0
	b.ReportAllocs()
	for b.Loop() {
		vacated := &serving[i]
		crash()
		st := p.Plan(now)
		if !st.SpawnDue {
			now = st.Wake
			p.Apply(now, Event{Kind: Tick})
			st = p.Plan(now)
		}
		*vacated, ids[st.Slot] = st.Slot, st.Ordinal
		p.Apply(now, Event{Kind: Spawned, Ready: true})
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
				p.Apply(now, Event{Kind: Tick})
				p.Plan(now)
			}
		})
	}
}
