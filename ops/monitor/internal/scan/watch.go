package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A watcher looks at the directory when the system notifies of a change, and from
// time to time, and applies the policy. Its fields belong to the goroutine of run.
type watcher struct {
	cfg    Config
	policy *policy

	newNotify func() (*fsnotify.Watcher, error)         // replaced by tests
	lookAt    func(dir, key string) (f file, link bool) // so are these
	patience  time.Duration
	hangs     time.Duration
	notify    *fsnotify.Watcher // nil if the system does not notify
	watched   identity          // of the directory that notify watches
	inside    map[string]bool   // directories without run, which notify watches

	hung     map[string]<-chan struct{} // looks that have not returned; closed when they have
	budget   time.Duration              // left for looks that hang
	unseen   map[string]bool            // names of whose changes the system does not notify
	overflow bool                       // since the last scan
	goneAt   time.Time                  // when the directory was found gone; zero if it is there
	refused  bool                       // Config.Enter has refused the directory
	failing  map[string]string
	scanAt   time.Time // next scan
}

func newWatcher(cfg Config) *watcher {
	if cfg.Settle == 0 {
		cfg.Settle = defaultSettle
	}
	if cfg.Max == 0 {
		cfg.Max = defaultMax
	}
	cfg.Dir = filepath.Clean(cfg.Dir)
	return &watcher{
		cfg: cfg, policy: newPolicy(cfg.Settle, cfg.Max),
		newNotify: fsnotify.NewWatcher, lookAt: look, patience: patience, hangs: hangs,
		hung: make(map[string]<-chan struct{}), unseen: make(map[string]bool), failing: make(map[string]string),
	}
}

func (w *watcher) close() {
	if w.notify != nil {
		w.notify.Close()
		w.notify = nil
	}
	w.watched, w.inside = identity{}, nil
}

func (w *watcher) run(ctx context.Context, rescan <-chan struct{}, f func([]Change)) error {
	var err error
	w.timed(func() { err = w.first() })
	if err != nil {
		return err
	}
	f(w.policy.changes(time.Now().Add(max(latest, w.cfg.Settle))))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		at := w.scanAt
		if next := w.policy.next(); !next.IsZero() && next.Before(at) {
			at = next
		}
		timer.Reset(time.Until(at))
		var events <-chan fsnotify.Event
		var errs <-chan error
		if w.notify != nil {
			events, errs = w.notify.Events, w.notify.Errors
		}
		act, scanned := func() {}, func() {}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rescan:
			if act = w.scan; w.cfg.Rescan != nil {
				scanned = w.cfg.Rescan()
			}
		case ev := <-events:
			act = func() { w.take(ev) }
		case err := <-errs:
			act = func() { w.lost(err) }
		case <-timer.C:
			if !time.Now().Before(w.scanAt) {
				act = w.scan
			}
		}
		var changes []Change
		w.timed(func() {
			act()
			changes = w.settled()
		})
		if len(changes) > 0 {
			f(changes)
		}
		scanned()
	}
}

// timed calls a function that looks at the directory, and has it reported if that
// does not return.
func (w *watcher) timed(f func()) {
	w.budget = w.hangs
	began, reported := time.Now(), make(chan struct{})
	limit := time.AfterFunc(w.patience, func() {
		defer close(reported)
		if w.cfg.Stalled != nil {
			w.cfg.Stalled(began, false)
		}
	})
	f()
	if limit.Stop() || w.cfg.Stalled == nil {
		return
	}
	<-reported
	w.cfg.Stalled(began, true)
}

// first is the first scan, which fails if there is no directory.
func (w *watcher) first() error {
	info, err := os.Stat(w.cfg.Dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return &fs.PathError{Op: "watch", Path: w.cfg.Dir, Err: errors.New("not a directory")}
	}
	if _, err = os.ReadDir(w.cfg.Dir); err == nil && w.cfg.Enter != nil {
		err = w.cfg.Enter()
	}
	if err != nil {
		return err
	}
	w.watched, _ = identifyDir(w.cfg.Dir)
	w.scan()
	return nil
}

// settled looks again at the names that are to settle, and returns the changes of
// those that have.
func (w *watcher) settled() []Change {
	due := w.policy.due(time.Now())
	if len(due) == 0 {
		return nil
	}
	if id, err := identifyDir(w.cfg.Dir); err != nil || id != w.watched {
		w.scan() // another directory may have the name now
	}
	for _, key := range due {
		w.look(key, false)
	}
	return w.policy.changes(time.Now())
}

// take looks at the names of an event and of those that follow at once.
func (w *watcher) take(ev fsnotify.Event) {
	touched := make(map[string]bool)
	itself := false
	for more := true; more; {
		switch key, ok := w.nameOf(ev); {
		case ok && key == "":
			itself = true
		case ok && !ignored(key):
			touched[key] = true
		}
		select {
		case ev, more = <-w.notify.Events:
		default:
			more = false
		}
	}
	for key := range touched {
		delete(w.hung, key) // another file may have the name
		w.look(key, true)
	}
	if itself {
		w.scan()
	}
}

// nameOf returns the name in the directory to which an event belongs; "" for the
// directory.
func (w *watcher) nameOf(ev fsnotify.Event) (key string, ok bool) {
	rest, ok := strings.CutPrefix(ev.Name, w.cfg.Dir)
	if !ok {
		return "", false // of an overflow
	}
	key, _, _ = strings.Cut(strings.TrimPrefix(filepath.ToSlash(rest), "/"), "/")
	return key, true
}

