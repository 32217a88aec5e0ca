package journal

// How the files of a journal reach the disk, and are replaced by new ones.

import (
	"errors"
	"os"
	"time"

	"github.com/DeRuina/timberjack"

	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// sync is that of Config.Sync, some time after a Write. A slow disk does not hold up who writes meanwhile.
func (j *Journal) sync() {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	if j.closed { // Close has done it
		j.mu.Unlock()
		return
	}
	if j.syncer != nil {
		j.syncer.Stop()
		j.syncer = nil // what is written from now on wants another
	}
	file, moved := j.file, j.moved
	j.moved = nil
	j.mu.Unlock()
	err := j.retire(moved)
	if errFile := j.fsync(file); !errors.Is(errFile, os.ErrClosed) { // Open has failed
		err = errors.Join(err, errFile)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = errors.Join(j.err, err)
}

// retire syncs and closes files that are written no more.
func (j *Journal) retire(moved []*os.File) (err error) {
	for _, f := range moved {
		err = errors.Join(err, j.fsync(f), f.Close())
	}
	return err
}

// follow opens the file anew if somebody has moved or removed it, or the other manager has rotated it.
func (j *Journal) follow(now time.Time) error {
	if pidfile.InPlace(j.file, j.path) {
		return nil
	}
	if info, err := os.Lstat(j.path); (err != nil || info.Size() == 0) && j.shares() {
		return nil // the other is about to begin it; until it has, what is written goes where the other's did
	}
	return j.goOn("moved", now)
}

// goOn opens the file at the path in place of the one before. There how things stand comes first, so that PreviousState needs no
// other.
func (j *Journal) goOn(reason string, now time.Time) error {
	line, err := Record{now, Rotated{Reason: reason, State: j.state.state()}, os.Getpid()}.lines()
	if err != nil {
		return err
	}
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	_, missing := os.Lstat(j.path)
	moved := j.file
	if err := j.open(); err != nil {
		return err // the records go on where they went
	}
	if missing != nil { // not for the mask to decide
		j.err = errors.Join(j.err, j.file.Chmod(info.Mode().Perm())) // the records matter more: append tells of it
	}
	if j.cfg.Sync == 0 {
		moved.Close()
	} else if j.moved = append(j.moved, moved); len(j.moved) == 1 {
		go j.sync() // at once: a file that waits is one more that is open
	}
	if j.shares() {
		return nil // who rules writes how things stand
	}
	if err := j.append(line, now); err != nil {
		return err
	}
	j.behind = false
	return nil
}

// due says why the file is to be rotated before n more bytes are written, if it is.
func (j *Journal) due(n int64, now time.Time) (reason string) {
	switch {
	case j.size == 0 || j.shares():
	case j.cfg.MaxSize > 0 && j.size+n > j.cfg.MaxSize:
		return "size"
	case j.cfg.MaxAge > 0 && now.Sub(j.began) >= j.cfg.MaxAge:
		return "age"
	}
	return ""
}

// rotate moves the file aside.
func (j *Journal) rotate(reason string, now time.Time) error {
	// It closes and opens files by itself, and those not to append; so it is asked for the rotation alone.
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	old := timberjack.Logger{
		Filename: j.path, FileMode: info.Mode().Perm(), BackupTimeFormat: rotatedLayout,
		MaxBackups: max(j.cfg.Keep, 0), MaxAge: j.cfg.KeepDays,
	}
	if err := errors.Join(old.RotateWithReason(reason), old.Close()); err != nil {
		return err
	}
	return j.goOn(reason, now)
}

// Rotate moves the file aside now. While a successor and the manager before it both write, it does nothing.
func (j *Journal) Rotate() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.size == 0 || j.shares() {
		return nil
	}
	return j.wrap(j.rotate("request", time.Now()))
}
