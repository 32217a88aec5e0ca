//go:build unix

package scan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/prefork-go/prefork/preforktest"
)

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// The first call has all that is there, although it may still be written.
func TestWatchFirst(t *testing.T) {
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "service"))
	writeFile(t, filepath.Join(dir, "service/run"), 0o755, "")
	writeFile(t, filepath.Join(dir, "program"), 0o755, "")
	writeFile(t, filepath.Join(dir, ".hidden"), 0o755, "")
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := Watch(ctx, Config{Dir: dir}, nil, func(changes []Change) {
		calls++
		want := []Change{{Op: Added, Entry: Entry{"program", Program}}, {Op: Added, Entry: Entry{"service", Service}}}
		if !slices.Equal(changes, want) {
			t.Errorf("changes: %v, want %v", changes, want)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("%d calls, then %v", calls, err)
	}
}

func TestWatchNoDirectory(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), 0o755, "")
	f := func(changes []Change) { t.Errorf("changes: %v", changes) }
	if err := Watch(t.Context(), Config{Dir: filepath.Join(dir, "nothing")}, nil, f); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if err := Watch(t.Context(), Config{Dir: filepath.Join(dir, "file")}, nil, f); err == nil || err.Error() != "watch "+dir+"/file: not a directory" {
		t.Errorf("a file: %v", err)
	}
}

// An empty directory is a first call too: its user learns that it was scanned.
func TestWatchEmpty(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, first := startWatch(t, newWatcher(Config{Dir: dir, Settle: 10 * time.Millisecond}))
	if len(first) > 0 {
		t.Errorf("first: %v", first)
	}
	w.expect()
}

// A directory becomes a service when it gets an executable run, however long after
// its creation.
func TestWatchServiceIsWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, _ := startWatch(t, newWatcher(Config{Dir: dir, Settle: 10 * time.Millisecond}))
	web := filepath.Join(dir, "web")
	mkdir(t, web)
	w.await("passed over web (directory without run)")
	writeFile(t, filepath.Join(web, "run"), 0o644, "#!/bin/sh\n")
	w.await("passed over web (its run is not executable)")
	os.Chmod(filepath.Join(web, "run"), 0o755)
	w.await("added web")

	// From then on its files do not matter.
	writeFile(t, filepath.Join(web, "run"), 0o755, "#!/bin/sh\necho\n")
	writeFile(t, filepath.Join(web, "finish"), 0o755, "")
	os.Remove(filepath.Join(web, "run"))
	w.expect()
	// Another directory is another service.
	mkdir(t, filepath.Join(dir, ".next"))
	writeFile(t, filepath.Join(dir, ".next/run"), 0o755, "")
	os.RemoveAll(web)
	rename(t, filepath.Join(dir, ".next"), web)
	// If it takes long, the directory is seen while it is emptied.
	got := w.sinceThen()
	if !slices.Equal(got, []string{"removed web", "added web"}) && !slices.Equal(got, []string{"removed web (directory without run)", "added web"}) {
		t.Errorf("another directory: %q", got)
	}
}

// The directory itself is renamed, removed, made again, replaced at once, and is
// behind a link that is switched.
func TestWatchDirectoryItself(t *testing.T) {
	t.Parallel()
	for _, held := range []bool{false, true} {
		t.Run(fmt.Sprintf("held %v", held), func(t *testing.T) {
			t.Parallel()
			base, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			dir, away, next := filepath.Join(base, "services"), filepath.Join(base, "away"), filepath.Join(base, "next")
			mkdir(t, dir)
			writeFile(t, filepath.Join(dir, "web"), 0o755, "1")
			w, first := startWatch(t, newWatcher(Config{Dir: dir, Settle: 500 * time.Millisecond}))
			if len(first) != 1 {
				t.Fatalf("first: %v", first)
			}
			hold := func() {
				if !held {
					return
				}
				f, err := os.Open(dir) // as one that has a lock on it
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
			}
			hold()
			rename(t, dir, away)
			w.report("is gone")
			w.await("removed web")
			rename(t, away, dir)
			w.rescan <- struct{}{} // it would be noticed after 5 s
			w.await("added web")

			mkdir(t, next)
			writeFile(t, filepath.Join(next, "other"), 0o755, "1")
			writeFile(t, filepath.Join(next, "web"), 0o755, "2")
			hold()
			exchange(t, dir, next)
			w.expect("added other", "changed web") // in one call or two

			hold()
			os.RemoveAll(dir)
			w.report("is gone")
			var removed []string
			for len(removed) < 3 { // of a marker too
				removed = append(removed, texts(w.next())...)
			}
			slices.Sort(removed)
			if want := []string{"removed other", "removed web", "removed zz-marker-1"}; !slices.Equal(removed, want) {
				t.Errorf("after the removal: %q, want %q", removed, want)
			}
		})
	}
}

