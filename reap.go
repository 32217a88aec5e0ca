package prefork

import (
	"os"
	"time"

	"github.com/prefork-go/prefork/internal/inherit"
	"github.com/prefork-go/prefork/internal/pool"
)

// reap takes the status of a worker that has ended, and tells whether it has.
func (m *Manager) reap(c *child) bool {
	status, usage, ok := c.proc.Reap()
	if !ok {
		return false
	}
	c.status, c.usage = status, usage
	rest := c.proc.Rest()
	if rest {
		m.rests[c.Ordinal] = c
	}
	m.handle(pool.Event{Kind: pool.Exited, ID: c.Ordinal, Clean: status.Clean(), Killed: int(status.Signal) == signum(os.Kill), Memory: m.outOfMemory(c), Rest: rest})
	return true
}

// hungUp handles the end of a worker's socket. As a rule it is that of the worker: it can be reaped by now, or in a
// moment. Only what is still there after that is looked at, since it lives on as something else: to ask /proc about each
// worker that ends would cost as much as to reap it, in the moment in which its replacement is wanted.
func (m *Manager) hungUp(c *child) {
	if !m.reap(c) {
		m.silent = append(m.silent, silent{c, m.now() + hungUpPause})
		m.handle(pool.Event{Kind: pool.Lost, ID: c.Ordinal})
	}
}

// hungUpPause is about what a program needs to reach its main. One that is a manager by mistake may spawn in it; what it
// has spawned ends with it.
const hungUpPause = 2 * time.Millisecond

// silent is a worker that has hung up, and when it is looked at.
type silent struct {
	*child
	at pool.Time
}

// lookAtHungUp looks at those whose moment has passed, and says when it is next.
func (m *Manager) lookAtHungUp() pool.Time {
	for len(m.silent) > 0 && m.silent[0].at <= m.now() {
		c := m.silent[0].child
		m.silent = m.silent[1:]
		if m.children[c.Ordinal] != c {
			continue
		}
		if inherit.Restarted(c.PID, c.exe) {
			m.log.Error("worker has replaced itself by this program without its marker; it is killed, since it would be a manager", c.attrs()...)
			m.handle(pool.Event{Kind: pool.Lost, ID: c.Ordinal, Lives: true})
		}
	}
	if len(m.silent) == 0 {
		m.silent = nil
		return pool.Never
	}
	return m.silent[0].at
}
