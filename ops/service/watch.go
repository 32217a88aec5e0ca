package service

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollInterval is the polling interval while the kernel sends no notifications.
// Proc::tored polls at the same interval.
const pollInterval = 200 * time.Millisecond

// fileWatcher reports changes of the files of a service.
type fileWatcher struct {
	changed chan struct{} // buffered: a file may have changed

	s       *Service
	closing chan struct{}
	wg      sync.WaitGroup

	notify *fsnotify.Watcher // nil if the kernel sends no notifications
	events chan fsnotify.Event
	errs   chan error
	names  map[string]bool        // the clean paths of the files
	dirs   map[string]fs.FileInfo // the directories of the files

	poll   time.Duration // zero means no polling
	ticker *time.Ticker

	// recheck fires when the directories must be compared with dirs. The open
	// pid file keeps a removed directory alive, and Linux reports the end of
	// a directory only when it is freed. So each change of a file leads to a
	// recheck.
	recheck <-chan time.Time
}

// watchFiles starts to watch the files of the service. It polls them if the
// kernel sends no notifications.
func (s *Service) watchFiles() *fileWatcher {
	w := &fileWatcher{
		changed: make(chan struct{}, 1),
		s:       s,
		closing: make(chan struct{}),
		names:   make(map[string]bool),
		dirs:    make(map[string]fs.FileInfo),
		poll:    s.Poll,
	}
	for _, file := range []string{s.PIDFile, s.StopFile, s.PauseFile} {
		w.names[filepath.Clean(file)] = true
		w.dirs[filepath.Dir(file)] = nil
	}
	notify, err := fsnotify.NewWatcher()
	for dir := range w.dirs {
		if err == nil {
			w.dirs[dir], err = os.Stat(dir)
		}
		if err == nil {
			err = notify.Add(dir)
		}
		if onNetwork(dir) && w.poll == 0 {
			w.poll = pollInterval // other machines change files without a notification
		}
	}
	if err != nil {
		if notify != nil {
			notify.Close()
			notify = nil
		}
		s.log().Warn("no file notifications, polling flags", "every", pollInterval, "err", err)
		if w.poll == 0 {
			w.poll = pollInterval
		}
	}
	if notify != nil {
		w.notify, w.events, w.errs = notify, notify.Events, notify.Errors
	}
	w.wg.Go(w.run)
	return w
}

func (w *fileWatcher) run() {
	if w.notify != nil {
		defer w.notify.Close()
	}
	w.ticker = time.NewTicker(max(w.poll, 1))
	defer w.ticker.Stop()
	if w.poll == 0 {
		w.ticker.Stop()
	}
	for {
		changed := true
		select {
		case ev, ok := <-w.events:
			changed = w.handleEvent(ev, ok)
		case <-w.recheck:
			changed = w.recheckDirs()
		case _, ok := <-w.errs: // for example, the kernel's queue has overflowed
			if !ok {
				w.errs = nil
			}
		case <-w.ticker.C:
		case <-w.closing:
			return
		}
		if changed {
			w.reportChange()
		}
	}
}

// handleEvent reports whether an event may be a change of one of the files. ok
// is false if the channel of events is closed.
func (w *fileWatcher) handleEvent(ev fsnotify.Event, ok bool) bool {
	if !ok {
		w.events = nil
	} else if ev.Op == fsnotify.Chmod || !w.names[filepath.Clean(ev.Name)] {
		// A heartbeat, or a file that does not belong to the service.
		if len(w.notify.WatchList()) < len(w.dirs) {
			w.startPolling()
		}
		return false
	}
	w.recheck = time.After(pollInterval)
	return true
}

// recheckDirs reports whether a directory was replaced, and polls the files
// from then on.
func (w *fileWatcher) recheckDirs() bool {
	w.recheck = nil
	if !anyReplaced(w.dirs) {
		return false
	}
	w.startPolling()
	return true
}

func (w *fileWatcher) startPolling() {
	if w.poll != 0 {
		return
	}
	w.s.log().Warn("service directory moved or removed, polling flags", "every", pollInterval)
	w.poll = pollInterval
	w.ticker.Reset(w.poll)
}

// anyReplaced reports whether one of the directories is missing, or is another
// directory than before.
func anyReplaced(dirs map[string]fs.FileInfo) bool {
	for dir, before := range dirs {
		if now, err := os.Stat(dir); err != nil || !os.SameFile(now, before) {
			return true
		}
	}
	return false
}

func (w *fileWatcher) reportChange() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *fileWatcher) close() {
	close(w.closing)
	w.wg.Wait()
}