// exchange renames the directories so that dir is never gone for long.
func exchange(t *testing.T, dir, next string) {
	t.Helper()
	rename(t, dir, dir+".old")
	rename(t, next, dir)
}

// The system's queue overflows while a caller is slow.
func TestWatchOverflow(t *testing.T) {
	t.Parallel()
	limit := 16384
	if data, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		fmt.Sscan(string(data), &limit)
	}
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		writeFile(t, filepath.Join(dir, name), 0o755, "")
	}
	watcher := newWatcher(Config{Dir: dir, Settle: 10 * time.Millisecond})
	var w *watch
	blocked, release := make(chan struct{}), make(chan struct{})
	changes := make(chan []Change, 10)
	w = &watch{t: t, dir: dir, errs: make(chan error, 10), changes: changes}
	watcher.cfg.Report = func(err error) { w.errs <- err }
	ctx, cancel := context.WithCancel(t.Context())
	defer watcher.close()
	done := make(chan error)
	calls := 0
	go func() {
		done <- watcher.run(ctx, nil, func(c []Change) {
			if calls++; calls == 1 {
				close(blocked)
				<-release
				return
			}
			changes <- c
		})
	}()
	<-blocked
	for range limit { // those of one file in a row count once
		os.Chmod(filepath.Join(dir, "a"), 0o755)
		os.Chmod(filepath.Join(dir, "b"), 0o755)
	}
	writeFile(t, filepath.Join(dir, "c"), 0o755, "") // its events are lost
	close(release)
	w.report("were lost")
	w.await("added c")
	writeFile(t, filepath.Join(dir, "d"), 0o755, "")
	w.await("added d")
	cancel()
	<-done
}

// Without notifications the directory is scanned.
func TestWatchWithoutNotifications(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "web"), 0o755, "1")
	synctest.Test(t, func(t *testing.T) {
		watcher := newWatcher(Config{Dir: dir})
		watcher.newNotify = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }
		w, first := startWatch(t, watcher)
		w.report("it is scanned each 5s: too many open files")
		if len(first) != 1 {
			t.Fatalf("first: %v", first)
		}
		start := time.Now()
		at := func(want time.Duration, changes ...string) {
			t.Helper()
			w.await(changes...)
			if got := time.Since(start); got != want {
				t.Errorf("%q after %v, want %v", changes, got, want)
			}
		}
		time.Sleep(time.Second)
		writeFile(t, filepath.Join(dir, "web"), 0o755, "two")
		at(5300*time.Millisecond, "changed web")
		os.Remove(filepath.Join(dir, "web"))
		w.rescan <- struct{}{}
		at(5600*time.Millisecond, "removed web")
		mkdir(t, filepath.Join(dir, "web"))
		at(10600*time.Millisecond, "passed over web (directory without run)")
		writeFile(t, filepath.Join(dir, "web/run"), 0o755, "")
		at(15600*time.Millisecond, "added web")
		time.Sleep(time.Minute)
	})
}

