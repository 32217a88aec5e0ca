package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/prefork-go/prefork/ops/client"
)

const (
	abstractInterval = 250 * time.Millisecond

	// A socket is bound before it listens, which nothing reports: it is tried for
	// eight seconds, ever more seldom. One that was left behind is not tried longer.
	listenDelay    = 2 * time.Millisecond
	maxListenDelay = 4096 * time.Millisecond

	// A manager that ends has closed the connection before its socket.
	endDelay = 20 * time.Millisecond
)

// A socketWatch waits for control sockets that are made. It polls for abstract names,
// and for names of managers: the kernel does not report sockets in any directory.
type socketWatch struct {
	app     *app
	watcher *fsnotify.Watcher
	dirs    []string
}

func (a *app) newSocketWatch() *socketWatch {
	w := &socketWatch{app: a}
	w.watcher, _ = fsnotify.NewWatcher()
	switch chosen := a.chosen(); {
	case strings.HasPrefix(chosen, "@"):
	case isAddress(chosen):
		w.dirs = []string{filepath.Dir(chosen)}
	default:
		w.dirs = socketDirs(chosen)
	}
	w.add()
	return w
}

// socketDirs returns the directories in which the socket of a manager may be.
func socketDirs(name string) (dirs []string) {
	runtime, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	dirs = append(dirs, runtime)
	if name != "" {
		dirs = append(dirs, "/run/"+name) // RuntimeDirectory= of a unit
	}
	dirs = append(dirs, "/run/prefork")
	if xdg := os.Getenv("XDG_RUNTIME_DIR"); xdg != "" {
		dirs = append(dirs, filepath.Join(xdg, "prefork"))
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return !filepath.IsAbs(dir) })
}

// add watches each directory, or the nearest one above it that exists.
func (w *socketWatch) add() {
	if w.watcher == nil {
		return
	}
	for _, dir := range w.dirs {
		for w.watcher.Add(dir) != nil && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
		}
	}
}

func (w *socketWatch) close() {
	if w.watcher != nil {
		w.watcher.Close()
	}
}

// wait waits until there may be a socket. It returns ctx's error when ctx ends.
func (w *socketWatch) wait(ctx context.Context) error {
	var again <-chan time.Time
	if chosen := w.app.chosen(); w.watcher == nil || strings.HasPrefix(chosen, "@") || !isAddress(chosen) {
		again = time.After(abstractInterval)
	}
	var changes chan fsnotify.Event
	if w.watcher != nil {
		changes = w.watcher.Events
	}
	var retry <-chan time.Time
	delay, look := listenDelay, true
	for {
		if look {
			there, listens := w.look()
			switch {
			case listens:
				return nil
			case there && delay <= maxListenDelay:
				retry = time.After(delay)
				delay *= 2
			default:
				retry = nil
			}
		}
		look = false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
			return nil
		case <-retry:
			look = true
		case e := <-changes:
			w.add() // a directory may have been made
			if w.concerns(e.Name) {
				look, delay = true, listenDelay
			}
		}
	}
}

// concerns reports whether a file may be a socket, or have one below it.
func (w *socketWatch) concerns(path string) bool {
	if slices.Contains(w.files(), path) {
		return true
	}
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}

// files returns the files that may be the socket.
func (w *socketWatch) files() (files []string) {
	chosen := w.app.chosen()
	if isAddress(chosen) {
		files = []string{chosen}
	} else {
		for _, dir := range w.dirs {
			found, _ := filepath.Glob(filepath.Join(dir, "*"+client.Suffix))
			files = append(files, found...)
		}
	}
	return slices.DeleteFunc(files, func(path string) bool {
		st, err := os.Lstat(path)
		return err != nil || st.Mode().Type() != os.ModeSocket || !isAddress(chosen) && chosen != "" && nameOf(path) != chosen
	})
}

// look reports whether one of the files is there, and whether a process listens on
// one.
func (w *socketWatch) look() (there, listens bool) {
	files := w.files()
	for _, path := range files {
		c, err := client.Dial(path)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, client.ErrNotRunning) {
			return true, true
		}
	}
	return len(files) > 0, false
}
