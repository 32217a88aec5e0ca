package top

import (
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/client"
)

func hundred() *client.Status {
	now := time.Now()
	s := &client.Status{Name: "web", PID: 1, Now: now, Started: now.Add(-time.Hour), Pools: []client.Pool{{Limits: client.Limits{MaxWorkers: 100}}}}
	for i := range 100 {
		memory, cpu := int64(i)<<20, float64(i)
		s.Pools[0].Workers = append(s.Pools[0].Workers, client.Worker{
			ID: i + 1, Slot: i, PID: 5000 + i, Generation: 3, State: "ready", Status: "R", Started: now, Requests: uint64(i), Memory: &memory, CPU: &cpu,
		})
	}
	return s
}

// BenchmarkFrame is the work for a status of 100 workers, without the decoding.
func BenchmarkFrame(b *testing.B) {
	m := newModel(Config{Interval: time.Second})
	m.width, m.height = 200, 50
	at := time.Now()
	for b.Loop() {
		at = at.Add(time.Second)
		m.Update(statusMsg{at: at, status: hundred()})
		m.View()
	}
}