// Scans are frequent only while the system does not notify of everything.
func TestWatchInterval(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "services")
	mkdir(t, filepath.Join(dir, "service"))
	writeFile(t, filepath.Join(dir, "service/run"), 0o755, "")
	os.Symlink("services", filepath.Join(base, "link"))
	scan := func(dir string) time.Duration {
		w := newWatcher(Config{Dir: dir, Report: func(err error) { t.Errorf("%s: %v", dir, err) }})
		defer w.close()
		w.scan()
		return time.Until(w.scanAt).Round(time.Second)
	}
	for _, c := range []struct {
		what string
		do   func()
		want time.Duration
	}{
		{"a service", func() {}, late},
		{"a directory without run", func() { mkdir(t, filepath.Join(dir, "empty")) }, late},
		{"a link", func() { os.Symlink("service", filepath.Join(dir, "again")) }, soon},
		{"nothing at all", func() { os.RemoveAll(dir); mkdir(t, dir) }, soon},
		{"a program", func() { writeFile(t, filepath.Join(dir, "web"), 0o755, "") }, late},
	} {
		c.do()
		if got := scan(dir); got != c.want {
			t.Errorf("%s: next scan after %v, want %v", c.what, got, c.want)
		}
		if got := scan(filepath.Join(base, "link")); got != soon {
			t.Errorf("%s, by a link: next scan after %v", c.what, got)
		}
	}
}

// The directory is behind a link that is switched.
func TestWatchLinkIsSwitched(t *testing.T) {
	base := t.TempDir()
	for _, release := range []string{"1", "2"} {
		mkdir(t, filepath.Join(base, release))
		writeFile(t, filepath.Join(base, release, "web"), 0o755, release)
	}
	current := filepath.Join(base, "current")
	os.Symlink("1", current)
	w, _ := startWatch(t, newWatcher(Config{Dir: current, Settle: 10 * time.Millisecond}))
	os.Symlink("2", current+".new")
	rename(t, current+".new", current)
	w.rescan <- struct{}{} // it would be noticed after 5 s
	w.await("changed web")
	// Notifications are of the other directory now.
	writeFile(t, filepath.Join(base, "2", "new-one"), 0o755, "")
	w.await("added new-one")
}

// A directory that has taken the name must be entered first, such as by a lock.
func TestWatchEnter(t *testing.T) {
	base := t.TempDir()
	dir, next := filepath.Join(base, "services"), filepath.Join(base, "next")
	for _, d := range []string{dir, next} {
		mkdir(t, d)
		writeFile(t, filepath.Join(d, "web"), 0o755, d)
	}
	var refuse atomic.Bool
	var entered atomic.Int32
	cfg := Config{Dir: dir, Settle: 10 * time.Millisecond, Enter: func() error {
		entered.Add(1)
		if refuse.Load() {
			return errors.New("locked by another")
		}
		return nil
	}}
	w, _ := startWatch(t, newWatcher(cfg))
	w.rescan <- struct{}{}
	w.rescan <- struct{}{}
	if n := entered.Load(); n != 1 {
		t.Errorf("entered %d times", n)
	}
	refuse.Store(true)
	exchange(t, dir, next)
	w.await("removed web")
	w.report("the services are stopped: locked by another")
	refuse.Store(false)
	w.rescan <- struct{}{}
	w.await("added web")

	refuse.Store(true)
	if err := Watch(t.Context(), cfg, nil, func([]Change) {}); err == nil || err.Error() != "locked by another" {
		t.Errorf("refused at the start: %v", err)
	}
}

// Each loss of notifications is reported, and a directory only if it stays gone.
func TestWatchReports(t *testing.T) {
	base := t.TempDir()
	dir, away := filepath.Join(base, "services"), filepath.Join(base, "away")
	mkdir(t, dir)
	synctest.Test(t, func(t *testing.T) {
		reports := 0
		w := newWatcher(Config{Dir: dir, Report: func(error) { reports++ }})
		w.newNotify = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }
		expect := func(when string, want int) {
			t.Helper()
			w.scan()
			if reports != want {
				t.Errorf("%s: %d reports, want %d", when, reports, want)
			}
		}
		expect("no notifications", 1)
		expect("the same again", 1)
		w.lost(fsnotify.ErrEventOverflow)
		w.lost(fsnotify.ErrEventOverflow)
		reports = 0
		for range 2 {
			rename(t, dir, away)
			expect("gone a moment ago", 0)
			time.Sleep(defaultSettle)
			expect("gone", 1)
			expect("still gone", 1)
			rename(t, away, dir)
			w.scan()
			reports = 0
		}
	})
}