// lost is called when notifications were lost.
func (w *watcher) lost(err error) {
	w.overflow = true
	w.warn("notify", fmt.Errorf("notifications of %s were lost, it is scanned: %w", w.cfg.Dir, err))
	delete(w.failing, "notify") // the next time is reported too
	w.scan()
}

// look looks at one name.
func (w *watcher) look(key string, happened bool) {
	f, link := w.see(key)
	if w.refused {
		f, link = file{}, false
	}
	if f.state == noRun && !w.inside[key] && w.watchInside(key) {
		f, link = w.see(key) // run may have come by now
	}
	if f.state != noRun && w.inside[key] {
		w.notify.Remove(filepath.Join(w.cfg.Dir, key)) // an error if the directory is gone
		delete(w.inside, key)
	}
	w.note(key, f, link)
	w.policy.look(key, f, time.Now(), happened)
}

// see looks at a name, whose disk may hang.
func (w *watcher) see(key string) (file, bool) {
	noAnswer := file{state: unknown, reason: "its disk does not answer"}
	if last := w.hung[key]; last != nil {
		select {
		case <-last: // its answer is old
			delete(w.hung, key)
		default:
			return noAnswer, true
		}
	}
	var f file
	var link bool
	done := make(chan struct{})
	go func() {
		f, link = w.lookAt(w.cfg.Dir, key)
		close(done)
	}()
	began := time.Now()
	limit := time.NewTimer(max(w.budget, moment))
	defer limit.Stop()
	select {
	case <-done:
		return f, link
	case <-limit.C:
		w.budget -= time.Since(began)
		w.hung[key] = done
		return noAnswer, true
	}
}

// watchInside asks for notifications of a directory that lacks run.
func (w *watcher) watchInside(key string) bool {
	if w.notify == nil || w.notify.Add(filepath.Join(w.cfg.Dir, key)) != nil {
		return false
	}
	w.inside[key] = true
	return true
}

// note notes whether the system notifies of changes of a name.
func (w *watcher) note(key string, f file, link bool) {
	if link || f.state == unknown || f.state == noRun && !w.inside[key] {
		w.unseen[key] = true
		w.scanAt = earlier(w.scanAt, time.Now().Add(soon))
	} else {
		delete(w.unseen, key)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// scan looks at all names of the directory.
func (w *watcher) scan() {
	err := w.follow()
	var entries []fs.DirEntry
	if err == nil {
		entries, err = os.ReadDir(w.cfg.Dir)
	}
	now := time.Now()
	clear(w.unseen)
	w.scanAt = now.Add(late)
	switch {
	case err == nil:
		w.goneAt = time.Time{}
		w.warn("dir", nil)
	case w.refused:
		w.warn("dir", fmt.Errorf("the services are stopped: %w", err))
	case !absent(err):
		w.warn("dir", fmt.Errorf("cannot scan, the services stay as they are: %w", err))
	case w.goneAt.IsZero():
		w.goneAt, w.scanAt = now, now.Add(w.cfg.Settle)
	case now.Sub(w.goneAt) >= w.cfg.Settle:
		w.warn("dir", fmt.Errorf("%s is gone, and its services with it: waiting for another one", w.cfg.Dir))
	}
	if err == nil || absent(err) || w.refused {
		found := make(map[string]bool)
		for _, e := range entries {
			if !ignored(e.Name()) {
				found[e.Name()] = true
				w.look(e.Name(), false)
			}
		}
		for key := range w.policy.names {
			if !found[key] {
				delete(w.hung, key)
				w.look(key, false)
			}
		}
	}
	w.scanAt = earlier(w.scanAt, now.Add(w.interval(err)))
	w.overflow = false
}

// interval returns the time until the next scan. It is short while the system
// does not notify of everything: of a directory whose path has a symbolic link,
// which may be switched; of targets of links; and of the removal of an empty
// directory that this process has open.
func (w *watcher) interval(err error) time.Duration {
	real, linkErr := filepath.EvalSymlinks(w.cfg.Dir)
	if err != nil || linkErr != nil || real != w.cfg.Dir || w.notify == nil || w.overflow ||
		len(w.unseen) > 0 || len(w.policy.names) == 0 {
		return soon
	}
	return late
}

// follow makes notify watch the directory that has the name now.
func (w *watcher) follow() error {
	id, err := identifyDir(w.cfg.Dir)
	w.refused = false
	if err == nil && id != w.watched && w.cfg.Enter != nil {
		err = w.cfg.Enter()
		w.refused = err != nil
	}
	if err != nil {
		w.close()
		return err
	}
	if w.notify != nil && id == w.watched {
		return nil
	}
	w.close()
	w.notify, err = w.newNotify()
	if err == nil {
		if err = w.notify.Add(w.cfg.Dir); err != nil {
			w.notify.Close()
			w.notify = nil
		}
	}
	if err != nil {
		err = fmt.Errorf("no notifications of %s, it is scanned each %v: %w", w.cfg.Dir, soon, err)
	}
	w.warn("notify", err)
	// If the directory was replaced meanwhile, the next look notices, because
	// the identity is that from before.
	w.watched, w.inside = id, make(map[string]bool)
	return nil
}

// warn reports an error unless the last one of the same kind was the same.
func (w *watcher) warn(kind string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != w.failing[kind] && err != nil && w.cfg.Report != nil {
		w.cfg.Report(err)
	}
	w.failing[kind] = text
}

// identifyDir returns the identity of a directory.
func identifyDir(dir string) (identity, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return identity{}, err
	}
	if !info.IsDir() {
		return identity{}, &fs.PathError{Op: "watch", Path: dir, Err: syscall.ENOTDIR}
	}
	id := identify(info)
	id.size, id.mtime = 0, 0
	return id, nil
}
