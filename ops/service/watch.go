package service

import (
	"io/fs"
	"os"
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
	dirs := make(map[string]fs.FileInfo)
	poll := s.Poll
	for _, file := range []string{s.PIDFile, s.StopFile, s.PauseFile} {
		names[filepath.Clean(file)] = true
		dirs[filepath.Dir(file)] = nil
	}
	notify, err := fsnotify.NewWatcher()
	for dir := range dirs {
		if err == nil {
			dirs[dir], err = os.Stat(dir)
		}
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
	w.wg.Go(func() { w.run(s, notify, names, dirs, poll) })
	return w
}

func (w *watcher) run(s *Service, notify *fsnotify.Watcher, names map[string]bool, dirs map[string]fs.FileInfo, poll time.Duration) {
	var events chan fsnotify.Event
	var errs chan error
	if notify != nil {
		events, errs = notify.Events, notify.Errors
		defer notify.Close()
	}
	ticker := time.NewTicker(max(poll, 1))
	defer ticker.Stop()
	if poll == 0 {
		ticker.Stop()
	}
	pollAlso := func() {
		if poll == 0 {
			s.log().Warn("a directory of the service was moved or removed; the flags are polled", "every", pollInterval)
			poll = pollInterval
			ticker.Reset(poll)
		}
	}
	// The open pid file keeps a directory that was removed, and Linux does not tell of its end while it is kept. So after each
	// change of a file it is looked whether the directory is still the same.
	var recheck <-chan time.Time
	for {
		select {
		case ev, ok := <-events:
			switch {
			case !ok:
				events = nil
			case ev.Op == fsnotify.Chmod, !names[filepath.Clean(ev.Name)]: // a heartbeat; a file of others
				if len(notify.WatchList()) < len(dirs) {
					pollAlso()
				}
				continue
			}
			recheck = time.After(pollInterval)
		case <-recheck:
			recheck = nil
			if !replaced(dirs) {
				continue
			}
			pollAlso()
		case _, ok := <-errs: // the queue has overflowed, say
			if !ok {
				errs = nil
			}
		case <-ticker.C:
		case <-w.done:
			return
		}
		w.tell()
	}
}

// replaced tells whether one of the directories is not there any more, or another one.
func replaced(dirs map[string]fs.FileInfo) bool {
	for dir, was := range dirs {
		if is, err := os.Stat(dir); err != nil || !os.SameFile(is, was) {
			return true
		}
	}
	return false
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
