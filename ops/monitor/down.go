//go:build unix

package monitor

import (
	"path/filepath"
	"sync"
	"time"
)

// downs has the directories with a file down, as they were found last.
type downs struct {
	mu      sync.Mutex
	found   map[string]bool
	looking map[string]bool
}

// haveDown returns which directories have a file down. It waits a moment for
// disks: of one that hangs it returns the last answer, and Changed reports the next
// one.
func (m *Monitor) haveDown(dirs []string) map[string]bool {
	d := &m.downs
	answers := make(chan struct{}, len(dirs))
	asked := 0
	d.mu.Lock()
	for _, dir := range dirs {
		if d.looking[dir] {
			continue
		}
		d.looking[dir] = true
		asked++
		m.crew.put(func() {
			down := m.disk.isThere(filepath.Join(dir, "down"))
			d.mu.Lock()
			changed := d.found[dir] != down
			d.found[dir] = down
			delete(d.looking, dir)
			d.mu.Unlock()
			answers <- struct{}{}
			if changed {
				m.changes.notify()
			}
		})
	}
	d.mu.Unlock()
	timer := time.NewTimer(moment)
	defer timer.Stop()
	for late := false; asked > 0 && !late; asked-- {
		select {
		case <-answers:
		case <-timer.C:
			late = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	found := make(map[string]bool, len(dirs))
	for _, dir := range dirs {
		found[dir] = d.found[dir]
	}
	clear(d.found)
	for dir, down := range found { // without those that are gone
		d.found[dir] = down
	}
	return found
}