// A slowDisk is a pretended disk, on which a look at the name "hung" waits.
type slowDisk struct {
	atomic.Pointer[chan struct{}] // nil while it answers
	waits                         chan struct{}
}

func (d *slowDisk) lookAt(dir, key string) (file, bool) {
	if answer := d.Load(); key == "hung" && answer != nil {
		d.waits <- struct{}{}
		<-*answer
	}
	return look(dir, key)
}

func newSlowDisk(w *watcher) *slowDisk {
	d := &slowDisk{waits: make(chan struct{}, 100)}
	w.lookAt = d.lookAt
	return d
}

// hang makes the disk hang until answer is called.
func (d *slowDisk) hang(t *testing.T) (answer func()) {
	c := make(chan struct{})
	d.Store(&c)
	var once sync.Once
	answer = func() {
		once.Do(func() {
			d.Store(nil)
			close(c)
		})
	}
	t.Cleanup(answer)
	return answer
}

// A name whose disk hangs holds up no other. It is passed over until the disk
// answers, a service stays as it is, and one that goes is gone.
func TestWatchNameHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "hung"), 0o755, "")
	writeFile(t, filepath.Join(dir, "other"), 0o755, "")
	w := newWatcher(Config{Dir: dir, Settle: 10 * time.Millisecond})
	w.hangs = 20 * time.Millisecond
	d := newSlowDisk(w)
	answer := d.hang(t)
	s, first := startWatch(t, w)
	if got := texts(first); !slices.Equal(got, []string{"passed over hung (its disk does not answer)", "added other"}) {
		t.Fatalf("changes: %q", got)
	}
	s.rescan <- struct{}{}
	s.expect() // also after another scan
	if n := len(d.waits); n != 1 {
		t.Errorf("%d looks wait for one name", n)
	}
	answer()
	preforktest.WaitFor(t, "the service", func() bool {
		s.rescan <- struct{}{}
		select {
		case c := <-s.changes:
			return slices.Equal(texts(c), []string{"added hung"})
		default:
			return false
		}
	})
	d.hang(t)
	s.rescan <- struct{}{}
	s.expect()
	os.Remove(filepath.Join(dir, "hung"))
	d.Store(nil) // the directory itself answers
	s.await("removed hung")
}

// A scan that hangs is reported, and goes on when the disk answers. Only then is a
// rescan carried out.
func TestWatchStalls(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "hung"), 0o755, "")
	lines, scanned := make(chan bool, 10), make(chan struct{}, 10)
	w := newWatcher(Config{
		Dir: dir, Settle: 10 * time.Millisecond,
		Stalled: func(since time.Time, over bool) {
			if d := time.Since(since); d < 10*time.Millisecond || d > time.Minute {
				t.Errorf("it hangs for %v", d)
			}
			lines <- over
		},
		Rescan: func() func() { return func() { scanned <- struct{}{} } },
	})
	w.hangs, w.patience = time.Hour, 10*time.Millisecond
	d := newSlowDisk(w)
	s, _ := startWatch(t, w)
	answer := d.hang(t)
	s.rescan <- struct{}{}
	<-d.waits
	writeFile(t, filepath.Join(dir, "late"), 0o755, "")
	if over := <-lines; over {
		t.Error("first it is over")
	}
	if len(scanned) > 0 || len(s.changes) > 0 {
		t.Error("a scan that hangs counts as carried out")
	}
	answer()
	s.await("added late")
	<-scanned
	if over := <-lines; !over {
		t.Error("the end is not reported")
	}
}
