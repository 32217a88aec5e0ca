package journal

import (
	"errors"
	"os"
	"time"

	"github.com/DeRuina/timberjack"

	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// Rotate rotates the file now. It is a no-op if the file is empty, while a
// successor and its predecessor both write to the journal, and after Close.
func (j *Journal) Rotate() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.size == 0 || j.isShared() {
		return nil
	}
	return j.wrap(j.rotate("request", time.Now()))
}

// rotationReason returns why the file must be rotated before n more bytes are
// written. It returns "" if the file need not be rotated.
func (j *Journal) rotationReason(n int64, now time.Time) string {
	switch {
	case j.size == 0 || j.isShared():
	case j.cfg.MaxSize > 0 && j.size+n > j.cfg.MaxSize:
		return "size"
	case j.cfg.MaxAge > 0 && now.Sub(j.oldest) >= j.cfg.MaxAge:
		return "age"
	}
	return ""
}

// rotate renames the file and opens a new one.
func (j *Journal) rotate(reason string, now time.Time) error {
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	// timberjack only renames and deletes files here. It does not open its
	// files for appending, so it does not write the records.
	files := timberjack.Logger{
		Filename:         j.path,
		FileMode:         info.Mode().Perm(),
		BackupTimeFormat: rotatedLayout,
		MaxBackups:       max(j.cfg.KeepFiles, 0),
		MaxAge:           j.cfg.KeepDays,
	}
	if err := errors.Join(files.RotateWithReason(reason), files.Close()); err != nil {
		return err
	}
	return j.switchFile(reason, now)
}

// reopenIfMoved opens the path again if the file was moved or removed, or if
// the other manager has rotated it.
func (j *Journal) reopenIfMoved(now time.Time) error {
	if pidfile.InPlace(j.file, j.path) {
		return nil
	}
	if info, err := os.Lstat(j.path); (err != nil || info.Size() == 0) && j.isShared() {
		// The active manager is about to write the first record of the new
		// file. Until then records go to the old file.
		return nil
	}
	return j.switchFile("moved", now)
}

// switchFile replaces the open file with the one at the path. It writes the
// state first, so that PreviousState needs no other file.
func (j *Journal) switchFile(reason string, now time.Time) error {
	rec := Record{now, Rotated{Reason: reason, State: j.state.state()}, os.Getpid()}
	lines, err := rec.lines()
	if err != nil {
		return err
	}
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	_, missing := os.Lstat(j.path)
	oldFile := j.file
	if err := j.openFile(); err != nil {
		return err // records still go to the old file
	}
	if missing != nil {
		// The new file gets the mode of the old one, whatever the umask. A
		// failure must not cost records, so the next Write reports it.
		j.asyncErr = errors.Join(j.asyncErr, j.file.Chmod(info.Mode().Perm()))
	}
	if j.cfg.Sync == 0 {
		oldFile.Close()
	} else if j.oldFiles = append(j.oldFiles, oldFile); len(j.oldFiles) == 1 {
		go j.sync() // at once, because each old file uses a descriptor
	}
	if j.isShared() {
		return nil // the active manager writes the state
	}
	if err := j.append(lines, now); err != nil {
		return err
	}
	j.stateMissing = false
	return nil
}
