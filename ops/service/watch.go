package service

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// checkInterval is the interval at which the files are examined, and their
// directories compared with those that are watched, although the kernel sends
// notifications: it sends none if the path of a directory leads elsewhere, and
// if a flag that could not be examined becomes readable.
const checkInterval = 500 * time.Millisecond

// pollInterval is the interval while the kernel sends no notifications.
// Proc::tored polls at the same interval.
const pollInterval = 200 * time.Millisecond

// fileWatcher reports when the files of a service should be examined: after a
// change, and at an interval.
type fileWatcher struct {
	changed chan struct{} // buffered

	s       *Service
	files   paths
	closing chan struct{}
	wg      sync.WaitGroup

	dirs    map[string]fs.FileInfo // the directories of the files; nil if missing
	notify  *fsnotify.Watcher      // nil if the kernel sends no notifications
	watches int                    // of notify, at the beginning
	events  chan fsnotify.Event
	errs    chan error
	ticker  *time.Ticker
}

// watchFiles starts to watch the files of the service.
func (s *Service) watchFiles(p paths) *fileWatcher {
	w := &fileWatcher{
		changed: make(chan struct{}, 1),
		s:       s,
		files:   p,
		closing: make(chan struct{}),
		dirs:    make(map[string]fs.FileInfo),
		ticker:  time.NewTicker(checkInterval),
	}
	for _, file := range []string{p.pid, p.stop, p.pause} {
		w.dirs[filepath.Dir(file)] = nil
	}
	w.examineDirs()
	w.watch()
	w.wg.Go(w.run)
	return w
}

func (w *fileWatcher) run() {
	defer w.stopNotify()
	defer w.ticker.Stop()
	for {
		changed := true
		select {
		case ev, ok := <-w.events:
			changed = w.handleEvent(ev, ok)
		case _, ok := <-w.errs: // for example, the kernel's queue has overflowed
			if !ok {
				w.errs = nil
			}
		case <-w.ticker.C:
			w.follow()
		case <-w.closing:
			return
		}
		if changed {
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}
}

// handleEvent reports whether an event may be a change of one of the files. ok
// is false if the channel of events is closed.
func (w *fileWatcher) handleEvent(ev fsnotify.Event, ok bool) bool {
	if !ok {
		w.events = nil
		return true
	}
	switch filepath.Clean(ev.Name) {
	case w.files.pid:
		return ev.Op != fsnotify.Chmod // otherwise a heartbeat
	case w.files.stop, w.files.pause:
		return true // also a new owner
	}
	return false
}

// follow watches the directories again if a path leads to another one.
func (w *fileWatcher) follow() {
	// If a watch has ended and the path leads to the same directory as before,
	// the directory was removed, and a new one has its number.
	if !w.examineDirs() && (w.notify == nil || len(w.notify.WatchList()) == w.watches) {
		return
	}
	w.stopNotify()
	if w.watch() {
		w.s.log().Info("service directory replaced, watching the new one")
	}
}

// examineDirs finds the directories to which the paths lead, and reports whether
// one is another than before.
func (w *fileWatcher) examineDirs() (replaced bool) {
	for dir, before := range w.dirs {
		now, err := os.Stat(dir)
		if err != nil {
			now = nil
		}
		if (now == nil) != (before == nil) || now != nil && !os.SameFile(now, before) {
			w.dirs[dir] = now
			replaced = true
		}
	}
	return replaced
}

// watch requests notifications for the directories that examineDirs has found.
// If a path leads elsewhere by now, the next call of examineDirs reports that. It
// reports whether there are notifications.
func (w *fileWatcher) watch() (notified bool) {
	notify, err := fsnotify.NewWatcher()
	network := false
	for dir := range w.dirs {
		if err == nil {
			err = notify.Add(dir)
		}
		network = network || onNetwork(dir)
	}
	if err == nil {
		w.notify, w.events, w.errs = notify, notify.Events, notify.Errors
		w.watches = len(notify.WatchList()) // fewer if paths lead to one directory
	} else {
		if notify != nil {
			notify.Close()
		}
		w.s.log().Warn("no file notifications, polling flags", "every", pollInterval, "err", err)
	}
	w.ticker.Reset(interval(w.s.Poll, err == nil && !network))
	return err == nil
}

// interval returns the interval at which the files are examined. notified is
// false if they can change without a notification of the kernel.
func interval(poll time.Duration, notified bool) time.Duration {
	switch {
	case poll > 0:
		return min(poll, checkInterval)
	case notified:
		return checkInterval
	}
	return pollInterval
}

func (w *fileWatcher) stopNotify() {
	if w.notify != nil {
		w.notify.Close()
		w.notify, w.events, w.errs = nil, nil, nil
	}
}

func (w *fileWatcher) close() {
	close(w.closing)
	w.wg.Wait()
}
