//go:build unix && !solaris && !aix

package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/flocks"
	"github.com/prefork-go/prefork/internal/safedir"
)

// lock locks the directory, and the journal if there is one. The locks are held
// until this process and those that inherit the descriptors have exited.
func (p *plan) lock(waiting func(*BusyError)) error {
	files := []*os.File{}
	for _, l := range []struct {
		path string
		open func(string) (*os.File, error)
	}{{p.Dir, openDir}, {p.Journal, openJournal}} {
		if l.path == "" {
			continue
		}
		f, err := p.lockPath(l.path, l.open, waiting)
		if err == nil {
			files = append(files, f)
			_, err = unix.FcntlInt(f.Fd(), unix.F_SETFD, 0) // for the program that New executes
		}
		if err != nil {
			for _, f := range files {
				unlock(f)
			}
			return err
		}
	}
	p.locks = files
	return nil
}

// enter locks another directory that has taken the name of the first. Only this
// process holds that lock.
func (p *plan) enter() func() error {
	first, err := os.Stat(p.Dir)
	var other *os.File
	return func() error {
		if err != nil {
			return err
		}
		now, err := os.Stat(p.Dir)
		if err != nil {
			return err
		}
		if other != nil {
			if own, err := other.Stat(); err == nil && os.SameFile(own, now) {
				return nil
			}
			unlock(other)
			other = nil
		}
		if !os.SameFile(now, first) {
			other, err = p.lockPath(p.Dir, openDir, nil)
		}
		return err
	}
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

// openJournal opens the journal as package journal does, which locks a file beside
// it: that lock ends with the manager.
func openJournal(path string) (f *os.File, err error) {
	dir, err := safedir.Open(filepath.Dir(path))
	if err == nil {
		defer dir.Close()
		if err = dir.Shared(); err == nil {
			f, err = dir.OpenFile(filepath.Base(path), unix.O_RDWR, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--journal: %w", err)
	}
	return f, nil
}

// awaitJournal waits, without polling, until no process has the lock that package
// journal takes.
func awaitJournal(path string) error {
	f, err := os.OpenFile(path+".lock", os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return flock(f, unix.LOCK_SH)
}

// lockPath locks a file. If waiting is nil, it does not wait.
func (p *plan) lockPath(path string, open func(string) (*os.File, error), waiting func(*BusyError)) (*os.File, error) {
	for {
		f, err := open(path)
		if err != nil {
			return nil, err
		}
		err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == unix.EWOULDBLOCK {
			busy := &BusyError{Path: path, PID: flocks.Holder(f)}
			if !p.Wait || waiting == nil {
				f.Close()
				return nil, busy
			}
			waiting(busy)
			err = flock(f, unix.LOCK_EX)
		}
		if err != nil {
			f.Close()
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		now, err := os.Stat(path)
		own, ownErr := f.Stat()
		if err == nil && ownErr == nil && os.SameFile(own, now) {
			return f, nil
		}
		unlock(f) // another file has the name now
	}
}

// unlock closes a file that is locked. A process that is being started has the
// descriptor until its exec, so closing it alone would not release the lock at once.
func unlock(f *os.File) {
	flock(f, unix.LOCK_UN)
	f.Close()
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}
