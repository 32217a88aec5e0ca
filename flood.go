package prefork

import (
	"time"

	"github.com/prefork-go/prefork/internal/pool"
)

// What a process says is read a little at a time, so that one that floods the manager is slowed by its own full socket,
// and everybody else is served meanwhile. An honest worker says a few messages in its life, or one each time that the
// manager has asked to be rung.
const (
	hearBytes  = 512 // in a period: 256 messages as a rule, and more than the longest
	hearPeriod = 10 * time.Millisecond
)

// allowance is how much of a process may still be read in the period that runs.
type allowance struct {
	since pool.Time
	read  int
}

func (a *allowance) left(now pool.Time) int {
	if now-a.since >= hearPeriod {
		*a = allowance{since: now}
	}
	return hearBytes - a.read
}

// next is when there is something left again.
func (a *allowance) next() pool.Time { return a.since + hearPeriod }

// slow has a worker be read on when its next period begins.
func (m *Manager) slow(c *child) {
	if !c.flooded {
		c.flooded = true
		m.log.Warn("worker floods its control socket; it is read slowly", c.attrs()...)
	}
	m.slowed = append(m.slowed, c)
}

// hearSlowed reads on where it is time, and says when it is next.
func (m *Manager) hearSlowed() pool.Time {
	due, slowed := pool.Never, m.slowed
	m.slowed = nil
	for _, c := range slowed {
		switch {
		case m.children[c.Ordinal] != c:
			continue
		case c.heard.next() > m.now():
			m.slowed = append(m.slowed, c)
		default:
			m.listen(c) // which may slow it again
		}
	}
	for _, c := range m.slowed {
		due = pool.Sooner(due, c.heard.next())
	}
	if h := m.successor; h != nil && h.slowed {
		if h.heard.next() <= m.now() {
			m.listenSuccessor(h)
		}
		if h.slowed {
			due = pool.Sooner(due, h.heard.next())
		}
	}
	return due
}
