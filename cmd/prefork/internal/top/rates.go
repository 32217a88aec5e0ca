package top

import (
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

// historyLength is the number of looks in the sparkline.
const historyLength = 60

// rates are computed from two looks.
type rates struct {
	prev    *client.Status
	at      time.Time
	counted time.Time // of the last look in history

	pools   map[string]*poolRates
	workers map[workerKey]workerRates
}

// A workerKey is a worker: its id is never used again in a pool of a process.
type workerKey struct {
	pool string
	id   int
}

type poolRates struct {
	known         bool
	requests, cpu float64 // per second
	history       []float64
}

type workerRates struct {
	known         bool
	requests, cpu float64
}

// add computes the rates between the last look and this one.
func (r *rates) add(at time.Time, s *client.Status, interval time.Duration) {
	if r.pools == nil {
		r.pools = make(map[string]*poolRates)
	}
	prev, dt := r.prev, at.Sub(r.at).Seconds()
	same := prev != nil && prev.PID == s.PID && prev.Started.Equal(s.Started)
	if same && dt < interval.Seconds()/4 {
		return // too short for rates: the next look has longer ones
	}
	count := same && at.Sub(r.counted) >= interval*3/4
	if count || !same {
		r.counted = at
	}
	r.prev, r.at = s, at
	workers := make(map[workerKey]workerRates)
	for i := range s.Pools {
		p := &s.Pools[i]
		pr := r.pools[p.Name]
		if pr == nil {
			pr = new(poolRates)
			r.pools[p.Name] = pr
		}
		before := poolOf(prev, p.Name)
		pr.known = same && before != nil
		if !pr.known {
			continue
		}
		pr.requests = perSecond(float64(before.Requests), float64(p.Requests), dt)
		pr.cpu = 0
		old := make(map[int]*client.Worker, len(before.Workers))
		for i := range before.Workers {
			old[before.Workers[i].ID] = &before.Workers[i]
		}
		for i := range p.Workers {
			w := &p.Workers[i]
			var requests, cpu float64 // of a worker that was spawned since
			if o := old[w.ID]; o != nil {
				requests, cpu = float64(o.Requests), seconds(o.CPU)
			}
			wr := workerRates{known: true, requests: perSecond(requests, float64(w.Requests), dt), cpu: perSecond(cpu, seconds(w.CPU), dt)}
			workers[workerKey{p.Name, w.ID}] = wr
			pr.cpu += wr.cpu
		}
		if count {
			pr.history = append(pr.history, pr.requests)
			if len(pr.history) > historyLength {
				pr.history = pr.history[1:]
			}
		}
	}
	r.workers = workers
}

// perSecond is never negative: a counter that has gone back is another one.
func perSecond(before, after, dt float64) float64 {
	if dt <= 0 || after < before {
		return 0
	}
	return (after - before) / dt
}

func seconds(cpu *float64) float64 {
	if cpu == nil {
		return 0
	}
	return *cpu
}

func poolOf(s *client.Status, name string) *client.Pool {
	if s == nil {
		return nil
	}
	for i := range s.Pools {
		if s.Pools[i].Name == name {
			return &s.Pools[i]
		}
	}
	return nil
}
