package service

import (
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollInterval is how often the files are looked at where the system does not tell of changes: that of the original.
const pollInterval = 200 * time.Millisecond

// watcher tells of changes of a service's files.
type watcher struct {
	changed chan struct{} // has room for one: something may be different
	done    chan struct{}
	wg      sync.WaitGroup
}

// watch begins to tell of changes. Where the system cannot tell, the files are polled.
func (s *Service) watch() *watcher {
	w := &watcher{changed: make(chan struct{}, 1), done: make(chan struct{})}
	names := make(map[string]bool)
	dirs := make(map[string]bool)
	poll := s.Poll
	for _, file := range []string{s.PIDFile, s.StopFile, s.PauseFile} {
		names[filepath.Clean(file)] = true
		dirs[filepath.Dir(file)] = true
	}
	notify, err := fsnotify.NewWatcher()
	for dir := range dirs {
		if err == nil {
			err = notify.Add(dir)
		}
		if onNetwork(dir) && poll == 0 {
			poll = pollInterval // others may change files without our kernel's knowing
		}
	}
	if err != nil {
		if notify != nil {
			notify.Close()
			notify = nil
		}
		s.log().Warn("the system does not tell of changes; the flags are polled", "every", pollInterval, "err", err)
		if poll == 0 {
			poll = pollInterval
		}
	}
	w.wg.Go(func() { w.run(s, notify, names, len(dirs), poll) })
	return w
}

func (w *watcher) run(s *Service, notify *fsnotify.Watcher, names map[string]bool, dirs int, poll time.Duration) {
	var events chan fsnotify.Event
	var errs chan error
	if notify != nil {
		events, errs = notify.Events, notify.Errors
		defer notify.Close()
	}
	var tick <-chan time.Time
	if poll > 0 {
		ticker := time.NewTicker(poll)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case ev, ok := <-events:
			switch {
			case !ok:
				events = nil
			case ev.Op == fsnotify.Chmod, !names[filepath.Clean(ev.Name)]: // a heartbeat; a file of others
				if len(notify.WatchList()) < dirs && tick == nil {
					// A directory of ours was moved or removed, and is not watched any more.
					s.log().Warn("a directory of the service was moved or removed; the flags are polled", "every", pollInterval)
					ticker := time.NewTicker(pollInterval)
					defer ticker.Stop()
					tick = ticker.C
				}
				continue
			}
		case _, ok := <-errs: // the queue has overflowed, say
			if !ok {
				errs = nil
			}
		case <-tick:
		case <-w.done:
			return
		}
		w.tell()
	}
}

func (w *watcher) tell() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *watcher) close() {
	close(w.done)
	w.wg.Wait()
}
