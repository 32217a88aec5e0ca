//go:build unix

package monitor

import (
	"path/filepath"
	"sync"
	"time"
)

// downs has the directories with a file down, as they were found last.
type downs struct {
	mu    sync.Mutex
	found map[string]bool
	looks map[string]*downLook
}

// A downLook is a look for a file down that is under way.
type downLook struct {
	done chan struct{} // closed when down is set
	down bool
}

// haveDown returns which directories have a file down. It waits a moment for
// disks: of one that hangs it returns the last answer, if there was one, and Changed
// reports the next one.
func (m *Monitor) haveDown(dirs []string) map[string]bool {
	d := &m.downs
	looks := make([]*downLook, len(dirs))
	d.mu.Lock()
	for i, dir := range dirs {
		if d.looks[dir] == nil {
			d.looks[dir] = &downLook{done: make(chan struct{})}
			m.crew.put(func() { m.lookForDown(dir) })
		}
		looks[i] = d.looks[dir]
	}
	d.mu.Unlock()
	timer := time.NewTimer(moment)
	defer timer.Stop()
	late := false
	for i := 0; i < len(looks) && !late; i++ {
		select {
		case <-looks[i].done:
		case <-timer.C:
			late = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	found := make(map[string]bool, len(dirs))
	for i, dir := range dirs {
		select {
		case <-looks[i].done:
			found[dir] = looks[i].down
		default:
			if down, known := d.found[dir]; known {
				found[dir] = down
			}
		}
	}
	clear(d.found)
	for dir, down := range found { // without those that are gone
		d.found[dir] = down
	}
	return found
}

func (m *Monitor) lookForDown(dir string) {
	down := m.disk.isThere(filepath.Join(dir, "down"))
	d := &m.downs
	d.mu.Lock()
	was, known := d.found[dir]
	look := d.looks[dir]
	d.found[dir], look.down = down, down
	delete(d.looks, dir)
	close(look.done)
	d.mu.Unlock()
	if !known || was != down {
		m.changes.notify()
	}
}
